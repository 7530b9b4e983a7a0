"""What a task is: questions about images, with the answers that count as right."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from PIL import Image

from adallava.errors import AdallavaError

from .scoring import EXACT_MATCH, METRIC_VERSIONS, load_metric


@dataclass(frozen=True)
class TaskSample:
    """One question about an image, or several.

    Attributes:
        id: unique within the task, and the same on every machine.
        question: as asked, without a prompt template.
        answers: every answer that counts as right; at least one.
        kind: question type, where the task has one.
        load_images: decodes the images again on every call, as RGB, at least one, in the order that the question has
            them; raises `InputError` if it cannot.
        pictures: what the data name them by, equal for equal references; None where that is not known without reading.
    """

    id: str
    question: str
    answers: tuple[str, ...]
    kind: str | None
    load_images: Callable[[], Sequence[Image.Image]]
    pictures: tuple[str, ...] | None = None


Scorer = Callable[[TaskSample, str], float]
"""From a sample and a response to a score in [0, 1]."""


Aggregate = Callable[[Mapping[str, str]], dict[str, float | None]]
"""From responses by sample id to figures by name; None for a figure that these responses have none of."""


@dataclass(frozen=True)
class Task:
    """Samples in a fixed order.

    Attributes:
        name: a bundled task's name, or the file's path as given.
        samples: already limited to what was asked for.
        split: of a bundled task; None for a local file, which has none.
        sha256: of a local file's bytes (images it names by path excluded), of another harness's task of what decides
            prompts and scores; None for a bundled task.
        columns: which column of a local file is what; empty for a bundled task.
        metric: name of what `score` computes.
        score: of a response to a sample, in [0, 1]; None for the metric of that name over the sample's answers.
        max_new_tokens: after which the task cuts an answer; None if it does not say.
        aggregate: figures of the task's own over all its responses; None if it has none besides the mean score.
        hash_samples: makes `sha256` of samples, where it depends on which they are; None where it does not.
    """

    name: str
    samples: tuple[TaskSample, ...]
    split: str | None
    sha256: str | None
    columns: dict[str, str]
    metric: str = EXACT_MATCH
    score: Scorer | None = None
    max_new_tokens: int | None = None
    aggregate: Aggregate | None = None
    hash_samples: Callable[[tuple["TaskSample", ...]], str] | None = None

    @property
    def num_pictures(self) -> int | None:
        """How many images the samples name; None where they are not all named. Two names may be of equal images."""
        if any(sample.pictures is None for sample in self.samples):
            return None
        return len({name for sample in self.samples for name in sample.pictures or ()})

    @property
    def metric_version(self) -> int:
        """Version of the metric, see `METRIC_VERSIONS`; 1 where it is another harness's."""
        return 1 if self.score is not None else METRIC_VERSIONS.get(self.metric, 1)

    def sha256_of_first(self, count: int) -> str | None:
        """Return what `sha256` would be, had the task been loaded with this limit."""
        return self.sha256 if self.hash_samples is None else self.hash_samples(self.samples[:count])

    def scorer(self) -> Scorer:
        """Return what scores a response to a sample of the task."""
        if self.score is not None:
            return self.score
        metric = load_metric(self.metric)
        return lambda sample, response: metric(response, sample.answers)


def pictures_of(task: Task) -> Callable[[str], Sequence[Image.Image]]:
    """Return how to find a sample's images by id: none of a sample that is not in the task, or cannot be read."""
    loaders = {sample.id: sample.load_images for sample in task.samples}

    def pictures_of_sample(sample_id: str) -> Sequence[Image.Image]:
        """Return a sample's pictures; none where they cannot be read."""
        try:
            return loaders[sample_id]() if sample_id in loaders else ()
        except AdallavaError:  # its sample failed for the same reason, which the report says
            return ()

    return pictures_of_sample
