"""The doctor on files that the real lmms-eval wrote: healthy as they are, and every planted failure is found."""

import json
from pathlib import Path

import pytest

pytest.importorskip("lmms_eval")

from doctor_plants import LMMS_BUDGETS
from lmms_plants import LMMS_FORMS, LMMS_PLANTS, Files, lmms_tails
from vqav2_files import write_task

from adallava.cli.main import main
from adallava.doctor import diagnose_run

pytestmark = [pytest.mark.lmms, pytest.mark.long]

TASK = "vqav2_for_the_doctor"


@pytest.fixture(scope="module")
def real(run_lmms_eval, task_folder, tmp_path_factory) -> Path:
    """One folder a budget, with two dozen questions each."""
    write_task(task_folder, 24, name=TASK)
    folder = tmp_path_factory.mktemp("real")
    for budget in LMMS_BUDGETS:
        model_args = f"pretrained=tiny,method=random,token_budget={budget}"
        arguments = ("--model_args", model_args, "--tasks", TASK, "--batch_size", "8")
        done = run_lmms_eval(*arguments, "--output_path", str(folder / budget))
        assert done.returncode == 0, done.stdout + done.stderr
    return folder


def samples_file(folder: Path, budget: str) -> Path:
    (path,) = (folder / budget).rglob("*_samples_*.jsonl")
    return path


def planted(real: Path, folder: Path, plant) -> Path:
    """Copy the folder, its lines changed by `plant`."""
    files: Files = {}
    for budget in LMMS_BUDGETS:
        lines = samples_file(real, budget).read_text().splitlines()
        files[budget] = sorted(map(json.loads, lines), key=lambda row: row["doc_id"])
    for budget, rows in plant(files).items():
        source = samples_file(real, budget)
        target = folder / budget / source.parent.name
        target.mkdir(parents=True)
        (target / source.name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        for results in source.parent.glob("*_results.json"):
            (target / results.name).write_bytes(results.read_bytes())
    return folder


def test_real_files_are_healthy_and_their_budgets_are_known(real):
    diagnosis = diagnose_run(real)
    assert diagnosis.healthy, diagnosis.findings
    assert diagnosis.summary.startswith("96 answers in 4 cells: ")
    assert {f"random@{budget}" for budget in LMMS_BUDGETS} <= set(diagnosis.summary.split(": ")[1].split(", "))
    passed = {outcome.failure for outcome in diagnosis.outcomes if outcome.status == "passed" and outcome.failure}
    assert passed == {1, 2, 3, 4, 5, 7, 9}


@pytest.mark.parametrize(("plant", "failure", "severity"), LMMS_PLANTS, ids=lambda v: getattr(v, "__name__", None))
def test_a_failure_planted_in_real_files_is_found_and_no_other(real, tmp_path, plant, failure, severity):
    diagnosis = diagnose_run(planted(real, tmp_path, plant))
    if plant.__name__ == "lmms_tails":
        # VQAv2's lines name no right answer: the questions' words make it likely, and the task's own answers certain.
        severity = "cannot-tell"
    assert [outcome.failure for outcome in diagnosis.findings] == [failure], diagnosis.findings
    assert diagnosis.findings[0].severity == severity


@pytest.mark.parametrize("form", LMMS_FORMS)
def test_a_failure_is_found_in_real_files_of_another_form(real, tmp_path, form):
    for plant, failure, _ in [(lambda files: files, None, None), *LMMS_PLANTS]:

        def formed(files, plant=plant):
            return {budget: [LMMS_FORMS[form](row) for row in rows] for budget, rows in plant(files).items()}

        diagnosis = diagnose_run(planted(real, tmp_path / str(plant), formed))
        assert [outcome.failure for outcome in diagnosis.findings] == ([] if failure is None else [failure])


def test_it_says_what_tails_were_looked_for_in(real):
    (outcome,) = (outcome for outcome in diagnose_run(real).outcomes if outcome.check == "answers-cut")
    assert "names no right answers" in " ".join(outcome.evidence)


@pytest.fixture
def with_answers(task_folder):
    return ["--task", f"lmms:{TASK}", "--include-path", str(task_folder), "--json"]


def test_with_the_tasks_own_answers_a_healthy_folder_is_healthy(real, with_answers, capsys):
    assert main(["doctor", str(real), *with_answers]) == 0
    assert "is the tail of a right one" in capsys.readouterr().out


def test_with_the_tasks_own_answers_tails_are_certain(real, tmp_path, with_answers, capsys):
    assert main(["doctor", str(planted(real, tmp_path, lmms_tails)), *with_answers]) == 1
    (diagnosis,) = json.loads(capsys.readouterr().out)["diagnoses"]
    (outcome,) = (outcome for outcome in diagnosis["outcomes"] if outcome["status"] == "found")
    assert (outcome["check"], outcome["severity"]) == ("answers-cut", "harness-bug")
    assert "the tail of a right answer" in outcome["evidence"][0]
