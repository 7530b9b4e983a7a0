"""The images that `adallava generate` writes: files, captions, and the layers that ran."""

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from adallava.records.durable import make_folder, write_atomically
from adallava.report.layer_strip import draw_strip

from .output_paths import PICTURE_SUFFIXES

_GAP_PX = 12
_CAPTION_PX = 34
_STRIP_GAP_PX, _STRIP_PX = 6, 18
_PAPER = (255, 255, 255)
_INK = (20, 20, 20)


def side_by_side(pictures: Sequence[Image.Image], captions: Sequence[str]) -> Image.Image:
    """Return images in a row, each with its caption above; widths and heights may differ."""
    width = sum(picture.width for picture in pictures) + _GAP_PX * (len(pictures) + 1)
    height = max(picture.height for picture in pictures) + _CAPTION_PX + _GAP_PX
    strip = Image.new("RGB", (width, height), _PAPER)
    brush, font = ImageDraw.Draw(strip), ImageFont.load_default(size=18)
    left = _GAP_PX
    for picture, caption in zip(pictures, captions, strict=True):
        strip.paste(picture, (left, _CAPTION_PX))
        brush.text((left, 6), caption, fill=_INK, font=font)
        left += picture.width + _GAP_PX
    return strip


def with_layers(picture: Image.Image, shares: Sequence[float]) -> Image.Image:
    """Return an image with the LLM's layers under it, one box each from the first on the left, filled if it ran."""
    height = picture.height + _STRIP_GAP_PX + _STRIP_PX
    taller = Image.new("RGB", (picture.width, height), _PAPER)
    taller.paste(picture, (0, 0))
    taller.paste(draw_strip(shares, picture.width, _STRIP_PX), (0, picture.height + _STRIP_GAP_PX))
    return taller


@dataclass(frozen=True)
class PictureRow:
    """The drawings of one budget.

    Attributes:
        label: `method@budget`, for the file's name.
        caption: above the first drawing.
        drawings: one for each image of the prompt.
    """

    label: str
    caption: str
    drawings: Sequence[Image.Image]

    @property
    def captions(self) -> list[str]:
        """A caption for each drawing; only the first says something."""
        return [self.caption, *[""] * (len(self.drawings) - 1)]


def save_pictures(rows: Sequence[PictureRow], target: Path, image_name: str) -> list[Path]:
    """Write one file for each row, or all of them as one strip, and return the path of each row's image.

    Args:
        rows: one a budget.
        target: a folder, made if missing; or a file with an image's suffix, for one strip.
        image_name: begins the names of files in a folder.

    Raises:
        RunFolderError: if one cannot be written, naming it.
    """
    if target.suffix.lower() in PICTURE_SUFFIXES:
        pictures = [picture for row in rows for picture in row.drawings]
        captions = [caption for row in rows for caption in row.captions]
        make_folder(target.parent)
        _save(side_by_side(pictures, captions), target)
        return [target] * len(rows)
    make_folder(target)
    paths = []
    for row in rows:
        path = target / f"{image_name}.{row.label}.png"
        _save(side_by_side(row.drawings, row.captions), path)
        paths.append(path)
    return paths


def _save(picture: Image.Image, path: Path) -> None:
    encoded = BytesIO()
    picture.save(encoded, Image.registered_extensions()[path.suffix.lower()])
    write_atomically(path, [encoded.getvalue()])
