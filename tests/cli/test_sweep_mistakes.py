"""Mistakes in the call: one line on stderr, exit code 2; methods that cannot run, and options."""

import json
import sys

import pytest
from models import tiny_llava
from sweep_inputs import local_questions, samples, sweep

from adallava.cli.main import main
from adallava.records import Run
from adallava.registry import selector_names


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--token-budget", "0.5,1.5"], "1.5"),
        (["--token-budget", "-3"], "-3"),
        (["--token-budget", "half"], "'half'"),
        (["--token-budget", "nan"], "out of range"),
        (["--token-budget", ","], "no budget"),
        (["--method", "questoin"], "did you mean 'question'"),
        (["--task", "nothing.jsonl"], "nothing.jsonl does not exist"),
        (["--split", "dev"], "dev"),
        (["--limit", "0"], "--limit '0'"),
        (["--limit", "all"], "give a limit"),
        (["--batch-size", "0"], "--batch-size is 0"),
        (["--max-new-tokens", "-1"], "--max-new-tokens is -1"),
        (["--draws", "0"], "--draws is 0"),
        (["--seed", "-1"], "--seed is -1: give a whole number from 0"),
        (["--seed", str(2**63)], f"--seed is {2**63}"),
        (["--seed", "9" * 5000], "(5000 characters) is not a whole number"),
        (["--limit", "1e30"], "--limit '1e30'"),
        (["--limit", "9" * 5000], "(5000 characters) is not a number of samples"),
        (["--limit", "1000001"], "limit 1000001 is over the 1000000 samples of task scenes"),
        (["--batch-size", str(2**31)], f"--batch-size is {2**31}"),
        (["--max-new-tokens", "1.5"], "--max-new-tokens: '1.5' is not a whole number"),
        (["--token-budget", "9" * 5000], "token budget"),
        (["--sample", "last"], "'last'"),
        (["--sample", "random"], "random sample already"),
        (["--task", "a\0b.jsonl"], "'a\\x00b.jsonl', holds a NUL byte"),
        (["--question-suffix", "\udcff"], "'\\udcff', is not UTF-8"),
        (["--roofline", "h300"], "the peak speed of hardware 'h300' is not known"),
        (["--positions", "absolute"], "--positions 'absolute' is not one of original, compact"),
        (["--positions", ","], "--positions is empty"),
        (["--timing-batch-sizes", "1,0"], "--timing-batch-sizes '0'"),
        (["--timing-batch-sizes", "4097"], "--timing-batch-sizes is 4097: give at least 1 and at most 4096"),
        (["--draws", "1001"], "--draws is 1001: give at least 1 and at most 1000"),
        (["--method", "random", "--method-option", "random.self=1"], "self is not an option of a method"),
        (["--timing-batch-sizes", "many"], "--timing-batch-sizes 'many'"),
        (["--adapter", "question"], "METHOD=PATH"),
        (["--adapter", "pool=x", "--method", "random"], "--adapter names pool"),
        (["--adapter", "question=/nowhere", "--method", "question"], "/nowhere"),
        (["--model", "/nowhere/at-all"], "/nowhere/at-all"),
        (["--question-column", "sentence"], "has no columns"),
        (["--device", "gpu0"], "'gpu0' is not the name of a device"),
        (["--device", "cuda:99"], "'cuda:99' is not on this machine"),
    ],
)
def test_a_mistake_is_one_line_on_stderr_and_exit_code_2(model, tmp_path, capsys, options, expected):
    assert sweep(model, tmp_path / "run", *options) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    assert captured.err.startswith(("adallava sweep: ", "adallava: argument "))
    assert expected in captured.err
    assert not (tmp_path / "run" / "samples.jsonl").exists()


def test_an_empty_output_is_not_the_current_folder(model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for option in ("--output", "--include-path"):
        assert sweep(model, tmp_path / "run", option, "") == 2
        assert f"argument {option}: '' is not a path" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_row_that_is_no_sample_stops_the_sweep_before_anything_is_loaded(tmp_path, capsys):
    file = local_questions(tmp_path)
    file.write_text(file.read_text() + '{"id": "b", "image": "good.jpg", "question": "\\ud83d", "answers": "a"}\n')
    assert sweep("/nowhere/at-all", tmp_path / "run", "--task", str(file), "--limit", "all") == 2
    assert "line 7: column 'question' holds text with half a surrogate" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_pictures_elsewhere_need_the_flag_in_sweep_and_report(model, tmp_path, capsys):
    file = local_questions(tmp_path / "data")
    (tmp_path / "data" / "good.jpg").rename(tmp_path / "good.jpg")
    row = {"id": "far", "image": str(tmp_path / "good.jpg"), "question": "What?", "answers": "a"}
    file.write_text(json.dumps(row) + "\n")
    arguments = ["--task", str(file), "--method", "none"]
    assert sweep(model, tmp_path / "run", *arguments) == 2
    assert "line 1: column 'image' names" in (message := capsys.readouterr().err)
    assert "--allow-outside" in message
    sweep(model, tmp_path / "run", *arguments, "--allow-outside")
    assert [sample.error for sample in samples(tmp_path / "run")] == [None, None]
    capsys.readouterr()
    assert main(["report", str(tmp_path / "run")]) == 0
    assert "--allow-outside" in capsys.readouterr().out
    assert main(["report", str(tmp_path / "run"), "--allow-outside"]) == 0
    assert "no images" not in capsys.readouterr().out


def test_a_path_with_a_nul_is_one_failed_sample_and_a_report(model, tmp_path):
    file = local_questions(tmp_path)
    row = {"id": "nul", "image": "good\0.jpg", "question": "What?", "answers": "a"}
    file.write_text(json.dumps(row) + "\n" + file.read_text().splitlines()[-1] + "\n")
    assert sweep(model, tmp_path / "run", "--task", str(file), "--method", "none") == 1
    errors = {sample.sample_id: sample.error for sample in samples(tmp_path / "run")}
    assert "NUL byte" in (errors["nul"] or "")
    assert errors["good"] is None
    assert (tmp_path / "run" / "report.html").exists()


def test_a_wrong_column_lists_the_columns(model, tmp_path, capsys):
    file = local_questions(tmp_path)
    assert sweep(model, tmp_path / "run", "--task", str(file), "--question-column", "sentence") == 2
    assert "image, question, answers" in capsys.readouterr().err


def test_a_named_learned_method_without_its_adapter_is_an_error_and_all_leaves_out_what_cannot_run(tmp_path, capsys):
    bare = str(tiny_llava(tmp_path / "bare", adapters=False))
    assert sweep(bare, tmp_path / "named", "--method", "question") == 2
    assert "question" in capsys.readouterr().err
    sweep(bare, tmp_path / "all", "--token-budget", "0.5", "--limit", "1", "--no-report")
    told = capsys.readouterr().err
    assert "method question is left out" in told
    assert "method cdpruner is left out: method 'cdpruner' compares" in told
    run = Run.model_validate_json((tmp_path / "all" / "run.json").read_text())
    assert list(run.config.methods) == sorted(set(selector_names()) - {"question", "budget-token", "cdpruner"})


def test_a_method_that_the_model_cannot_run_is_an_error_if_named(model, tmp_path, capsys):
    assert sweep(model, tmp_path / "named", "--method", "cdpruner") == 2
    error = capsys.readouterr().err
    assert error.startswith("adallava sweep: method 'cdpruner'")
    assert "cdpruner.text_tower=" in error
    assert not (tmp_path / "named" / "samples.jsonl").exists()


def test_an_option_lets_it_run_is_recorded_and_makes_another_run(model, tmp_path, capsys):
    arguments = ["--method", "cdpruner", "--token-budget", "4", "--limit", "2", "--no-report"]
    option = ["--method-option", "cdpruner.relevance=llm-embeddings"]
    sweep(model, tmp_path, *arguments, *option)
    run = Run.model_validate_json((tmp_path / "run.json").read_text())
    assert run.config.method_options == {"cdpruner": {"relevance": "llm-embeddings"}}
    assert {s.ran.tokens_kept for s in samples(tmp_path) if s.ran.method == "cdpruner"} == {4}
    capsys.readouterr()
    assert sweep(model, tmp_path, *arguments, "--method-option", "cdpruner.relevance=none") == 2
    assert "method_options" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("cdpruner=none", "is not METHOD.OPTION=VALUE"),
        ("pool.size=3", "names pool, but --method does not"),
        ("uniform.size=3", "does not take these options (size=3)"),
        ("mmtok.alpha=x", "alpha='x' is refused: Input should be a valid number"),
        ("mmtok.alpha=true", "alpha=True is refused"),
        ("mmtok.alpha=-1", "alpha is -1"),
        ("mmtok.word_temperature=nan", "word_temperature=nan is refused: Input should be a finite number"),
        ("fastv.layer=2.5", "layer=2.5 is refused: Input should be a valid integer"),
        ("fastv.layer=true", "layer=True is refused"),
        ("fastv.layer=0", "layer is 0"),
    ],
)
def test_a_wrong_option_is_named(model, tmp_path, capsys, option, message):
    methods = "uniform,mmtok,fastv"
    assert sweep(model, tmp_path / "run", "--method", methods, "--method-option", option) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run" / "samples.jsonl").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--address", "auto"], "--address needs --executor ray"),
        (["--gpus-per-worker", "0.5"], "--gpus-per-worker needs --executor ray"),
        (["--executor", "ray", "--workers", "0"], "--workers is 0: give at least 1"),
        (["--executor", "ray", "--gpus-per-worker", "1.5"], "--gpus-per-worker is 1.5: give a whole number"),
        (["--executor", "ray", "--gpus-per-worker", "nan"], "--gpus-per-worker is nan"),
        (["--executor", "ray", "--working-dir", "/no/such"], "--working-dir /no/such is no folder"),
        (["--executor", "ray", "--working-dir", "/proc"], "--working-dir /proc does not hold the current folder"),
        (["--executor", "ray", "--device", "cuda:1"], "--device cuda:1 with --executor ray"),
    ],
)
def test_what_ray_cannot_be_asked_is_told_before_anything_starts(model, tmp_path, capsys, words, message):
    assert main(["sweep", "--model", model, "--output", str(tmp_path / "run"), "--limit", "1", *words]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert len(told.splitlines()) == 1


def test_without_ray_the_extra_is_named(model, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    words = ["sweep", "--model", model, "--output", str(tmp_path / "run"), "--limit", "1", "--executor", "ray"]
    assert main(words) == 2
    assert "pip install 'adallava[ray]'" in capsys.readouterr().err
