"""What the model sees of the images of one prompt, and which patches were kept of it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from adallava.records import WhatRan
from adallava.records.picture_frames import Frame
from adallava.report.patches import draw_kept_patches
from adallava.report.seen import in_whole


def seen_pictures(pictures: Sequence[Any], image_processor: Any) -> list[Image.Image]:
    """Return the images as the model sees them: resized, cropped, in its own frame.

    Drawing on these, and not on the files, keeps a patch where the model had it even if the processor crops.

    Args:
        pictures: [3, H, W] tensors on the CPU, as the processor made them; see `Family.pictures`.
        image_processor: that made it; its mean and deviation are undone.
    """
    normalized = bool(getattr(image_processor, "do_normalize", False))
    mean = np.array(image_processor.image_mean if normalized else (0.0,) * 3, dtype=np.float32)
    deviation = np.array(image_processor.image_std if normalized else (1.0,) * 3, dtype=np.float32)
    pixels = [picture.float().numpy().transpose(1, 2, 0) * deviation + mean for picture in pictures]
    return [Image.fromarray(np.clip(np.rint(image * 255.0), 0, 255).astype(np.uint8)) for image in pixels]


def framed(
    drawings: Sequence[Image.Image], whole: Sequence[tuple[Image.Image, Frame | None]], whole_images: Sequence[int]
) -> list[Image.Image]:
    """Return the drawings, those of images that the processor cuts in their place on the whole image.

    Args:
        drawings: of each image that the model saw: of a picture in tiles the whole, and its tiles joined.
        whole: each picture, uncut, and which part of it the model saw.
        whole_images: of each picture, the image that shows the whole.
    """
    placed = list(drawings)
    for number, (image, frame) in zip(whole_images, whole, strict=True):
        if frame is not None:
            placed[number] = in_whole(drawings[number], image, frame)
    return placed


def draw_choice(
    seen: Sequence[Image.Image], ran: WhatRan, whole: Sequence[tuple[Image.Image, Frame | None]]
) -> list[Image.Image]:
    """Return a drawing of each image that the model saw, the dropped patches faded; see `draw_kept_patches`.

    Args:
        seen: of `seen_pictures`.
        ran: what was kept of them.
        whole: see `framed`.
    """
    kept = ran.kept_indices or [()] * len(seen)
    drawings = [
        draw_kept_patches(picture, indices, grid, merged=ran.merged)
        for picture, indices, grid in zip(seen, kept, ran.grids, strict=True)
    ]
    return framed(drawings, whole, ran.whole_images)
