"""Files that a command writes, held against those that it reads."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from adallava.errors import InputError

PICTURE_SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".webp"))
"""Of files; any other path is a folder."""


_PAGE_BEGIN = b"<!doctype html>"


def check_output_image(output: Path, images: Sequence[Path], method: str) -> None:
    """Refuse an `--output-image` that would write over an image that is read, or can be neither file nor folder.

    Args:
        output: a file; or a folder, in which files are called after the first picture and the method.
        images: the pictures.
        method: its name.

    Raises:
        InputError: naming both.
    """
    is_strip = output.suffix.lower() in PICTURE_SUFFIXES
    if output.exists() and not (output.is_file() if is_strip else output.is_dir()):
        raise InputError(
            f"--output-image {output} exists and is not a {'file' if is_strip else 'folder'}: name a folder, or a file "
            f"that ends in {', '.join(sorted(PICTURE_SUFFIXES))}"
        )
    named_alike = [path for path in images if path.name.startswith(f"{images[0].stem}.{method}@")]
    check_no_input("--output-image", output, images)
    for path in named_alike:
        if is_same(output, path.parent):
            raise InputError(
                f"--output-image {output} is the folder of {path}, which may be written over: name another"
            )


def check_page(option: str, output: Path, run_folders: Iterable[Path]) -> None:
    """Refuse to write a page over what is none (a data file, an image), or as a file that a run folder may hold.

    Args:
        option: that named it.
        output: the page.
        run_folders: those that are read.

    Raises:
        InputError: naming the file.
    """
    if output.exists() and not output.is_file():
        raise InputError(f"{option} {output} exists and is not a file: name a page, such as report.html")
    if output.exists():
        with output.open("rb") as file:
            begin = file.read(len(_PAGE_BEGIN)).lower()
        if begin not in (_PAGE_BEGIN, b""):
            raise InputError(f"{option} {output} exists and is not a report page: give another name")
    if output.suffix.lower() != ".html" and any(is_same(output.parent, folder) for folder in run_folders):
        raise InputError(f"{option} {output} may be a file of the run's own: name a page that ends in .html")


def check_no_input(option: str, output: Path, inputs: Iterable[Path]) -> None:
    """Refuse to write over an input.

    Raises:
        InputError: naming both.
    """
    for path in inputs:
        if is_same(output, path):
            raise InputError(f"{option} {output} is {path}, which is read: give another name")


def is_same(one: Path, other: Path) -> bool:
    """Return whether two paths lead to the same file, however they are spelled: a link to it is the file."""
    try:
        return one.samefile(other)
    except (OSError, ValueError):  # one of them does not exist, or no file can have such a name
        return False
