"""A sweep from the command line: what a finished run holds, and what is printed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from models import INSIDE_LLM
from sweep_inputs import deterministic_results, deterministic_samples, samples, sweep

from adallava.records import PART_NAMES, Results, Run
from adallava.registry import selector_names

EVERYTHING = ("--method", "all", "--token-budget", "1.0,0.25", "4", "--draws", "2", "--batch-size", "5")
WITHOUT_BUDGET = {"none", "prumerge", "prumerge-plus"}


@pytest.fixture(scope="module")
def finished(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "finished"
    assert sweep(model, folder, *EVERYTHING) in (0, 1)
    return folder


@pytest.fixture(scope="module")
def answers(finished):
    return samples(finished)


def test_every_method_crosses_every_budget_on_the_same_samples(finished, answers):
    results = Results.model_validate_json((finished / "results.json").read_text())
    methods = set(selector_names()) - WITHOUT_BUDGET - {"cdpruner"}
    expected = {f"{method}@{budget}" for method in methods for budget in ("1.0", "0.25", "4")}
    expected |= {f"{method}@none" for method in WITHOUT_BUDGET}
    assert results.cells[0].cell == "full@1.0"
    assert {cell.cell for cell in results.cells} == expected | {"full@1.0"}
    ids = [f"test-{number:06d}" for number in range(5)]
    for cell in results.cells:
        answered = [(s.draw, s.sample_id) for s in answers if s.cell == cell.cell]
        draws = 2 if cell.method == "random" else 1
        assert cell.draws == draws
        assert answered == [(draw, sample_id) for draw in range(draws) for sample_id in ids]
    assert all(cell.num_samples == 5 and cell.num_failed == 0 for cell in results.cells)


def test_the_tokens_asked_for_are_the_tokens_kept(answers):
    kept = {"1.0": 16, "0.25": 4, "4": 4}
    for sample in answers:
        assert sample.ran.num_vision_tokens == 16
        assert sample.ran.tokens_at_end == sample.ran.tokens_asked == sample.ran.tokens_planned
        assert (sample.ran.tokens_kept_by_layer is not None) == (sample.ran.method in INSIDE_LLM)
        assert sample.ran.tokens_kept == (16 if sample.ran.method in INSIDE_LLM else sample.ran.tokens_asked)
        if sample.ran.budget_asked == "none":
            assert sample.ran.tokens_kept == 0 if sample.ran.method == "none" else 1 <= sample.ran.tokens_kept <= 16
        else:
            assert sample.ran.tokens_at_end == kept[sample.ran.budget_asked]
        assert [len(indices) for indices in sample.ran.kept_indices] == [sample.ran.tokens_at_end]


def test_tokens_are_counted_before_the_llm_and_as_a_mean_over_its_layers(finished):
    cells = {cell.cell: cell for cell in Results.model_validate_json((finished / "results.json").read_text()).cells}
    assert cells["uniform@4"].tokens_kept == cells["uniform@4"].tokens_kept_layer_average == 4
    # Four layers: two of sixteen and two of four tokens; sixteen, and then by a factor of 4^(1/3) fewer.
    assert (cells["fastv@4"].tokens_kept, cells["fastv@4"].tokens_kept_layer_average) == (16, 10)
    assert cells["pyramiddrop@4"].tokens_kept_layer_average == (16 + 10 + 6 + 4) / 4
    assert cells["full@1.0"].flops["prefill"] > cells["fastv@4"].flops["prefill"] > cells["uniform@4"].flops["prefill"]
    assert cells["fastv@4"].flops["selector"] > 0 == cells["fastv@1.0"].flops["selector"]


def test_lengths_follow_the_kept_tokens(answers):
    text_length = {s.sample_id: s.ran.prompt_length - 16 for s in answers if s.ran.method == "full"}
    for sample in answers:
        assert sample.ran.prompt_length == text_length[sample.sample_id] + sample.ran.tokens_kept
        assert 1 <= sample.ran.answer_length <= 3


def test_a_selection_of_everything_is_the_full_model(answers):
    full = {s.sample_id: s.response for s in answers if s.ran.method == "full"}
    for sample in answers:
        if sample.ran.budget_asked == "1.0":
            assert sample.response == full[sample.sample_id]


def test_a_count_and_a_share_that_mean_the_same_give_the_same(answers):
    by_cell = {(s.cell, s.sample_id, s.draw): (s.ran.kept_indices, s.response, s.flops) for s in answers}
    for (cell, sample_id, draw), value in by_cell.items():
        if cell.endswith("@4"):
            assert by_cell[cell.replace("@4", "@0.25"), sample_id, draw] == value


def test_every_draw_has_a_seed_of_its_own(answers):
    kept = {(s.sample_id, s.draw): s.ran.kept_indices for s in answers if s.cell == "random@0.25"}
    assert any(kept[sample_id, 0] != kept[sample_id, 1] for sample_id, _ in kept)
    for sample_id, _ in kept:
        everything = [s for s in answers if s.cell == "random@1.0" and s.sample_id == sample_id]
        assert [s.ran.kept_indices for s in everything] == [(tuple(range(16)),)] * 2


def test_a_sample_of_several_draws_counts_once_with_its_mean(finished, answers):
    results = Results.model_validate_json((finished / "results.json").read_text())
    for cell in results.cells:
        scores = [s.score for s in answers if s.cell == cell.cell]
        assert cell.num_samples == cell.accuracy.n == 5
        assert cell.accuracy.mean == pytest.approx(sum(scores) / len(scores))


def test_flops_and_times_have_every_part(answers):
    for sample in answers:
        assert tuple(sample.flops) == PART_NAMES
        assert set(sample.part_ms) == set(PART_NAMES)
        assert sum(sample.part_ms.values()) * sample.batch_size <= sample.batch_ms * 1.01
        assert sample.flops["prefill"] > 0
        assert sample.peak_memory_bytes > 0
    totals = {s.cell: sum(s.flops.values()) for s in answers if s.sample_id == "test-000000"}
    assert totals["none@none"] < totals["uniform@0.25"] < totals["full@1.0"]
    none = next(s for s in answers if s.ran.method == "none")
    assert none.flops["vision"] == none.flops["projector"] == 0


def test_provenance_and_configuration_are_recorded(finished, model):
    run = Run.model_validate_json((finished / "run.json").read_text())
    assert (run.config.model, run.config.task, run.config.split, run.config.limit) == (model, "scenes", "test", 5)
    assert (run.config.dtype, run.config.device) == ("float32", "cpu")
    assert list(map(str, run.config.token_budgets)) == ["1.0", "0.25", "4"]
    assert len(run.provenance.weights_sha256) == 64
    assert set(run.provenance.adapter_sha256) == {"budget-token", "question"}


def test_the_report_is_written(finished):
    assert "<html" in (finished / "report.html").read_text()[:2000]


def test_run_again_it_answers_nothing_and_says_the_same(finished, model, capsys):
    before = (finished / "samples.jsonl").read_bytes()
    cells = deterministic_results(finished)
    sweep(model, finished, *EVERYTHING)
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


def test_the_table_names_every_cell_and_where_the_files_are(model, tmp_path, capsys):
    sweep(model, tmp_path, "--method", "uniform,none", "--token-budget", "25%")
    printed, told = capsys.readouterr()
    # Each of two cells against the full model; of one budget there is no area.
    assert "with 5 samples and 2 planned comparisons, " in " ".join(told.split())
    rows = [line.split() for line in printed.splitlines()]
    assert all(len(line.rstrip()) <= 120 for line in printed.splitlines()[:8])
    assert any(row[:4] == ["uniform", "0.25", "4", "4"] for row in rows)
    assert any(row[:4] == ["none", "none", "0", "0"] for row in rows)
    assert str(tmp_path / "report.html") in printed
    assert str(tmp_path / "results.json") in printed


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
