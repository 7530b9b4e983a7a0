"""What the page's part on both dials is made of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from adallava.records import FULL_METHOD, Cell, Results
from adallava.records.dials import FrontComparison
from adallava.report import formats
from adallava.report.dial_grid import HeatMap, heat_maps, shade_ends
from adallava.report.dial_tables import axis_words, dial_tables
from adallava.report.layer_strip import layer_shares, strip_words
from adallava.report.plain_table import PaperTable


@dataclass(frozen=True)
class DialsPart:
    """The part in words.

    Attributes:
        maps: accuracy over both dials.
        ends: of the shading.
        tables: by name.
        front_axes: (key of the plot's axis, words for its button).
        strips: (scheduler and latency, layers in words, share of each layer that ran).
    """

    maps: tuple[HeatMap, ...]
    ends: tuple[float, float]
    tables: Mapping[str, PaperTable]
    front_axes: tuple[tuple[str, str], ...]
    strips: tuple[tuple[str, str, tuple[float, ...]], ...]

    @property
    def lowest(self) -> str:
        """The accuracy that is shaded palest, in per cent."""
        return formats.percent(self.ends[0])

    @property
    def highest(self) -> str:
        """The accuracy that is shaded darkest, in per cent."""
        return formats.percent(self.ends[1])

    def shade(self, cell: Cell) -> float:
        """Return how dark a cell is, from 0 to 1."""
        low, high = self.ends
        return 1.0 if cell.accuracy is None or high <= low else (cell.accuracy.mean - low) / (high - low)


def dials_part(results: Results) -> DialsPart | None:
    """Return the part, or None for a run in which every layer ran."""
    if results.dials is None:
        return None
    maps = heat_maps(results)
    return DialsPart(
        maps=tuple(maps),
        ends=shade_ends(maps),
        tables={table.name: table for table in dial_tables(results)},
        front_axes=tuple(dict.fromkeys((plot_axis(front), axis_words(front)) for front in results.dials.fronts)),
        strips=tuple(_strips(results)),
    )


def fronts_json(results: Results) -> list[dict[str, object]]:
    """Return the fronts that the page draws, by the key of the axis that its cells have their costs under."""
    fronts = [] if results.dials is None else results.dials.fronts
    return [
        {"axis": plot_axis(front), "alone": front.alone, "both": front.front, "one": front.front_alone}
        for front in fronts
    ]


def plot_axis(front: FrontComparison) -> str:
    """Return the key of the `CostAxis` that a comparison of fronts is over."""
    if front.axis == "flops":
        return "gflops"
    return "first-token" if front.batch_size is None else f"timed-{front.batch_size}"


def _strips(results: Results) -> Sequence[tuple[str, str, tuple[float, ...]]]:
    if results.dials is None:
        return []
    strips: dict[str, tuple[str, str, tuple[float, ...]]] = {}
    for plans in results.dials.plans:
        shares = tuple(layer_shares(plans.of_all.most_common, plans.groups_per_layer))
        method, _, schedule = plans.cell.partition("/")
        if method.startswith(f"{FULL_METHOD}@"):
            strips.setdefault(schedule, (schedule, strip_words(shares), shares))
    return list(strips.values())
