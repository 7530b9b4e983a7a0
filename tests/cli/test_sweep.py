import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from models import INSIDE_LLM, tiny_base, tiny_llava, tiny_processor
from sweep_inputs import deterministic_results, deterministic_samples, local_questions

from adallava.cli.main import main
from adallava.records import PART_NAMES, Results, Run, SampleRecord
from adallava.registry import selector_names


@pytest.fixture(scope="module")
def model(tiny_folder):
    return str(tiny_folder)


def sweep(model, output, *options):
    defaults = ["--limit", "5", "--batch-size", "2", "--max-new-tokens", "3"]
    return main(["sweep", "--model", model, "--output", str(output), *defaults, *options])


def samples(folder) -> list[SampleRecord]:
    return [SampleRecord.model_validate_json(line) for line in (folder / "samples.jsonl").read_text().splitlines()]


WITHOUT_BUDGET = {"none", "prumerge", "prumerge-plus"}


# ---- a whole run ----


@pytest.fixture(scope="module")
def finished(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "finished"
    assert sweep(model, folder, "--method", "all", "--token-budget", "1.0,0.25", "4", "--draws", "2") in (0, 1)
    return folder


def test_every_method_crosses_every_budget_on_the_same_samples(finished):
    results = Results.model_validate_json((finished / "results.json").read_text())
    methods = set(selector_names()) - WITHOUT_BUDGET - {"cdpruner"}
    expected = {f"{method}@{budget}" for method in methods for budget in ("1.0", "0.25", "4")}
    expected |= {f"{method}@none" for method in WITHOUT_BUDGET}
    assert results.cells[0].cell == "full@1.0"
    assert {cell.cell for cell in results.cells} == expected | {"full@1.0"}
    ids = [f"test-{number:06d}" for number in range(5)]
    for cell in results.cells:
        answered = [(s.draw, s.sample_id) for s in samples(finished) if s.cell == cell.cell]
        draws = 2 if cell.method == "random" else 1
        assert cell.draws == draws
        assert answered == [(draw, sample_id) for draw in range(draws) for sample_id in ids]
    assert all(cell.num_samples == 5 and cell.num_failed == 0 for cell in results.cells)


def test_the_tokens_asked_for_are_the_tokens_kept(finished):
    kept = {"1.0": 16, "0.25": 4, "4": 4}
    for sample in samples(finished):
        assert sample.num_vision_tokens == 16
        assert sample.tokens_at_end == sample.tokens_asked == sample.tokens_planned
        assert (sample.tokens_kept_by_layer is not None) == (sample.method in INSIDE_LLM)
        assert sample.tokens_kept == (16 if sample.method in INSIDE_LLM else sample.tokens_asked)
        if sample.budget_asked == "none":
            assert sample.tokens_kept == 0 if sample.method == "none" else 1 <= sample.tokens_kept <= 16
        else:
            assert sample.tokens_at_end == kept[sample.budget_asked]
        assert [len(indices) for indices in sample.kept_indices] == [sample.tokens_at_end]


def test_tokens_are_counted_before_the_llm_and_as_a_mean_over_its_layers(finished):
    cells = {cell.cell: cell for cell in Results.model_validate_json((finished / "results.json").read_text()).cells}
    assert cells["uniform@4"].tokens_kept == cells["uniform@4"].tokens_kept_layer_average == 4
    # Four layers: two of sixteen and two of four tokens; sixteen, and then by a factor of 4^(1/3) fewer.
    assert (cells["fastv@4"].tokens_kept, cells["fastv@4"].tokens_kept_layer_average) == (16, 10)
    assert cells["pyramiddrop@4"].tokens_kept_layer_average == (16 + 10 + 6 + 4) / 4
    assert cells["full@1.0"].flops["prefill"] > cells["fastv@4"].flops["prefill"] > cells["uniform@4"].flops["prefill"]
    assert cells["fastv@4"].flops["selector"] > 0 == cells["fastv@1.0"].flops["selector"]


def test_lengths_follow_the_kept_tokens(finished):
    text_length = {s.sample_id: s.prompt_length - 16 for s in samples(finished) if s.method == "full"}
    for sample in samples(finished):
        assert sample.prompt_length == text_length[sample.sample_id] + sample.tokens_kept
        assert 1 <= sample.answer_length <= 3


def test_a_selection_of_everything_is_the_full_model(finished):
    full = {s.sample_id: s.response for s in samples(finished) if s.method == "full"}
    for sample in samples(finished):
        if sample.budget_asked == "1.0":
            assert sample.response == full[sample.sample_id]


def test_a_count_and_a_share_that_mean_the_same_give_the_same(finished):
    by_cell = {(s.cell, s.sample_id, s.draw): (s.kept_indices, s.response, s.flops) for s in samples(finished)}
    for (cell, sample_id, draw), value in by_cell.items():
        if cell.endswith("@4"):
            assert by_cell[cell.replace("@4", "@0.25"), sample_id, draw] == value


def test_every_draw_has_a_seed_of_its_own(finished):
    kept = {(s.sample_id, s.draw): s.kept_indices for s in samples(finished) if s.cell == "random@0.25"}
    assert any(kept[sample_id, 0] != kept[sample_id, 1] for sample_id, _ in kept)
    for sample_id, _ in kept:
        everything = [s.kept_indices for s in samples(finished) if s.cell == "random@1.0" and s.sample_id == sample_id]
        assert everything == [[list(range(16))]] * 2


def test_a_sample_of_several_draws_counts_once_with_its_mean(finished):
    results = Results.model_validate_json((finished / "results.json").read_text())
    for cell in results.cells:
        scores = [s.score for s in samples(finished) if s.cell == cell.cell]
        assert cell.num_samples == cell.accuracy.n == 5
        assert cell.accuracy.mean == pytest.approx(sum(scores) / len(scores))


def test_flops_and_times_have_every_part(finished):
    for sample in samples(finished):
        assert tuple(sample.flops) == PART_NAMES
        assert set(sample.part_ms) == set(PART_NAMES)
        assert sum(sample.part_ms.values()) * sample.batch_size <= sample.batch_ms * 1.01
        assert sample.flops["prefill"] > 0
        assert sample.peak_memory_bytes > 0
    totals = {s.cell: sum(s.flops.values()) for s in samples(finished) if s.sample_id == "test-000000"}
    assert totals["none@none"] < totals["uniform@0.25"] < totals["full@1.0"]
    none = next(s for s in samples(finished) if s.method == "none")
    assert none.flops["vision"] == none.flops["projector"] == 0


def test_provenance_and_configuration_are_recorded(finished, model):
    run = Run.model_validate_json((finished / "run.json").read_text())
    assert (run.config.model, run.config.task, run.config.split, run.config.limit) == (model, "scenes", "test", 5)
    assert (run.config.dtype, run.config.device) == ("float32", "cpu")
    assert run.config.token_budgets == ["1.0", "0.25", "4"]
    assert len(run.provenance.weights_sha256) == 64
    assert set(run.provenance.adapter_sha256) == {"budget-token", "question"}


def test_the_report_is_written(finished):
    assert "<html" in (finished / "report.html").read_text()[:2000]


def test_run_again_it_answers_nothing_and_says_the_same(finished, model, capsys):
    before = (finished / "samples.jsonl").read_bytes()
    cells = deterministic_results(finished)
    sweep(model, finished, "--method", "all", "--token-budget", "1.0,0.25", "4", "--draws", "2")
    assert (finished / "samples.jsonl").read_bytes() == before
    assert deterministic_results(finished) == cells
    number = len(samples(finished))
    assert f"{number} of {number} answers are there already" in capsys.readouterr().err


def test_answers_do_not_depend_on_the_batch_size(model, tmp_path):
    for size in ("1", "5"):
        arguments = ["--method", "random,question", "--token-budget", "0.5", "--batch-size", size, "--no-report"]
        sweep(model, tmp_path / size, *arguments)
    one, five = (deterministic_samples(tmp_path / size) for size in ("1", "5"))
    assert [{**s, "batch_size": 0} for s in one] == [{**s, "batch_size": 0} for s in five]
    assert not (tmp_path / "1" / "report.html").exists()


# ---- positions ----


@pytest.fixture(scope="module")
def both_positions(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "positions"
    arguments = ["--method", "uniform,none,random", "--token-budget", "1.0,4", "--positions", "original,compact"]
    assert sweep(model, folder, *arguments, "--draws", "2", "--no-report") in (0, 1)
    return folder


def test_positions_cross_every_method_but_the_full_and_the_empty_one(both_positions):
    results = Results.model_validate_json((both_positions / "results.json").read_text())
    expected = [f"uniform@{budget}{suffix}" for suffix in ("", "+compact") for budget in ("1.0", "4")]
    expected += ["none@none", *(cell.replace("uniform", "random") for cell in expected)]
    assert [cell.cell for cell in results.cells] == ["full@1.0", *expected]
    for sample in samples(both_positions):
        assert (sample.positions == "compact") == sample.cell.endswith("+compact")
    pairs = {(one.cell_a, one.cell_b) for one in results.comparisons}
    assert {("uniform@4", "uniform@4+compact"), ("uniform@4", "random@4"), ("uniform@4", "full@1.0")} <= pairs
    assert ("uniform@4", "random@4+compact") not in pairs


def test_positions_do_not_change_what_is_kept_and_all_tokens_are_the_full_model(both_positions):
    answers = {(s.cell, s.sample_id, s.draw): s for s in samples(both_positions)}
    for (cell, sample_id, draw), sample in answers.items():
        if sample.positions == "compact":
            original = answers[cell.removesuffix("+compact"), sample_id, draw]
            assert sample.kept_indices == original.kept_indices
        if sample.budget_asked == "1.0":
            assert sample.response == answers["full@1.0", sample_id, 0].response


def test_the_doctor_finds_nothing_in_draws_and_positions(both_positions):
    from adallava.evaluation.doctor import diagnose_run

    findings = {outcome.check for outcome in diagnose_run(both_positions).findings}
    # The model is random: it may well end at once, or write what is no text.
    assert findings <= {"first-token-eos", "blank-answers"}


# ---- timing ----


TIMED = ["--limit", "3", "--method", "uniform", "--token-budget", "4", "--no-report", "--timing-batch-sizes"]


@pytest.fixture(scope="module")
def timed(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "timed"
    assert sweep(model, folder, *TIMED, "1,4") in (0, 1)
    return folder


def test_every_cell_is_timed_at_every_batch_size_also_above_the_number_of_samples(timed):
    results = Results.model_validate_json((timed / "results.json").read_text())
    for cell in results.cells:
        assert [timing.batch_size for timing in cell.timings] == [1, 4]
        for timing in cell.timings:
            assert timing.repeats == 10
            assert set(timing.part_ms) == {*PART_NAMES, "time_to_first_token", "total", "decode_per_token"}
            assert all(spread.low <= spread.median <= spread.high for spread in timing.part_ms.values())
            assert timing.part_ms["decode_per_token"].median > 0.0
            assert timing.peak_memory_bytes > 0


def test_what_was_timed_is_not_timed_again(timed, model, monkeypatch):
    from adallava.model import AdaLlava

    def forbidden(*_, **__):
        raise AssertionError("nothing is left to run")

    before = (timed / "timings.jsonl").read_bytes()
    monkeypatch.setattr(AdaLlava, "generate", forbidden)
    assert sweep(model, timed, *TIMED, "4", "1") in (0, 1)
    assert (timed / "timings.jsonl").read_bytes() == before


# ---- resuming ----


def test_cut_in_the_middle_of_a_batch_it_goes_on_as_if_it_never_stopped(model, tmp_path):
    arguments = ["--method", "random", "--token-budget", "0.5", "--no-report"]
    code = sweep(model, tmp_path / "run", *arguments)
    path = tmp_path / "run" / "samples.jsonl"
    whole, expected, cells = path.read_bytes(), deterministic_samples(path.parent), deterministic_results(path.parent)
    (path.parent / "results.json").unlink()
    path.write_bytes(whole[: whole.index(b"\n") + 40])
    assert sweep(model, tmp_path / "run", *arguments) == code
    assert deterministic_samples(path.parent) == expected
    assert deterministic_results(path.parent) == cells


def test_another_configuration_is_refused(model, tmp_path, capsys):
    sweep(model, tmp_path, "--method", "random", "--token-budget", "0.5")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    capsys.readouterr()
    assert sweep(model, tmp_path, "--method", "random", "--token-budget", "0.5", "--seed", "1") == 2
    message = capsys.readouterr().err
    assert "seed is 0 there and 1 now" in message
    assert "--output" in message
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_other_weights_under_the_same_name_are_refused(tmp_path, capsys):
    for seed in (0, 1):
        tiny_llava(tmp_path / "model", adapters=False, seed=seed)
        code = sweep(str(tmp_path / "model"), tmp_path / "run", "--method", "full")
    assert code == 2
    assert "weights_sha256" in capsys.readouterr().err


# ---- bad samples ----


def test_unreadable_pictures_are_failed_samples_and_the_rest_is_answered(model, tmp_path, capsys):
    file = local_questions(tmp_path)
    arguments = ["--task", str(file), "--limit", "all", "--method", "uniform", "--token-budget", "0.25"]
    assert sweep(model, tmp_path / "run", *arguments) == 1
    records = samples(tmp_path / "run")
    assert [r.sample_id for r in records] == 2 * ["wide", "corrupt", "strip", "missing", "palette", "good"]
    by_id = {record.sample_id: record for record in records}
    for name, reason in (("corrupt", "InputError: "), ("missing", "No such file")):
        assert by_id[name].score is None
        assert (by_id[name].finish_reason, by_id[name].empty_cause) == ("error", "error")
        assert reason in by_id[name].error
    for name in ("wide", "strip", "palette", "good"):
        assert by_id[name].error is None
        assert by_id[name].tokens_kept == 4
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
    base.generation_config.suppress_tokens = [i for i in range(base.config.text_config.vocab_size) if i != token]
    base.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    assert sweep(str(tmp_path / "model"), tmp_path / "run", "--method", "uniform", "--token-budget", "0.5") == 1
    for cell in Results.model_validate_json((tmp_path / "run" / "results.json").read_text()).cells:
        assert cell.empties == {cause: 5}
        assert (cell.empty_share, cell.flagged) == (1.0, True)
        assert cell.accuracy.mean == 0.0
    printed = capsys.readouterr().out
    assert f"full@1.0: 5 of 5 responses are empty: {cause} 5" in printed
    for cell in ("full 1.0", "uniform 0.5"):
        assert f"! {cell}" in " ".join(printed.split()), "each cell is marked in the table"


# ---- the table ----


def test_the_table_names_every_cell_and_where_the_files_are(model, tmp_path, capsys):
    sweep(model, tmp_path, "--method", "uniform,none", "--token-budget", "25%")
    printed = capsys.readouterr().out
    rows = [line.split() for line in printed.splitlines()]
    assert all(len(line.rstrip()) <= 120 for line in printed.splitlines()[:8])
    assert any(row[:4] == ["uniform", "0.25", "4", "4"] for row in rows)
    assert any(row[:4] == ["none", "none", "0", "0"] for row in rows)
    assert str(tmp_path / "report.html") in printed
    assert str(tmp_path / "results.json") in printed


# ---- mistakes in the call ----


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
        (["--positions", "absolute"], "--positions 'absolute' is not one of original, compact"),
        (["--positions", ","], "--positions is empty"),
        (["--timing-batch-sizes", "1,0"], "--timing-batch-sizes '0'"),
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
    assert captured.err.startswith("adallava sweep: ")
    assert expected in captured.err
    assert not (tmp_path / "run" / "samples.jsonl").exists()


def test_a_wrong_column_lists_the_columns(model, tmp_path, capsys):
    file = local_questions(tmp_path)
    assert sweep(model, tmp_path / "run", "--task", str(file), "--question-column", "sentence") == 2
    assert "image, question, answers" in capsys.readouterr().err


def test_a_named_learned_method_without_its_adapter_is_an_error_and_all_leaves_it_out(tmp_path, capsys):
    bare = str(tiny_llava(tmp_path / "bare", adapters=False))
    assert sweep(bare, tmp_path / "named", "--method", "question") == 2
    assert "question" in capsys.readouterr().err
    sweep(bare, tmp_path / "all", "--token-budget", "0.5", "--no-report")
    assert "method question is left out" in capsys.readouterr().err
    run = Run.model_validate_json((tmp_path / "all" / "run.json").read_text())
    assert run.config.methods == sorted(set(selector_names()) - {"question", "budget-token", "cdpruner"})


def test_a_method_that_the_model_cannot_run_is_an_error_if_named_and_left_out_of_all(model, tmp_path, capsys):
    assert sweep(model, tmp_path / "named", "--method", "cdpruner") == 2
    error = capsys.readouterr().err
    assert error.startswith("adallava sweep: method 'cdpruner'")
    assert "cdpruner.text_tower=" in error
    assert not (tmp_path / "named" / "samples.jsonl").exists()
    sweep(model, tmp_path / "all", "--method", "all", "--token-budget", "0.25", "--limit", "1", "--no-report")
    assert "method cdpruner is left out: method 'cdpruner' compares" in capsys.readouterr().err


def test_an_option_lets_it_run_is_recorded_and_makes_another_run(model, tmp_path, capsys):
    arguments = ["--method", "cdpruner", "--token-budget", "4", "--limit", "2", "--no-report"]
    option = ["--method-option", "cdpruner.relevance=llm-embeddings"]
    sweep(model, tmp_path, *arguments, *option)
    run = Run.model_validate_json((tmp_path / "run.json").read_text())
    assert run.config.method_options == {"cdpruner": {"relevance": "llm-embeddings"}}
    assert {s.tokens_kept for s in samples(tmp_path) if s.method == "cdpruner"} == {4}
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


def test_ctrl_c_says_that_the_same_command_resumes(model, tmp_path, capsys, monkeypatch):
    from adallava.model import AdaLlava

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(AdaLlava, "generate", interrupted)
    assert sweep(model, tmp_path, "--method", "random") == 130
    assert capsys.readouterr().err.splitlines()[-1].endswith("the same command resumes")


# ---- real files ----


@pytest.mark.shared_data
@pytest.mark.skipif("ADALLAVA_NLVR" not in os.environ, reason="ADALLAVA_NLVR does not name NLVR's parquet folder")
def test_nlvr_goes_through(model, tmp_path):
    file = Path(os.environ["ADALLAVA_NLVR"]) / "test.parquet"
    arguments = ["--task", str(file), "--question-column", "sentence", "--limit", "40", "--batch-size", "8"]
    sweep(model, tmp_path, *arguments, "--method", "uniform", "--token-budget", "0.25")
    records = samples(tmp_path)
    assert len(records) == 80
    assert all(record.error is None for record in records)
    assert {answer for record in records for answer in record.answers} == {"true", "false"}


def test_help_needs_no_torch():
    script = (
        "import sys; from adallava.cli.main import main\n"
        "try:\n  main(sys.argv[1:])\nexcept SystemExit as done:\n  assert done.code == 0\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules, 'torch was imported'"
    )
    for arguments in (["--help"], ["--version"], ["sweep", "--help"]):
        done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
