"""Which part of an image a model sees: where the grid of its patches lies on it. No torch here."""

Frame = tuple[float, float, float, float]
"""(left, top, right, bottom) of the grid of patches, in shares of the image's width and height: (0, 0, 1, 1) is the
image exactly, (0.375, 0, 0.625, 1) its middle quarter; below 0 and above 1 the grid goes beyond it, into padding."""

WHOLE: Frame = (0.0, 0.0, 1.0, 1.0)

CUT_BELOW = 0.95
"""An image counts as cut if a smaller share of it is seen."""


def seen_share(frame: Frame) -> float:
    """Return the share of the image's area that lies inside the frame."""
    left, top, right, bottom = frame
    return max(0.0, min(right, 1.0) - max(left, 0.0)) * max(0.0, min(bottom, 1.0) - max(top, 0.0))


def is_cut(frame: Frame) -> bool:
    """Return whether more of the image is lost than a rounded edge."""
    return seen_share(frame) < CUT_BELOW
