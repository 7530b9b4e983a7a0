"""When a run folder holds the same run: by content, over a larger limit too, and never under another metric."""

import json
import os
import shutil
from pathlib import Path

import pytest
from PIL import Image
from sweep_inputs import samples, sweep

from adallava.cli.main import main
from adallava.records import Results, Run


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    """Write twelve questions of two kinds about one picture, in a folder of their own."""
    folder = tmp_path / "data"
    folder.mkdir()
    Image.new("RGB", (30, 30), (200, 10, 10)).save(folder / "a.png")
    rows = [
        {
            "id": f"q{n}",
            "image": "a.png",
            "question": f"Is it {n}?",
            "answer": "red",
            "kind": "rare" if n < 3 else "usual",
        }
        for n in range(12)
    ]
    (folder / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "q.jsonl"


def run_of(folder: Path) -> Run:
    return Run.model_validate_json((folder / "run.json").read_text())


def test_however_model_and_task_are_spelled_it_is_the_same_run(model, questions, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "run"
    adapter = Path(model) / "adapters" / "question"

    def go(model: str, task: str, adapter: str) -> int:
        return sweep(
            model, folder, "--task", task, "--method", "question", "--token-budget", "4", "--no-report",
            "--adapter", f"question={adapter}",
        )  # fmt: skip

    first = go(model, str(questions), str(adapter))
    before = (folder / "samples.jsonl").read_bytes()
    shutil.copytree(model, tmp_path / "copy")
    (tmp_path / "link.jsonl").symlink_to(questions)
    monkeypatch.chdir(questions.parent)
    spelled = [
        ("../copy", "q.jsonl", "../copy/adapters/question"),
        (model + "/.", "../link.jsonl", os.path.relpath(adapter)),
    ]
    for model_name, task, adapter_name in spelled:
        assert go(model_name, task, adapter_name) == first
    assert (folder / "samples.jsonl").read_bytes() == before
    # What differs in content is told by what it is.
    (tmp_path / "copy" / "chat_template.jinja").write_text("another")
    questions.write_text(questions.read_text() + "\n")
    capsys.readouterr()
    assert go("../copy", "q.jsonl", "../copy/adapters/question") == 2
    message = capsys.readouterr().err
    assert "SHA-256 of the model's chat_template.jinja was no such file" in message
    assert "SHA-256 of the task's questions was" in message


@pytest.mark.parametrize("sample", [pytest.param("first", marks=pytest.mark.long), "random"])
def test_a_larger_limit_extends_a_finished_run_and_a_smaller_one_is_refused(model, questions, tmp_path, capsys, sample):
    folder = tmp_path / "run"

    def go(limit: str) -> int:
        options = ["--task", str(questions), "--method", "none", "--limit", limit, "--sample", sample]
        return sweep(model, folder, *options)

    go("4")
    few, answered = samples(folder), (folder / "samples.jsonl").read_bytes()
    go("8")
    assert (folder / "samples.jsonl").read_bytes().startswith(answered)
    grown = [record.sample_id for record in samples(folder) if record.ran.method == "full"]
    assert grown[:4] == [record.sample_id for record in few if record.ran.method == "full"]
    assert len(set(grown)) == len(grown) == 8
    assert run_of(folder).config.limit == 8
    results = Results.model_validate_json((folder / "results.json").read_text())
    assert {cell.num_samples for cell in results.cells} == {8}
    if sample == "random":
        assert sum(int(sample_id[1:]) < 3 for sample_id in grown) == 2  # 3 of 12, of 8
    else:
        assert grown == [f"q{number}" for number in range(8)]
    capsys.readouterr()
    assert go("4") == 2
    assert "--limit was 8 and is 4" in capsys.readouterr().err
    go("all")
    assert len(samples(folder)) == 24
    assert main(["report", str(folder)]) == 0
    assert "no images" not in capsys.readouterr().out


def test_an_extension_that_is_killed_leaves_no_figures_of_fewer_samples(model, questions, tmp_path, monkeypatch):
    from adallava.model import AdaLlava

    folder = tmp_path / "run"
    options = ["--task", str(questions), "--method", "none"]
    sweep(model, folder, *options, "--limit", "2")

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(AdaLlava, "generate", interrupted)
        assert sweep(model, folder, *options, "--limit", "4") == 130
    assert not (folder / "results.json").exists()
    assert not (folder / "report.html").exists()
    assert len(samples(folder)) == 4
    sweep(model, folder, *options, "--limit", "4")
    assert len(samples(folder)) == 8


def test_a_run_that_was_scored_by_an_older_metric_is_not_gone_on_with(model, questions, tmp_path, capsys):
    folder = tmp_path / "run"
    options = ["--task", str(questions), "--method", "none", "--limit", "2", "--no-report"]
    sweep(model, folder, *options)
    there = json.loads((folder / "run.json").read_text())
    del there["config"]["metric_version"]
    (folder / "run.json").write_text(json.dumps(there))
    assert sweep(model, folder, *options) == 2
    assert "the version of the metric was 1 and is 2" in capsys.readouterr().err
    # A file without this field, and without those of the model's files, still opens.
    del there["provenance"]["model_files_sha256"], there["config"]["sample"]
    (folder / "run.json").write_text(json.dumps(there))
    assert main(["report", str(folder)]) == 0


def test_two_runs_over_different_samples_compare_over_those_in_common(model, questions, tmp_path, capsys):
    options = ["--task", str(questions), "--method", "none", "--no-report"]
    sweep(model, tmp_path / "a", *options, "--limit", "5")
    sweep(model, tmp_path / "b", *options, "--limit", "8", "--sample", "random")
    common = {r.sample_id for r in samples(tmp_path / "a")} & {r.sample_id for r in samples(tmp_path / "b")}
    capsys.readouterr()
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    printed = capsys.readouterr().out
    assert f"{len(common)} samples" in printed
    assert f"left out, {8 - len(common)} samples in B only" in printed
    assert "differs: sample is first in A and random in B" in printed
