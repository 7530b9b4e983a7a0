"""How much of the images the model sees, in words and as an image: the whole of it with a frame around the part."""

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance

from adallava.records import SeenPictures
from adallava.records.counted_nouns import counted
from adallava.records.picture_frames import Frame, is_cut

PADDING = "--pad-to-square"
"""The option that shows images whole."""

_PADDED = (178, 178, 178)
"""Where the frame goes beyond the image. Not the color of the padding itself, which a run does not record."""

_INK, _LIGHT = (20, 20, 20), (255, 255, 255)
_DARKENED = 0.45

_MAX_SIDE_PX = 2688


def cut_words(seen: SeenPictures | None, padding: str = PADDING) -> str | None:
    """Say that images are cut; None where none is, and where it is not known.

    Args:
        seen: how much of them.
        padding: what shows them whole, as the user writes it.
    """
    if seen is None or not seen.num_cut:
        return None
    verb = "is" if seen.num_cut == 1 else "are"
    return (
        f"{seen.num_cut} of {counted(seen.num_pictures, 'image')} {verb} cut by the processor's center crop, "
        f"the worst to {100 * seen.least_share:.0f} %: evidence may be cut off; {padding} shows all of each"
    )


def with_padding(image: Image.Image, frame: Frame) -> tuple[Image.Image, Frame]:
    """Return an image, made larger where the frame goes beyond it, and the frame in shares of that."""
    left, top = min(frame[0], 0.0), min(frame[1], 0.0)
    width, height = max(frame[2], 1.0) - left, max(frame[3], 1.0) - top
    within = (
        (frame[0] - left) / width,
        (frame[1] - top) / height,
        (frame[2] - left) / width,
        (frame[3] - top) / height,
    )
    if (width, height) == (1.0, 1.0):
        return image, within
    larger = Image.new("RGB", (max(1, round(image.width * width)), max(1, round(image.height * height))), _PADDED)
    larger.paste(image, (round(-left * image.width), round(-top * image.height)))
    return larger, within


def in_whole(drawing: Image.Image, image: Image.Image, frame: Frame) -> Image.Image:
    """Return the whole image with a drawing of its seen part in place, framed; the drawing alone if nothing is cut.

    Args:
        drawing: of what lies inside the frame.
        image: RGB, uncut.
        frame: of the seen part.
    """
    if not is_cut(frame):
        return drawing
    whole, (left, top, right, bottom) = with_padding(image, frame)
    across, down = drawing.width / (right - left), drawing.height / (bottom - top)
    smaller = min(1.0, _MAX_SIDE_PX / max(across, down))
    size = (round(across * smaller), round(down * smaller))
    dark = ImageEnhance.Brightness(whole.convert("L").convert("RGB").resize(size)).enhance(_DARKENED)
    edges = np.rint(np.array((left, top, right, bottom)) * np.array(size * 2)).astype(int).tolist()
    box = (edges[0], edges[1], max(edges[0] + 1, edges[2]), max(edges[1] + 1, edges[3]))
    dark.paste(drawing.resize((box[2] - box[0], box[3] - box[1])), box[:2])
    brush = ImageDraw.Draw(dark)
    brush.rectangle((box[0] - 3, box[1] - 3, box[2] + 2, box[3] + 2), outline=_INK, width=3)
    brush.rectangle((box[0] - 5, box[1] - 5, box[2] + 4, box[3] + 4), outline=_LIGHT, width=2)
    return dark
