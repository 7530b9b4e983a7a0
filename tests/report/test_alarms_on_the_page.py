"""What a page says first: alarms, the majority answer, accuracies of 0."""

import html
import json
from pathlib import Path

import pytest
from run_folders import FakeRun, fake_results, picture_of, write_fake_run

from adallava.records import Interval, Results
from adallava.records.alarms import Alarm, MajorityBaseline
from adallava.report.page import write_report

SMALL = FakeRun(methods=("random", "question", "none"), budgets=("8", "32"), num_samples=40)
ALARM = Alarm(kind="answers-outside-task", severity="alarm", message="none of 1,020 responses is one of the 2 answers")
MAJORITY = MajorityBaseline(answer="true", accuracy=Interval(mean=0.52, low=0.45, high=0.59, n=200))


def alarmed_page(tmp_path: Path, **changes: object) -> str:
    folder = write_fake_run(tmp_path, SMALL)
    results = Results.model_validate_json((folder / "results.json").read_text())
    (folder / "results.json").write_text(results.model_copy(update=changes).model_dump_json())
    return write_report(folder, picture_of, num_pictures=0).read_text()


def test_an_alarm_stands_before_everything_else_and_no_cell_is_called_the_highest(tmp_path: Path) -> None:
    page = alarmed_page(tmp_path, alarms=[ALARM], majority=MAJORITY)
    shown = page.partition("<script")[0]

    assert shown.index(ALARM.message) < shown.index('class="lead"')
    assert "These accuracies say nothing of the methods" in shown
    assert 'class="cells budgets"' not in shown, "the table of the highest means"
    assert "is ahead of" not in shown
    assert '"leaders":false' in page


def test_a_caution_leaves_the_tables_as_they_are(tmp_path: Path) -> None:
    page = alarmed_page(tmp_path, alarms=[ALARM.model_copy(update={"severity": "caution"})])

    assert page.index("<b>Caution</b>") < page.index('class="lead"')
    assert 'class="cells budgets"' in page
    assert '"leaders":true' in page


def test_the_majority_answer_is_a_line_of_every_table_and_of_the_plot(tmp_path: Path) -> None:
    page = alarmed_page(tmp_path, majority=MAJORITY)

    assert page.count('<th scope="row">majority answer</th>') == 2, "the cells, and by question type"
    assert '"majority":{"name":"majority answer","accuracy":{"all":{"":[0.52,0.45,0.59,200]}' in page
    assert "'true' to every question is right on 52.0 % (45.0 to 59.0), n = 200" in html.unescape(page)


def test_the_majority_answer_comes_with_its_count(tmp_path: Path) -> None:
    page = alarmed_page(tmp_path, majority=MAJORITY.model_copy(update={"num_scored": 104}))

    assert "is right on 52.0 % (45.0 to 59.0), n = 200 (104 of 200 score above 0)" in html.unescape(page)
    assert '<th scope="row">majority answer<span class="sub">104 of 200 score above 0</span></th>' in page


@pytest.mark.parametrize(("score", "shown"), [(1.0, True), (0.0, False)])
def test_the_majority_answer_of_an_older_run_is_counted_anew_where_its_scores_are(
    tmp_path: Path, score: float, shown: bool
) -> None:
    folder = write_fake_run(tmp_path, SMALL)
    lines = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    for number, line in enumerate(lines):
        # Three of four answers are yes; the model is right, or a stricter metric than ours said otherwise.
        right = "no" if int("".join(filter(str.isdigit, line["sample_id"]))) % 4 == 0 else "yes"
        lines[number] = {**line, "answers": [right], "response": right, "score": score, "kind": None, "error": None}
    (folder / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    ids = {line["sample_id"] for line in lines}
    page = html.unescape(write_report(folder, picture_of, num_pictures=0).read_text())

    assert ("'yes' to every question is right on 75.0 %" in page) == shown
    assert (f"({3 * len(ids) // 4} of {len(ids)} score above 0)" in page) == shown


def test_a_budget_at_which_nothing_is_right_has_no_highest_mean(tmp_path: Path) -> None:
    results = fake_results(SMALL)
    least, nothing = results.cells[1].budget_asked, Interval(mean=0.0, low=0.0, high=0.02, n=200)
    cells = [c.model_copy(update={"accuracy": nothing}) if c.budget_asked == least else c for c in results.cells]
    page = alarmed_page(tmp_path, cells=cells)

    assert page.count("accuracy is 0 for every method here") == 1
    assert 'class="cells budgets"' in page


def test_where_nothing_is_right_no_cell_is_the_highest_even_in_older_files(tmp_path: Path) -> None:
    results = fake_results(SMALL)
    nothing = Interval(mean=0.0, low=0.0, high=0.02, n=200)
    cells = [cell.model_copy(update={"accuracy": nothing, "on_front": ["flops"]}) for cell in results.cells]
    page = alarmed_page(tmp_path, cells=cells)

    assert 'class="cells budgets"' not in page
    assert '"leaders":false' in page
    assert "Pareto front, where no other cell" not in page
    shown = page.partition("<script")[0]
    assert f"accuracy is 0 in all {len(cells)} cells: no answer to any of 200 samples scored above 0" in shown
    assert "No answer of this run is right" in shown
    assert "highest mean" not in shown.partition('id="ranking"')[0]
