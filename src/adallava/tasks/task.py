"""What a task is: questions about pictures, with the answers that count as right."""

from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image

from adallava.errors import AdallavaError

from .scoring import EXACT_MATCH, load_metric


@dataclass(frozen=True)
class TaskSample:
    """One question about one picture.

    Attributes:
        id: unique within the task, and the same on every machine.
        question: as asked, without a prompt template.
        answers: every answer that counts as right; at least one.
        kind: question type, where the task has one.
        load_image: decodes the picture anew on every call, as RGB; raises `InputError` if it cannot.
    """

    id: str
    question: str
    answers: tuple[str, ...]
    kind: str | None
    load_image: Callable[[], Image.Image]


Scorer = Callable[[TaskSample, str], float]
"""From a sample and a response to a score in [0, 1]."""


@dataclass(frozen=True)
class Task:
    """Samples in a fixed order.

    Attributes:
        name: a bundled task's name, or the file's path as given.
        samples: already limited to what was asked for.
        split: of a bundled task; None for a local file, which has none.
        sha256: of a local file's bytes (pictures it names by path excluded); None for a bundled task.
        columns: which column of a local file is what; empty for a bundled task.
        metric: name of what `score` computes.
        score: of a response to a sample, in [0, 1]; None for the metric of that name over the sample's answers.
    """

    name: str
    samples: tuple[TaskSample, ...]
    split: str | None
    sha256: str | None
    columns: dict[str, str]
    metric: str = EXACT_MATCH
    score: Scorer | None = None

    def scorer(self) -> Scorer:
        """Return what scores a response to a sample of the task."""
        if self.score is not None:
            return self.score
        metric = load_metric(self.metric)
        return lambda sample, response: metric(response, sample.answers)


def pictures_of(task: Task) -> Callable[[str], Image.Image | None]:
    """Return how to find a sample's picture by id: None for a sample that is not in the task, or cannot be read."""
    loaders = {sample.id: sample.load_image for sample in task.samples}

    def picture_of(sample_id: str) -> Image.Image | None:
        try:
            return loaders[sample_id]() if sample_id in loaders else None
        except AdallavaError:  # its sample failed for the same reason, which the report says
            return None

    return picture_of
