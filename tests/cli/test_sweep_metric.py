"""A sweep of a local file scored by VQA accuracy."""

import json
from pathlib import Path

import pytest
from PIL import Image

from adallava.cli.main import main
from adallava.records import SampleRecord
from adallava.records.read import read_run


@pytest.fixture
def sweep(tiny_folder, tmp_path):
    Image.new("RGB", (40, 40), (200, 30, 30)).save(tmp_path / "red.png")

    def run(answers: list[str], output: str, *options: str) -> int:
        row = {"id": "one", "image": "red.png", "question": "What colour?", "answers": answers}
        (tmp_path / "task.jsonl").write_text(json.dumps(row) + "\n")
        task = ["--task", str(tmp_path / "task.jsonl"), "--method", "full", "--max-new-tokens", "3", "--no-report"]
        return main(["sweep", "--model", str(tiny_folder), "--output", str(tmp_path / output), *task, *options])

    return run


def only_record(folder: Path) -> SampleRecord:
    (line,) = (folder / "samples.jsonl").read_text().splitlines()
    return SampleRecord.model_validate_json(line)


def test_three_of_ten_people_are_nine_tenths_and_the_metric_is_part_of_the_run(sweep, tmp_path, capsys):
    sweep(["unlike anything"], "first")
    response = only_record(tmp_path / "first").response
    assert response
    answers = [response] * 3 + ["unlike anything"] * 6 + [""]
    for metric, expected in (("exact-match", 1.0), ("vqa", 0.9), ("vqa-official", 0.9)):
        sweep(answers, metric, "--metric", metric)
        assert only_record(tmp_path / metric).score == pytest.approx(expected)
        assert only_record(tmp_path / metric).answers == answers
        assert read_run(tmp_path / metric).config.metric == metric
    capsys.readouterr()
    assert sweep(answers, "vqa", "--metric", "vqa-official") == 2
    assert "--metric was vqa and is vqa-official" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--metric", "vqa"], "takes 10 answers a question, one a person, and sample one has 2"),
        (["--metric", "bleu"], "metric 'bleu' is not one of exact-match, vqa, vqa-official"),
        (["--metric", "vqa", "--task", "scenes"], "task scenes has one answer a question: --metric vqa does not fit"),
    ],
)
def test_a_metric_that_does_not_fit_is_refused(sweep, tmp_path, capsys, options, message):
    assert sweep(["red", "crimson"], "run", *options) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run" / "samples.jsonl").exists()
