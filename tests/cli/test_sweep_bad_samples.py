"""Samples that cannot be answered, and answers that are empty."""

import json

import pytest
from models import tiny_base, tiny_processor
from sweep_inputs import local_questions, samples, sweep

from adallava.records import Results


def test_unreadable_pictures_are_failed_samples_and_the_rest_is_answered(model, tmp_path, capsys):
    file = local_questions(tmp_path)
    arguments = ["--task", str(file), "--limit", "all", "--method", "uniform", "--token-budget", "0.25"]
    assert sweep(model, tmp_path / "run", *arguments) == 1
    records = samples(tmp_path / "run")
    assert [r.sample_id for r in records] == 2 * ["wide", "corrupt", "strip", "missing", "palette", "good"]
    by_id = {record.sample_id: record for record in records}
    for name, reason in (("corrupt", "InputError: "), ("missing", "No such file")):
        assert by_id[name].score is None
        assert (by_id[name].ran.finish_reason, by_id[name].empty_cause) == ("error", "error")
        assert reason in by_id[name].error
    for name in ("wide", "strip", "palette", "good"):
        assert by_id[name].error is None
        assert by_id[name].ran.tokens_kept == 4
    printed = capsys.readouterr().out
    assert "uniform@0.25: 2 of 6 samples failed" in printed
    assert "corrupt.png" in printed
    assert (tmp_path / "run" / "report.html").exists()


def test_failed_samples_stay_until_they_are_asked_for_again(model, tmp_path):
    file = local_questions(tmp_path)
    arguments = ["--task", str(file), "--limit", "all", "--method", "full", "--no-report"]
    sweep(model, tmp_path / "run", *arguments)
    good = (tmp_path / "good.jpg").read_bytes()
    for name in ("corrupt.png", "missing.png"):
        (tmp_path / name).write_bytes(good)
    assert sweep(model, tmp_path / "run", *arguments) == 1
    assert sum(record.score is None for record in samples(tmp_path / "run")) == 2
    assert sweep(model, tmp_path / "run", *arguments, "--retry-failed") == 0
    assert sum(record.score is None for record in samples(tmp_path / "run")) == 0
    assert len(samples(tmp_path / "run")) == 6


def test_a_sample_that_the_model_chokes_on_fails_alone(model, tmp_path, monkeypatch):
    from adallava.model import AdaLlava

    generate = AdaLlava.generate

    def choking(self, *, input_ids, **options):
        if any(len(set(row.tolist())) and "choke" in self.processor.decode(row) for row in input_ids):
            raise RuntimeError("out of memory, say")
        return generate(self, input_ids=input_ids, **options)

    monkeypatch.setattr(AdaLlava, "generate", choking)
    file = local_questions(tmp_path)
    lines = file.read_text().splitlines()
    rows = [json.loads(line) for line in lines if "missing" not in line and "corrupt" not in line]
    rows[1]["question"] = "Do you choke?"
    file.write_text("\n".join(map(json.dumps, rows)))
    arguments = ["--task", str(file), "--limit", "all", "--method", "full", "--batch-size", "4", "--no-report"]
    assert sweep(model, tmp_path / "run", *arguments) == 1
    records = samples(tmp_path / "run")
    assert [record.error for record in records] == [None, "RuntimeError: out of memory, say", None, None]
    assert [record.batch_size for record in records] == [1, 0, 1, 1]


@pytest.mark.parametrize(("allowed", "cause"), [("</s>", "first-token-eos"), ("Ġ", "whitespace-only")])
def test_empty_answers_are_counted_by_cause_and_fail_the_run(tmp_path, capsys, allowed, cause):
    base, processor = tiny_base(), tiny_processor()
    token = processor.tokenizer.convert_tokens_to_ids(allowed)
    others = [i for i in range(base.config.text_config.vocab_size) if i != token]
    base.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    decoding = ["--generation-option", f"suppress_tokens={others}"]
    options = ["--method", "uniform", "--token-budget", "0.5", *decoding]
    assert sweep(str(tmp_path / "model"), tmp_path / "run", *options) == 1
    for cell in Results.model_validate_json((tmp_path / "run" / "results.json").read_text()).cells:
        assert cell.empties == {cause: 5}
        assert (cell.empty_share, cell.flagged) == (1.0, True)
        assert cell.accuracy.mean == 0.0
    printed = capsys.readouterr().out
    assert f"full@1.0: 5 of 5 responses are empty: {cause} 5" in printed
    for cell in ("full 1.0", "uniform 0.5"):
        assert f"! {cell}" in " ".join(printed.split()), "each cell is marked in the table"
