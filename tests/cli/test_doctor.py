"""`adallava doctor`: exit codes, tables and JSON."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from doctor_plants import change, healthy_records, healthy_rows, number_of, write_lmms, write_run
from models import tiny_llava

from adallava.cli.main import main


@pytest.fixture
def broken_run(tmp_path: Path) -> Path:
    empty = {"response": "", "score": 0.0, "empty_cause": "first-token-eos", "answer_length": 1}
    records = change(healthy_records(), lambda r: r.cell == "question@0.5" and number_of(r) % 3 == 0, lambda r: empty)
    return write_run(tmp_path / "broken", records)


def test_a_healthy_run_exits_0_and_says_what_passed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", str(write_run(tmp_path, healthy_records()))]) == 0
    output = capsys.readouterr().out
    assert "healthy: 19 checks passed" in output
    assert "first-token-eos" in output


def test_a_finding_exits_1_with_evidence_and_remedy(broken_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", str(broken_run)]) == 1
    output = capsys.readouterr().out
    assert "10 of 30" in output
    assert "s000 in question@0.5" in output
    assert "cause: the model itself" in output
    assert "remedy:" in output


def test_a_narrow_terminal_has_a_line_a_check(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "60")
    assert main(["doctor", str(write_run(tmp_path, healthy_records()))]) == 0
    output = re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().out)
    assert "pass: budget-not-applied (7): every answer kept the K asked for" in " ".join(output.split())
    assert "│" not in output


def test_json_is_all_there_is_on_stdout(broken_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", str(broken_run), "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["healthy"] is False
    (diagnosis,) = document["diagnoses"]
    assert diagnosis["form"] == "run-folder"
    found = [outcome for outcome in diagnosis["outcomes"] if outcome["status"] == "found"]
    assert [(outcome["failure"], outcome["severity"]) for outcome in found] == [(9, "model-finding")]
    assert found[0]["examples"]


def test_lmms_eval_samples_say_what_they_cannot_show(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", str(write_lmms(tmp_path, healthy_rows()))]) == 0
    output = capsys.readouterr().out
    assert "not visible here: full-not-above-none, batch-dependence, devices-mixed" in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give either RUN"),
        (["nowhere"], "does not exist"),
        (["nowhere", "--model", "tiny"], "give either RUN"),
        (["--model", "no/such/folder", "--token-budget", "1.5"], "out of range"),
        (["--model", "no/such/folder", "--num-samples", "1"], "at least 2"),
        (["--model", "no/such/folder", "--method", "uniformly"], "did you mean 'uniform'"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert captured.err.count("\n") == 1


def test_a_model_is_examined_live(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tiny_llava(tmp_path, adapters=False)
    arguments = ["--method", "full", "uniform", "--token-budget", "0.5", "--num-samples", "2", "--device", "cpu"]
    capsys.readouterr()
    assert main(["doctor", "--model", str(folder), *arguments, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [diagnosis["source"] for diagnosis in document["diagnoses"]] == [
        f"{folder} with full",
        f"{folder} with uniform",
    ]
    statuses = {o["check"]: o["status"] for o in document["diagnoses"][1]["outcomes"]}
    assert statuses["full-equals-stock"] == statuses["batch-equals-alone"] == "passed"


def test_a_named_learned_method_without_adapter_is_a_finding(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tiny_llava(tmp_path, adapters=False)
    capsys.readouterr()
    assert main(["doctor", "--model", str(folder), "--method", "question", "--device", "cpu", "--json"]) == 1
    (diagnosis,) = json.loads(capsys.readouterr().out)["diagnoses"]
    (outcome,) = diagnosis["outcomes"]
    assert outcome["check"] == "adapter-loaded"
    assert "has no adapter for the learned method 'question'" in outcome["evidence"][0]


@pytest.mark.long
def test_reading_a_run_needs_no_torch(tmp_path: Path) -> None:
    folder = write_run(tmp_path, healthy_records())
    program = (
        "import sys; from adallava.cli.main import main\n"
        f"assert main(['doctor', {str(folder)!r}]) == 0\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
