"""Numbers as a reader wants them. Every function takes None for "not measured" and gives a dash."""

import math

from adallava.records import Interval, PairedDifference

DASH = "–"
MINUS = "−"


def figures3(value: float | None) -> str:
    """Return three significant figures but at most three decimals: <0.001, 0.012, 4.57, 45.7, 8,570."""
    if value is None or not math.isfinite(value):
        return DASH
    if value == 0:
        return "0"
    if 0 < value < 0.001:
        return "<0.001"
    decimals = min(3, max(0, 2 - math.floor(math.log10(abs(value)))))
    return f"{value:,.{decimals}f}".replace("-", MINUS)


def count(value: float | None) -> str:
    """Return a number of tokens: whole if it is, else one decimal."""
    if value is None or not math.isfinite(value):
        return DASH
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"


def percent(share: float | None) -> str:
    """Return a share in [0, 1] as per cent with one decimal: `97.5`."""
    return DASH if share is None or not math.isfinite(share) else f"{100 * share:.1f}"


def interval(estimate: Interval | None) -> str:
    """Return the bounds of an accuracy in per cent: `95.0 to 99.5`."""
    return DASH if estimate is None else f"{percent(estimate.low)} to {percent(estimate.high)}"


def points(share: float) -> str:
    """Return a difference in percentage points, signed: `+1.5`, `−0.5`, `0.0`."""
    text = f"{100 * share:+.1f}"
    return "0.0" if float(text) == 0 else text.replace("-", MINUS)


def difference(estimate: PairedDifference | None) -> tuple[str, str]:
    """Return a paired difference and its bounds in points: (`−0.5`, `−2.0 to +1.0`)."""
    if estimate is None:
        return DASH, ""
    return points(estimate.mean), f"{points(estimate.low)} to {points(estimate.high)}"


def gflops(flops: float | None) -> str:
    """Return FLOPs in units of 10⁹."""
    return DASH if flops is None else figures3(flops / 1e9)


def mebibytes(size_bytes: int | None) -> str:
    """Return bytes in MiB."""
    return DASH if size_bytes is None else figures3(size_bytes / 2**20)


def probability(p_value: float) -> str:
    """Return a p-value: `<0.001`, `0.012`, `1`."""
    return "<0.001" if p_value < 0.001 else f"{min(p_value, 1.0):.3f}".rstrip("0").rstrip(".")
