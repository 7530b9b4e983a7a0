"""Whether the statistics keep what they claim: `python benchmarks/statistics_audit.py --output FILE`.

The product's own functions are called on made-up scores whose truth is known, again and again: how often an interval
holds the truth, how often equal cells are called apart, how often a difference is found. Seeded, whatever the number of
processes; about fifteen minutes of one core, and less by `--share`.

Prints a table, then JSON as the last line.
"""

import argparse
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from made_up_scores import Design, cell, partial, rights, shared

from adallava.analysis.areas import Curve, area_between, common_costs, common_grid
from adallava.analysis.corrections import holm
from adallava.analysis.equivalence import equivalence_p_value
from adallava.analysis.front_gains import compare_fronts
from adallava.analysis.judge import PairedTest, judge
from adallava.analysis.power import critical_value, least_detectable
from adallava.analysis.significance import paired_p_value
from adallava.analysis.statistics import mean_interval, paired_difference

Rng = np.random.Generator
Row = dict[str, Any]

ALONE = {f"n = {n}": Design.distinct(n) for n in (20, 100, 350)}
SHARING = {
    f"{pictures} images, ten questions each, correlation {correlation}": Design.ten_each(pictures, correlation)
    for pictures in (12, 35, 100)
    for correlation in (0.2, 0.5)
}
UNEVEN = {"60 images, 1 to 30 questions each, correlation 0.5": Design((1, 2, 3, 4, 10, 30) * 10, 0.5)}
NEAR_ONE = ([1.0, 0.9, 0.6, 0.3, 0.0], [0.90, 0.05, 0.03, 0.01, 0.01])
FAMILY = 24


def share(what: str, where: str, claimed: str, hits: list[bool]) -> Row:
    """Return a row of a share, with its Monte-Carlo error."""
    found = float(np.mean(hits))
    error = math.sqrt(max(found * (1.0 - found), 0.25 / len(hits)) / len(hits))
    return {"what": what, "where": where, "claimed": claimed, "found": found, "error": error, "runs": len(hits)}


def points(what: str, where: str, claimed: str, values: list[float]) -> Row:
    """Return a row of a mean in points of accuracy, with its Monte-Carlo error."""
    found, error = 100.0 * float(np.mean(values)), 100.0 * float(np.std(values)) / math.sqrt(len(values))
    return {"what": what, "where": where, "claimed": claimed, "found": found, "error": error, "runs": len(values)}


def _holds(interval: Any, truth: float) -> bool:
    return bool(interval.low - 1e-9 <= truth <= interval.high + 1e-9)


def paired(generator: Rng, runs: int, designs: dict[str, Design] | None = None) -> Iterator[Row]:
    """Type-I error of one test, and coverage of the interval of one difference."""
    for where, design in (designs or {**ALONE, **SHARING, **UNEVEN}).items():
        alike, covered = [], []
        for _ in range(runs):
            a, b = rights(generator, design, [0.6, 0.6])
            alike.append(paired_p_value(a - b, design.clusters)[0] < 0.05)
            a, b = rights(generator, design, [0.7, 0.6])
            covered.append(_holds(paired_difference(a, b, clusters=design.clusters), 0.1))
        yield share("two equal cells called apart", where, "≤ 0.05", alike)
        yield share("interval of a difference holds it", where, "0.95", covered)


def single_cells(generator: Rng, runs: int, designs: dict[str, Design] | None = None) -> Iterator[Row]:
    """Coverage of the interval of one cell's accuracy, near 1 above all."""
    for where, design in (designs or {**ALONE, **SHARING}).items():
        for accuracy in (0.7, 0.97):
            covered = [
                _holds(mean_interval(rights(generator, design, [accuracy])[0], design.clusters), accuracy)
                for _ in range(runs)
            ]
            yield share(f"interval of an accuracy of {accuracy} holds it", where, "0.95", covered)
        truth = float(np.dot(*NEAR_ONE))
        covered = [
            _holds(mean_interval(partial(generator, design, *NEAR_ONE), design.clusters), truth) for _ in range(runs)
        ]
        yield share(f"interval of a mean partial score of {truth:.2f} holds it", where, "≥ 0.95", covered)


def families(generator: Rng, runs: int) -> Iterator[Row]:
    """Chance of any false claim among planned comparisons; and what max-T finds, and Holm's method would."""

    def verdicts_of(scores: np.ndarray, design: Design) -> list[dict[str, Any]]:
        # Intervals are audited elsewhere: nothing is resampled for them here.
        tests = [PairedTest(one, scores[0], planned=True, resampled=np.zeros(1)) for one in scores[1:]]
        return judge(tests, design.clusters, seed=0, margin=0.02)

    sharing = [name for name in SHARING if name.startswith(("12 p", "100 p")) and name.endswith("0.5")]
    for where, design in {"n = 350": ALONE["n = 350"], **{name: SHARING[name] for name in sharing}}.items():
        wrong = []
        for _ in range(runs):
            verdicts = verdicts_of(rights(generator, design, [0.6] * (FAMILY + 1)), design)
            wrong.append(any(verdict["significant"] for verdict in verdicts))
        yield share(f"any of {FAMILY} equal cells called apart from the baseline", where, "≤ 0.05", wrong)
    by_max_t, by_holm, design = [], [], ALONE["n = 350"]
    for _ in range(runs):
        verdicts = verdicts_of(rights(generator, design, [0.6] * 13 + [0.67] * 12), design)
        other_way = holm([verdict["p_value"] for verdict in verdicts])
        by_max_t += [verdict["significant"] for verdict in verdicts[12:]]
        by_holm += [p_value < 0.05 for p_value in other_way[12:]]
    yield share(f"7 points found among {FAMILY} comparisons, by max-T", "n = 350", "–", by_max_t)
    yield share("the same by Holm's method", "n = 350", "–", by_holm)


def sameness(generator: Rng, runs: int) -> Iterator[Row]:
    """How often cells that differ by the margin are called the same, and cells that do not differ."""
    clustered = "100 images, ten questions each, correlation 0.2"
    for where, design in {
        "n = 350": ALONE["n = 350"],
        "n = 2,000": Design.distinct(2000),
        clustered: SHARING[clustered],
    }.items():
        for what, apart, claimed in (
            ("at the margin of 2 points called the same", 0.02, "≤ 0.05"),
            ("equal cells called the same", 0.0, "–"),
        ):
            same = []
            for _ in range(runs):
                a, b = rights(generator, design, [0.9 + apart, 0.9], likeness=0.98)
                same.append(equivalence_p_value(a - b, design.clusters, 0.02) < 0.05)
            yield share(what, where, claimed, same)


def detectable(generator: Rng, runs: int) -> Iterator[Row]:
    """Power at the least difference that is said to be found in four of five runs."""
    for where, design in {"n = 350": ALONE["n = 350"], "n = 2,000": Design.distinct(2000)}.items():
        pilot = rights(generator, Design.distinct(200_000), [0.6, 0.6])
        discordance, level = float(np.abs(pilot[0] - pilot[1]).mean()), 0.05 / FAMILY
        difference = least_detectable(sum(design.sizes), discordance, critical_value(FAMILY))
        assert difference is not None
        found = []
        for _ in range(runs):
            a, b = rights(generator, design, [0.6 + difference, 0.6])
            found.append(paired_p_value(a - b, design.clusters)[0] < level)
        yield share(
            f"least detectable difference ({100 * difference:.1f} points) found",
            f"{where}, {FAMILY} tests",
            "0.80",
            found,
        )


GRID = (8.0, 16.0, 32.0, 64.0, 128.0)
FULL_COST = 256.0


def _accuracy_at(cost: float) -> float:
    """A curve that bends, as measured ones do: steep below 32 tokens, flat above."""
    return 0.85 - 0.45 * (8.0 / cost) ** 0.7


def areas(generator: Rng, runs: int) -> Iterator[Row]:
    """Bias of the difference in area between two methods with one curve, by their grids; coverage of an area."""
    grids = {
        "equal grids": (GRID, GRID),
        "5 against 2 cells": (GRID, (8.0, 128.0)),
        "5 against 3": (GRID, (8.0, 32.0, 128.0)),
        "5 against 3 expensive ones": (GRID, (60.0, 100.0, 150.0)),
    }
    for where, (first, second) in grids.items():
        differences, before, covered = [], [], []
        curves, accuracies = _two_curves(first, second)
        low, high = common_costs(curves)
        grid = common_grid(curves, low, high)
        for _ in range(runs):
            scores = rights(generator, ALONE["n = 350"], accuracies)
            known = shared(scores, ALONE["n = 350"])
            a, b = (area_between(curve, low, high, grid, known) for curve in curves)
            differences.append(float((a.of_samples - b.of_samples).mean()))
            own = [
                area_between(curve, low, high, [c for c in curve.costs if low < c < high], known) for curve in curves
            ]
            before.append(float((own[0].of_samples - own[1].of_samples).mean()))
            interval = paired_difference(
                a.of_samples, b.of_samples, clusters=known.clusters, resampled=a.resampled - b.resampled
            )
            covered.append(_holds(interval, 0.0))
        yield points("difference in area of two methods with one curve, points", where, "0", differences)
        yield points("the same with each drawn through its own cells, points", where, "–", before)
        yield share("interval of a difference in area holds 0", where, "0.95", covered)


def _two_curves(first: tuple[float, ...], second: tuple[float, ...]) -> tuple[list[Curve], list[float]]:
    costs = [*first, *second, FULL_COST]
    last = str(len(costs) - 1)
    names = [[str(place) for place in range(len(first))], [str(len(first) + place) for place in range(len(second))]]
    curves = [
        Curve("ab"[number], "original", "tokens", (*own, last), (*grid, FULL_COST))
        for number, (own, grid) in enumerate(zip(names, (first, second), strict=True))
    ]
    return curves, [_accuracy_at(cost) for cost in costs]


def front_gains(generator: Rng, runs: int, designs: dict[str, Design] | None = None) -> Iterator[Row]:
    """Coverage and bias of what both dials gain over tokens alone, where cells are equal and where they are not."""
    # One cheap cell of tokens alone, four dear ones, and twenty of both dials that cost a little less.
    costs, alone = np.array([1.0] + [8.0] * 4 + [7.0] * 20), np.arange(25) < 5
    cells = [cell(str(place), "question", costs[place], "1.0" if alone[place] else "0.5") for place in range(25)]
    kinds = {
        "24 equal cells": np.array([0.3] + [0.6] * 24),
        "24 cells within 8 points": np.array([0.3, *np.linspace(0.56, 0.62, 4), *np.linspace(0.56, 0.64, 20)]),
    }
    sharing = "35 images, ten questions each, correlation 0.2"
    for where, design in (
        designs or {"n = 100": ALONE["n = 100"], "n = 350": ALONE["n = 350"], sharing: SHARING[sharing]}
    ).items():
        for what, accuracies in kinds.items():
            truth = _expected_gain(generator, design, accuracies, alone)
            covered, bias = [], []
            for run in range(runs):
                known = shared(rights(generator, design, accuracies), design)
                fronts = compare_fronts(cells, known, seed=run)
                gain = next(one for one in fronts if (one.alone, one.axis) == ("tokens", "flops")).gains[-1].gain
                covered.append(_holds(gain, truth))
                bias.append(gain.mean - truth)
            yield share(f"interval of a gain holds it: {what}", where, "0.95", covered)
            yield points(f"gain less its expectation, points: {what}", where, "0", bias)


def _expected_gain(generator: Rng, design: Design, accuracies: np.ndarray, alone: np.ndarray) -> float:
    """Return the expected true gain of a choice made on half of such pictures, by many of them.

    Of equally accurate cells of one cost the first is chosen, and both dials' cells are the cheaper ones.
    """
    half = Design(design.sizes[: len(design.sizes) // 2], design.correlation)
    order = np.r_[0, 5:25, 1:5]
    gains = []
    for _ in range(3000):
        means = np.round(rights(generator, half, accuracies).mean(axis=1), 12)
        best = order[means[order].argmax()]
        best_alone = np.flatnonzero(alone)[means[alone].argmax()]
        gains.append(accuracies[best] - accuracies[best_alone])
    return float(np.mean(gains))


AUDITS: dict[str, tuple[Callable[[Rng, int], Iterator[Row]], int]] = {
    "paired": (paired, 2000),
    "cells": (single_cells, 2500),
    "families": (families, 500),
    "sameness": (sameness, 2500),
    "detectable": (detectable, 2500),
    "areas": (areas, 300),
    "front gains": (front_gains, 300),
}


def run_audit(name: str, seed: int, share_of_runs: float) -> tuple[list[Row], float]:
    """Return the rows of one audit, and the seconds of one core that it took."""
    audit, runs = AUDITS[name]
    start = time.process_time()
    rows = list(audit(np.random.default_rng([seed, list(AUDITS).index(name)]), max(2, round(runs * share_of_runs))))
    return [{"audit": name, **row} for row in rows], time.process_time() - start


def main() -> None:
    """Run every audit, or those that were named."""
    from measured import figures, finish

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=AUDITS, nargs="+", default=list(AUDITS))
    parser.add_argument("--share", type=float, default=1.0, help="of the usual number of made-up runs")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu", help="ignored: no model runs here")
    parser.add_argument("--output", type=Path, help="file for the figures")
    args = parser.parse_args()
    print("| what | where | claimed | found | error |\n| --- | --- | --- | ---: | ---: |")
    rows, seconds = [], 0.0
    with ProcessPoolExecutor(args.processes) as pool:
        waiting = [pool.submit(run_audit, name, args.seed, args.share) for name in args.only]
        for one in waiting:
            found, took = one.result()
            rows, seconds = rows + found, seconds + took
            for row in found:
                figures_of_row = f"{row['found']:.3f} | {row['error']:.3f}"
                print(f"| {row['what']} | {row['where']} | {row['claimed']} | {figures_of_row} |", flush=True)
    finish(figures(seed=args.seed, cpu_seconds=round(seconds), rows=rows), args.output)


if __name__ == "__main__":
    main()
