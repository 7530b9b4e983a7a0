"""What may be said of a tested pair: ahead, different, the same, or not told apart and what could have been."""

from collections.abc import Iterable
from typing import Literal

from adallava.records.estimates import Verdict
from adallava.report import formats

Outcome = Literal["ahead", "differs", "same", "open"]
"""`ahead`: significant, of a comparison that was planned; `differs`: significant, of any other pair, after correction
for all of them; `same`: within the margin; `open`: not told apart."""


def outcome_of(pair: Verdict) -> Outcome:
    """Return what may be said of a pair. Older files planned nothing, and their significant pairs count as ahead."""
    if pair.significant:
        return "differs" if pair.family == "exploratory" else "ahead"
    return "same" if pair.equivalent else "open"


def least_points(pair: Verdict) -> str:
    """Return the least true difference that such a run finds in four of five cases, in points; a dash if unknown."""
    return formats.DASH if pair.least_detectable is None else f"{100 * pair.least_detectable:.1f}"


def margin_points(pair: Verdict) -> str:
    """Return the margin within which two sides are called the same: `±2.0`."""
    return formats.DASH if pair.equivalence_margin is None else f"±{100 * pair.equivalence_margin:.1f}"


def least_range(pairs: Iterable[Verdict]) -> str:
    """Say what the pairs that are not told apart could have shown; empty for older files."""
    least = sorted(
        pair.least_detectable for pair in pairs if outcome_of(pair) == "open" and pair.least_detectable is not None
    )
    if not least:
        return ""
    low, high = f"{100 * least[0]:.1f}", f"{100 * least[-1]:.1f}"
    ends = low if low == high else f"{low} to {high}"
    return f"four of five such runs would find true differences of {ends} points"
