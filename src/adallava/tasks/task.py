"""What a task is: questions about pictures, with the answers that count as right."""

from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image

from adallava.errors import AdallavaError


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


@dataclass(frozen=True)
class Task:
    """Samples in a fixed order.

    Attributes:
        name: a bundled task's name, or the file's path as given.
        samples: already limited to what was asked for.
        split: of a bundled task; None for a local file, which has none.
        sha256: of a local file's bytes (pictures it names by path excluded); None for a bundled task.
        columns: which column of a local file is what; empty for a bundled task.
    """

    name: str
    samples: tuple[TaskSample, ...]
    split: str | None
    sha256: str | None
    columns: dict[str, str]


def pictures_of(task: Task) -> Callable[[str], Image.Image | None]:
    """Return how to find a sample's picture by id: None for a sample that is not in the task, or cannot be read."""
    loaders = {sample.id: sample.load_image for sample in task.samples}

    def picture_of(sample_id: str) -> Image.Image | None:
        try:
            return loaders[sample_id]() if sample_id in loaders else None
        except AdallavaError:  # its sample failed for the same reason, which the report says
            return None

    return picture_of
