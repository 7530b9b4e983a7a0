"""Which layers of an LLM ran: as signs, in words, and as an image."""

from collections.abc import Iterator, Sequence

from PIL import Image, ImageDraw

_RAN, _EMPTY, _EDGE = (0, 114, 178), (246, 244, 238), (92, 90, 85)


def layer_shares(groups_run: Sequence[Sequence[int]], groups_per_layer: int) -> list[float]:
    """Return the share of each layer that ran, by its groups of heads."""
    return [len(groups) / groups_per_layer for groups in groups_run]


def strip_text(shares: Sequence[float]) -> str:
    """Return one sign a layer: full, half or dot for all, some or none of it."""
    return "".join("·" if share == 0 else "█" if share == 1 else "▄" for share in shares)


def strip_words(shares: Sequence[float]) -> str:
    """Return the layers that ran, counted from 0: `0-3, 5, 7`, and `6 (25 %)` for a part of one."""
    return ", ".join(_stretches(shares)) or "none"


def draw_strip(shares: Sequence[float], width: int, height: int) -> Image.Image:
    """Return an image of one box a layer, the first on the left, filled from below as far as the layer ran."""
    strip = Image.new("RGB", (width, height), (255, 255, 255))
    brush, step = ImageDraw.Draw(strip), width / len(shares)
    for layer, share in enumerate(shares):
        # Neighbors share an edge, so that no box is a pixel wider than the next by more than rounding.
        left, right = round(layer * step), min(width - 1, round((layer + 1) * step))
        brush.rectangle((left, 0, right, height - 1), fill=_EMPTY, outline=_EDGE)
        if share > 0:
            brush.rectangle((left, round((height - 1) * (1 - share)), right, height - 1), fill=_RAN, outline=_EDGE)
    return strip


def _stretches(shares: Sequence[float]) -> Iterator[str]:
    start = 0
    while start < len(shares):
        end = start
        while end + 1 < len(shares) and shares[end + 1] == shares[start]:
            end += 1
        part = "" if shares[start] == 1 else f" ({100 * shares[start]:.0f} %)"
        if shares[start] > 0:
            yield (str(start) if start == end else f"{start}-{end}") + part
        start = end + 1
