"""What a run says of both dials as plain tables: for the terminal, the page, a paper and the docs alike."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from adallava.records import FULL_METHOD, Cell, Comparison, Results
from adallava.records.dials import CellPlans, Dials, FixedShare, FrontComparison, FrontGain, PlanCount, Saving
from adallava.records.estimates import PairedDifference
from adallava.report import formats
from adallava.report.axes import has_flops
from adallava.report.clock_notes import clock_note
from adallava.report.dial_grid import ALL_TOKENS, heat_maps
from adallava.report.layer_strip import layer_shares, strip_words
from adallava.report.plain_table import Entry, PaperTable

_ALONE = {"tokens": "tokens alone", "layers": "layers alone"}


def dial_tables(results: Results) -> list[PaperTable]:
    """Return the tables that a run with a second dial has; none for any other run."""
    if results.dials is None:
        return []
    dials = results.dials
    tables = [layers_table(results), layer_pairs_table(results), grid_table(results)]
    tables += [replace(table, caption=table.caption + _clock_notes(results)) for table in _front_tables(dials)]
    tables += [plans_table(dials), fixed_table(dials)]
    return [table for table in tables if table.rows]


def _front_tables(dials: Dials) -> list[PaperTable]:
    return [front_table(dials), gains_table(dials)]


def _clock_notes(results: Results) -> str:
    """Say for each clock that fronts use why it is not to be believed."""
    fronts = [] if results.dials is None else results.dials.fronts
    sizes = dict.fromkeys(front.batch_size for front in fronts if front.axis == "ms")
    notes = [(size, clock_note(results.cells, size)) for size in sizes]
    return "".join(
        f" {'During the sweep' if size is None else f'At batch {size}'}, {note}." for size, note in notes if note
    )


def layers_table(results: Results) -> PaperTable:
    """Return accuracy by scheduler and share of layers, with every vision token."""
    cells = [cell for cell in results.cells if cell.selection == FULL_METHOD and cell.scheduler is not None]
    latencies = _latencies(cells)
    found = {(cell.scheduler, cell.latency_asked): cell for cell in cells}
    full = next((cell for cell in results.cells if cell.cell == f"{FULL_METHOD}@1.0"), None)
    rows = [
        (Entry(scheduler or ""), *(_accuracy(found.get((scheduler, latency))) for latency in latencies))
        for scheduler in dict.fromkeys(cell.scheduler for cell in cells)
    ]
    whole = _accuracy(full)
    caption = (
        "Accuracy in % with 95 % intervals, by scheduler and latency, with all vision tokens"
        f"{_counts(results.cells)}. All layers: {whole.text} {whole.note}."
    )
    return PaperTable("layers", caption, ("scheduler", *_latency_heads(cells, latencies)), tuple(rows))


def layer_pairs_table(results: Results) -> PaperTable:
    """Return the paired differences between schedulers at each latency, with every vision token."""
    cells = [cell for cell in results.cells if cell.selection == FULL_METHOD and cell.scheduler is not None]
    latencies = _latencies(cells)
    by_name = {cell.cell: cell for cell in cells}
    pairs = [pair for pair in results.comparisons if {pair.cell_a, pair.cell_b} <= by_name.keys()]
    found = {}
    for pair in pairs:
        first, second = by_name[pair.cell_a], by_name[pair.cell_b]
        found[first.scheduler, second.scheduler, first.latency_asked] = pair
    rows = [
        (Entry(f"{first} − {second}"), *(_tested(found.get((first, second, latency))) for latency in latencies))
        for first, second in dict.fromkeys((first, second) for first, second, _ in found)
    ]
    caption = (
        "Paired differences in points between schedulers, with all vision tokens, 95 % intervals. Bold: told apart "
        "after correction for the comparisons of its family; the others are not, which does not make them the same."
    )
    return PaperTable("layer-pairs", caption, ("schedulers", *_latency_heads(cells, latencies)), tuple(rows))


def grid_table(results: Results) -> PaperTable:
    """Return the heat maps as rows: one for each method, scheduler and latency."""
    maps = heat_maps(results)
    # A method may keep fewer than asked for, and a cell that answered nothing kept none.
    tokens: dict[str, float] = defaultdict(float)
    for cell in results.cells:
        if not cell.keeps_all_tokens:
            tokens[cell.budget_asked] = max(tokens[cell.budget_asked], cell.tokens_kept)
    asked = dict.fromkeys(budget for map_ in maps for budget in map_.budgets if budget != ALL_TOKENS)
    budgets = (ALL_TOKENS, *sorted(asked, key=lambda budget: -tokens[budget]))
    rows, seen = [], set()
    for map_ in maps:
        for latency, cells in zip(map_.latencies, map_.cells, strict=True):
            by_budget = dict(zip(map_.budgets, cells, strict=True))
            scheduled = any(cell is not None and cell.scheduler is not None for cell in cells)
            scheduler = map_.scheduler if scheduled else formats.DASH
            shown = next((cell for cell in cells if cell is not None and cell.accuracy is not None), None)
            row = (map_.method, scheduler, latency if scheduled else None)
            if row in seen:
                continue  # the row without scheduler is every scheduler's
            seen.add(row)
            share = formats.DASH if shown is None else f"{100 * shown.layer_share:.1f}"
            values = (_on_front(by_budget.get(budget)) for budget in budgets)
            rows.append((Entry(map_.method), Entry(scheduler), Entry(share), *values))
    caption = (
        "Accuracy in % with 95 % intervals over both dials: vision tokens across, layers down"
        f"{_counts(results.cells)}." + (" Bold: on the Pareto front of all cells against FLOPs." * has_flops(results))
    )
    return PaperTable("grid", caption, ("method", "scheduler", "layers, %", *budgets), tuple(rows))


def front_table(dials: Dials) -> PaperTable:
    """Return what the front of both dials gains over each dial alone, averaged over its costs."""
    rows = [
        (
            Entry(_ALONE[front.alone]),
            Entry(axis_words(front)),
            Entry(str(len(front.gains))),
            _difference(front.mean_gain),
            Entry(formats.count(front.mean_gain.n)),
        )
        for front in dials.fronts
    ]
    caption = (
        "What the Pareto front over both dials gains over one dial alone at equal cost, in points of accuracy: the "
        "mean over the costs where that dial has a cell on its own front. One half of the samples chooses cells and "
        "the other measures them, over random halves; 95 % intervals, of samples and of the choice."
    )
    if any(front.axis == "ms" for front in dials.fronts):
        caption += (
            " Milliseconds within 10 % of each other count as one cost; the intervals do not include the clock's noise."
        )
    return PaperTable("front-gains", caption, ("against", "cost", "costs", "gain [95 %]", "n"), tuple(rows))


def gains_table(dials: Dials) -> PaperTable:
    """Return the gain at each cost, and the cost at each accuracy."""
    rows = [
        (
            Entry(_ALONE[front.alone]),
            Entry(cost_words(front, gain)),
            Entry(gain.cell_alone),
            Entry(formats.percent(gain.accuracy_alone.mean)),
            Entry(gain.cell_both),
            _difference(gain.gain),
            Entry(gain.cheaper_cell),
            _saving(gain.saving),
            _difference(gain.cheaper_difference),
        )
        for front in dials.fronts
        for gain in front.gains
    ]
    head = (
        "against", "cost", "its cell", "accuracy, %", "both dials at that cost", "gain, points [95 %]",
        "both dials at that accuracy", "cost as a share [95 %]", "accuracy there, points [95 %]",
    )  # fmt: skip
    caption = (
        "One dial's front, point by point. Gain: chosen on one half of the samples, measured on the other. Cost as a "
        "share: of the cheapest cell that is as accurate over all samples, chosen again under each resample; the "
        "last column says whether it is as accurate on samples that did not choose. Cells are those that all samples "
        "choose."
    )
    return PaperTable("gains", caption, head, tuple(rows))


def plans_table(dials: Dials) -> PaperTable:
    """Return how many plans each cell's samples had, in all and by question type."""
    kinds = tuple(dict.fromkeys(kind for plans in dials.plans for kind in plans.by_kind))
    alike: dict[tuple[str, tuple[Entry, ...]], list[str]] = {}
    for plans in dials.plans:
        if not _is_single(plans):
            counted = (
                Entry(formats.count(plans.of_all.num_samples)),
                Entry(formats.count(plans.of_all.num_plans)),
                Entry(plan_words(plans, plans.of_all), f"({formats.percent(plans.of_all.most_common_share)} %)"),
                *(_kind(plans, kind) for kind in kinds),
            )
            alike.setdefault((_schedule(plans), counted), []).append(plans.cell)
    rows = [
        (Entry(cells[0]) if len(cells) == 1 else Entry(schedule, f"({len(cells)} cells)"), *counted)
        for (schedule, counted), cells in alike.items()
    ]
    single = ", ".join(dict.fromkeys(_schedule(plans) for plans in dials.plans if _is_single(plans)))
    caption = "Different plans among a cell's samples, and the layers of the most common one with its share."
    caption += " By question type: plans, and the share of the most common one." if kinds else ""
    caption += f" One plan for all samples: {single}." if single else ""
    if any(_schedule(plans).startswith("adallava-heads@") for plans in dials.plans):
        caption += " Plans of adallava-heads name only heads, not the slices of the MLP that it also chooses."
    return PaperTable("plans", caption, ("cell", "n", "plans", "most common", *kinds), tuple(rows))


def fixed_table(dials: Dials) -> PaperTable:
    """Return the share of the learned scheduler's gain over random plans that one fixed plan has."""
    rows = [
        (
            Entry(f"{share.scheduler}@{share.latency_asked}"),
            Entry(_cells_words(share)),
            _difference(share.learned_over_random),
            _difference(share.fixed_over_random),
            _difference(share.learned_over_fixed),
            _share(share),
            Entry(formats.count(share.learned_over_random.n)),
        )
        for share in dials.fixed_shares
    ]
    head = (
        "scheduler", "cells", "learned − random, points", "fixed − random, points", "learned − fixed, points",
        "share of a fixed plan, %", "n",
    )  # fmt: skip
    caption = (
        "Share of the learned scheduler's gain over random plans that one plan for all samples gains too, at equal "
        "latency: (fixed − random) / (learned − random), 95 % intervals. There is no share where the learned "
        "scheduler is not ahead of random, or where the three do not always run the same first layers (P), since "
        "they then choose among different plans."
    )
    return PaperTable("fixed-share", caption, head, tuple(rows))


def axis_words(front: FrontComparison) -> str:
    """Return what cost is in a comparison of fronts."""
    if front.axis == "flops":
        return "FLOPs"
    return "ms to first token, during the sweep" if front.batch_size is None else f"ms at batch {front.batch_size}"


def cost_words(front: FrontComparison, gain: FrontGain) -> str:
    """Return a cost with its unit."""
    if front.axis == "flops":
        return f"{formats.gflops(gain.cost)} GFLOPs"
    size = "" if front.batch_size is None else f", batch {front.batch_size}"
    return f"{formats.figures3(gain.cost)} ms{size}"


def plan_words(plans: CellPlans, count: PlanCount) -> str:
    """Return the layers of the most common plan."""
    return strip_words(layer_shares(count.most_common, plans.groups_per_layer))


def _is_single(plans: CellPlans) -> bool:
    return plans.of_all.num_plans == 1


def _schedule(plans: CellPlans) -> str:
    return plans.cell.partition("/")[2]


def _latencies(cells: Sequence[Cell]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(cell.latency_asked for cell in sorted(cells, key=lambda cell: -cell.layer_share)))


def _latency_heads(cells: Sequence[Cell], latencies: Sequence[str]) -> tuple[str, ...]:
    """Return the share of layers that ran; the latency asked for where cells differ in it, or none answered."""
    # A cell that answered nothing ran nothing, and its share is 0.
    shares = {
        latency: {f"{100 * cell.layer_share:.1f}" for cell in cells if cell.latency_asked == latency and cell.accuracy}
        for latency in latencies
    }
    return tuple(
        f"{next(iter(own))} % of layers" if len(own) == 1 else f"latency {latency}" for latency, own in shares.items()
    )


def _counts(cells: Sequence[Cell]) -> str:
    counts = sorted({cell.accuracy.n for cell in cells if cell.accuracy})
    if not counts:
        return ""
    ends = [formats.count(count) for count in counts]
    return f", n = {ends[0]}" if len(ends) == 1 else f", n = {ends[0]} to {ends[-1]}"


def _accuracy(cell: Cell | None) -> Entry:
    if cell is None or cell.accuracy is None:
        return Entry(formats.DASH)
    bounds = f"[{formats.percent(cell.accuracy.low)}, {formats.percent(cell.accuracy.high)}]"
    return Entry(formats.percent(cell.accuracy.mean) + " ⚑" * cell.flagged, bounds)


def _on_front(cell: Cell | None) -> Entry:
    entry = _accuracy(cell)
    return Entry(entry.text, entry.note, bold=cell is not None and "flops" in cell.on_front)


def _difference(estimate: PairedDifference) -> Entry:
    return Entry(formats.points(estimate.mean), f"[{formats.points(estimate.low)}, {formats.points(estimate.high)}]")


def _tested(pair: Comparison | None) -> Entry:
    if pair is None:
        return Entry(formats.DASH)
    entry = _difference(pair.difference)
    return Entry(entry.text, entry.note, pair.significant)


def _saving(saving: Saving) -> Entry:
    return Entry(f"{saving.ratio:.2f}", f"[{saving.low:.2f}, {saving.high:.2f}]")


def _share(fixed: FixedShare) -> Entry:
    share = fixed.share
    if len(set(fixed.prefix_layers.values())) > 1:
        return Entry(formats.DASH, f"(P: {', '.join(f'{name} {p}' for name, p in fixed.prefix_layers.items())})")
    if share is None:
        return Entry(formats.DASH)
    return Entry(f"{100 * share.mean:.0f}", f"[{100 * share.low:.0f}, {100 * share.high:.0f}]")


def _kind(plans: CellPlans, kind: str) -> Entry:
    count = plans.by_kind.get(kind)
    return (
        Entry(formats.DASH)
        if count is None
        else Entry(formats.count(count.num_plans), f"({100 * count.most_common_share:.0f} %)")
    )


def _cells_words(share: FixedShare) -> str:
    return share.cells[0].partition("/")[0] if len(share.cells) == 1 else f"mean of {len(share.cells)}"
