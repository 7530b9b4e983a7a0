"""What visitors of the page hand in: images, clips and questions, read within limits."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from adallava.budget import TokenBudget
from adallava.demo.moving_images import frames_of, is_moving
from adallava.errors import InputError
from adallava.tasks.images import MAX_IMAGE_BYTES, MAX_IMAGE_PIXELS, open_rgb

MAX_PICTURES = 4
"""In one question; a clip's frames are images."""

MAX_UPLOAD_PIXELS = MAX_IMAGE_PIXELS
"""Decoded size of all images of a question together: as much as one image may have elsewhere."""

MAX_UPLOAD_BYTES = MAX_IMAGE_BYTES
"""Size of one file."""

MAX_BUDGETS = 6
"""That one click answers."""


def open_uploads(paths: Sequence[str]) -> list[Image.Image]:
    """Decode images that were handed in, and clips: as many frames of each as there are images left to ask about.

    Raises:
        InputError: for none, too many, too large ones, or a file that is neither, by its name.
    """
    if not paths:
        raise InputError("there is no image: drop one, or choose an example")
    if len(paths) > MAX_PICTURES:
        raise InputError(f"{len(paths)} images are too many: ask about {MAX_PICTURES} at most")
    opened: list[Image.Image] = []
    files = [Path(path) for path in paths]
    clips = {path for path in files if is_moving(path)}
    num_clips = sum(path in clips for path in files)
    frames_each = (MAX_PICTURES - len(files) + num_clips) // max(1, num_clips)
    for path in files:
        try:
            opened += frames_of(path, frames_each) if path in clips else [open_rgb(path)]
        except InputError as error:
            # Where the server keeps its files is none of a visitor's business.
            raise InputError(str(error).replace(str(path), path.name)) from None
        if sum(image.width * image.height for image in opened) > MAX_UPLOAD_PIXELS:
            raise InputError(f"the images have more than {MAX_UPLOAD_PIXELS} pixels together: make them smaller")
    return opened


def read_question(text: str | None) -> str:
    """Return a question without white space around it.

    Raises:
        InputError: for none, or characters that are none.
    """
    question = (text or "").strip()
    if not question:
        raise InputError("the question is empty: ask something about the image")
    if "\0" in question or any(0xD800 <= ord(letter) <= 0xDFFF for letter in question):
        raise InputError("the question holds characters that are not text: type it again")
    return question


def read_budgets(shown: TokenBudget, others: str | None) -> list[TokenBudget]:
    """Return the budgets to answer at: the one that the page shows, then those next to it.

    Args:
        shown: by the slider.
        others: shares and numbers with commas or spaces between, such as `100%, 25% 16`.

    Raises:
        BudgetError: for one that means nothing.
        InputError: for too many.
    """
    words = (others or "").replace(",", " ").split()
    if len(words) >= MAX_BUDGETS:
        raise InputError(f"{len(words)} budgets besides the slider's are too many: give {MAX_BUDGETS - 1} at most")
    return list(TokenBudget.parse_all([shown, *words]))
