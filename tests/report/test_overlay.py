from dataclasses import replace
from pathlib import Path

import pytest
from rich_runs import RichRun, made_cells, write_rich_run
from run_folders import picture_of

from adallava.analysis.overlay_verdicts import judge_changes
from adallava.errors import InputError, RunFolderError
from adallava.records.read import read_results, read_run, read_samples
from adallava.report import overlay
from adallava.report.overlay import OtherRun, Overlay, compare_runs
from adallava.report.page import write_report
from adallava.report.sample_table import read_table

HERE = RichRun(methods=("random", "uniform", "pool"), num_samples=90, budgets=(8, 32))
THERE = replace(HERE, num_samples=60, shift=0.1, methods=("uniform", "pool", "question"))


def loaded(folder: Path) -> OtherRun:
    results = read_results(folder)
    table = read_table(read_samples(folder), [cell.cell for cell in results.cells])
    return OtherRun(folder.name, read_run(folder), results, table)


def overlay_of(tmp_path: Path, here: RichRun, there: RichRun) -> Overlay:
    first, second = (loaded(write_rich_run(tmp_path / name, spec)) for name, spec in (("a", here), ("b", there)))
    return compare_runs(first.run, first.results, first.table, second)


def test_a_run_against_itself_has_changed_nothing(tmp_path: Path) -> None:
    overlay = overlay_of(tmp_path, HERE, HERE)

    assert overlay.settings == ()
    assert (overlay.only_here, overlay.only_there, overlay.asked_differently) == ((), (), 0)
    assert all(row.gained == row.lost == 0 and row.verdict.difference.mean == 0 for row in overlay.rows)


def test_differences_and_flips_are_over_the_common_samples(tmp_path: Path) -> None:
    # Difficulties and noise follow from the seed and the number of samples: the same number, for a fair comparison.
    there = replace(THERE, num_samples=90)
    overlay = overlay_of(tmp_path, HERE, there)
    scores = [{cell.name: cell.scores.mean(axis=0) for cell in made_cells(spec)} for spec in (HERE, there)]
    row = next(row for row in overlay.rows if row.cell == "uniform@8")
    here, other = scores[0]["uniform@8"], scores[1]["uniform@8"]

    assert row.verdict.difference.n == 90
    assert row.verdict.difference.mean == pytest.approx((here - other).mean())
    assert row.gained == ((here >= 0.5) & (other < 0.5)).sum()
    assert row.lost == ((here < 0.5) & (other >= 0.5)).sum() > 0
    assert "random@8" in overlay.only_here
    assert "question@8" in overlay.only_there


def test_runs_of_different_lengths_share_what_they_share(tmp_path: Path) -> None:
    overlay = overlay_of(tmp_path, HERE, THERE)

    assert (overlay.num_common, overlay.num_here, overlay.num_there) == (60, 90, 60)
    assert {row.verdict.difference.n for row in overlay.rows} == {60}
    assert {"methods", "limit"} <= {name for name, _, _ in overlay.settings}
    assert not any("[" in value or "(" in value for name, *both in overlay.settings for value in both)


def test_the_same_ids_with_other_questions_are_noticed(tmp_path: Path) -> None:
    overlay = overlay_of(tmp_path, HERE, replace(HERE, question="Where is {}?"))

    assert overlay.asked_differently == 90


def test_runs_without_a_common_sample_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="b has no sample in common"):
        overlay_of(tmp_path, HERE, replace(HERE, seed=1))


def test_a_second_run_that_is_none_is_named(tmp_path: Path) -> None:
    folder = write_rich_run(tmp_path / "a", HERE)

    with pytest.raises(RunFolderError, match=r"nowhere.run\.json"):
        write_report(folder, picture_of, laid_over=tmp_path / "nowhere")


@pytest.mark.long
def test_a_folder_of_the_same_name_is_told_apart_by_its_parent(tmp_path: Path) -> None:
    first, second = (write_rich_run(tmp_path / name / "run", HERE) for name in ("old", "new"))
    page = write_report(second, picture_of, laid_over=first).read_text()

    assert "Against “old/run”" in page


def page_rows(page: str) -> list[str]:
    table = page.partition('<table class="cells changes">')[2].partition("</tbody>")[0].partition("<tbody>")[2]
    return [" ".join(row.split()) for row in table.split("<tr>")[1:]]


def test_bold_is_what_the_corrected_test_tells_apart_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each cell's own interval is looked at once; of many cells some are off 0 by luck, and stay plain."""
    here, there = (write_rich_run(tmp_path / name, spec) for name, spec in (("a", HERE), ("b", THERE)))

    def judge(a, b, ids, pictures):
        sure = judge_changes(a, b, ids, pictures)
        off = {"mean": 0.1, "low": 0.02, "high": 0.2, "n": 60}
        return [
            one.model_copy(
                update={
                    "difference": one.difference.model_copy(update=off), "significant": place == 0, "p_adjusted": 0.2,
                    "equivalent": False, "least_detectable": 0.123,
                }
            )
            for place, one in enumerate(sure)
        ]  # fmt: skip

    monkeypatch.setattr(overlay, "judge_changes", judge)
    page = write_report(here, picture_of, num_pictures=4, laid_over=there).read_text()
    first, *others = page_rows(page)
    assert '<td class="num strong">+10.0' in first
    assert "higher here" in first
    assert others
    for row in others:
        assert '<td class="num">+10.0' in row
        assert "not told apart, 12.3 would have been found" in row
    assert f"Of {len(others) + 1} cells, 1 is told apart" in " ".join(page.split())
