"""The benchmarks run and leave a file of figures; what the clock says is not looked at here."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from models import tiny_image
from run_records import changed, sample_record

from adallava.registry import load_selector_class, scheduler_names, selector_names, selects_inside_llm

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def figures_of(script, *options, folder, exit_code=0):
    output = folder / "figures.json"
    command = [sys.executable, str(BENCHMARKS / script), *options, "--device", "cpu", "--output", str(output)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == exit_code, done.stderr
    made = json.loads(output.read_text())
    assert json.loads(done.stdout.splitlines()[-1]) == made or script == "seven_b.py"
    assert {"command", "date", "versions", "hardware"} <= set(made)
    return made


@pytest.mark.long
@pytest.mark.parametrize(
    ("script", "options", "inside"),
    [
        pytest.param("selection.py", [], False, marks=pytest.mark.long),
        ("inside.py", ["--batch", "2", "--keep", "64"], True),
    ],
)
def test_every_method_of_its_kind_is_timed(script, options, inside, tmp_path):
    made = figures_of(script, "--shapes", "toy", "--repeats", "2", "--warm-ups", "1", *options, folder=tmp_path)
    expected = {name for name in selector_names() if selects_inside_llm(load_selector_class(name)) == inside}
    assert expected <= {row["method"] for row in made["rows"]}


@pytest.mark.long
def test_layers_are_timed_for_every_scheduler_that_needs_no_plan(tmp_path):
    options = ["--shapes", "toy", "--repeats", "1", "--warm-ups", "0", "--batch", "2", "--new-tokens", "2"]
    made = figures_of("layers.py", *options, folder=tmp_path)
    needs_plan_or_adapter = {"fixed", "adallava-layers", "adallava-heads"}
    expected = {*scheduler_names(), "transformers", "full", "cut"} - needs_plan_or_adapter
    assert {row["scheduler"] for row in made["rows"]} == expected
    assert {row["latency"] for row in made["rows"]} == {"1.0", "0.75", "0.625", "0.5", "1.0 and 0.5"}


@pytest.mark.long
def test_a_cell_that_fails_is_told_and_the_others_are_timed():
    code = "import json; from measured import *; from adallava.measuring.turns import take_turns\n"
    code += "def bad(): raise MemoryError('too much')\n"
    code += "cells = take_turns({'a': bad, 'b': lambda: {'ms': 1.0}}, warm_ups=1, repeats=2, seconds=9)\n"
    code += "finish({'rows': [spreads(cell) for cell in cells.values()]}, None)"
    done = subprocess.run([sys.executable, "-c", code], cwd=BENCHMARKS, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    failed, timed = json.loads(done.stdout.splitlines()[-1])["rows"]
    assert failed == {"error": "MemoryError: too much"}
    assert timed == {"repeats": 2, "ms": {"median": 1.0, "low": 1.0, "high": 1.0}}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint") / "toy"
    command = [sys.executable, str(BENCHMARKS / "random_llava.py"), str(folder), "--shapes", "toy", "--device", "cpu"]
    subprocess.run(command, check=True, capture_output=True)
    return folder


@pytest.fixture
def nlvr(tmp_path):
    path = tmp_path / "nlvr.parquet"
    rows = []
    for number in range(4):
        tiny_image(number).save(tmp_path / "picture.png")
        picture = {"bytes": (tmp_path / "picture.png").read_bytes(), "path": f"{number}.png"}
        rows.append({"id": f"p{number}", "image": picture, "sentence": "There is a box.", "label": "true"})
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


@pytest.mark.long
def test_loading_is_measured_in_the_stored_type_and_another(checkpoint, tmp_path):
    made = figures_of("loading.py", "--model", str(checkpoint), "--ways", "adallava", "adallava-cast", folder=tmp_path)
    kept, cast = made["rows"]
    assert made["stored_bytes"] > 0
    assert cast["anonymous_bytes"] - kept["anonymous_bytes"] > 0.5 * made["stored_bytes"]


@pytest.mark.long
@pytest.mark.parametrize("attention", ["any", "math"])
def test_on_a_cpu_every_repeat_has_the_same_bits(attention, tmp_path):
    options = ["--shapes", "toy", "--prompts", "1", "--repeats", "1", "--new-tokens", "2", "--attention", attention]
    made = figures_of("repeats.py", *options, folder=tmp_path)
    assert [row["of"] for row in made["rows"]] == [
        "tower",
        *(f"{method}, token {number}" for method in ("full", "visionzip") for number in (1, 2)),
    ]
    assert all((row["differing"], row["compared"]) == (0, 1) for row in made["rows"])


@pytest.mark.long
def test_a_conversion_there_and_back_leaves_every_bit(checkpoint, tmp_path):
    tiny_image(0).save(tmp_path / "picture.png")
    options = ["--model", str(checkpoint), "--work", str(tmp_path / "work"), "--image", str(tmp_path / "picture.png")]
    (row,) = figures_of("converting.py", *options, folder=tmp_path)["rows"]
    index = json.loads((checkpoint / "model.safetensors.index.json").read_text())
    assert (row["weights"], row["differing"]) == (len(index["weight_map"]), 0)


@pytest.mark.long
def test_the_sweep_of_both_dials_is_watched_to_its_end(checkpoint, nlvr, tmp_path):
    options = ["--model", str(checkpoint), "--nlvr", str(nlvr), "--pictures", "4", "--work", str(tmp_path / "work")]
    options += ["--method", "uniform", "--token-budget", "0.25", "--latency", "1.0,0.5", "--batch-size", "4"]
    made = figures_of("seven_b.py", *options, "--max-new-tokens", "2", folder=tmp_path)
    (run,) = made["runs"]
    names = [cell["cell"] for cell in run["cells"]]
    assert names == ["full@1.0", "uniform@0.25", "full@1.0/spaced@0.5", "uniform@0.25/spaced@0.5"]
    assert all(cell["num_samples"] == 6 and cell["num_failed"] == 0 for cell in run["cells"])
    assert made["checks"]["batch 4"]["every cell ends"]


@pytest.mark.long
def test_a_sweep_that_outlasts_its_time_did_not_end(checkpoint, nlvr, tmp_path):
    options = ["--model", str(checkpoint), "--nlvr", str(nlvr), "--pictures", "4", "--work", str(tmp_path / "work")]
    made = figures_of("seven_b.py", *options, "--batch-size", "4", "--seconds", "1", folder=tmp_path, exit_code=1)
    assert made["runs"][0]["exit_code"] is None
    assert not made["checks"]["batch 4"]["every cell ends"]


def test_growth_is_between_batches_of_equal_lengths(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from seven_b import device_growth_bytes

    def answers(*peaks_and_lengths):
        made = []
        for number, (peak, length) in enumerate(peaks_and_lengths):
            record = sample_record("full@1.0", f"s{number}", score=1.0, tokens_kept=4)
            made.append(changed(record, peak_memory_bytes=peak, prompt_length=length, batch_size=1))
        return made

    assert device_growth_bytes(answers((100, 9), (300, 20), (100, 9), (300, 20))) == 0
    assert device_growth_bytes(answers((100, 9), (300, 20), (104, 9), (310, 20))) == 10
    assert device_growth_bytes(answers((100, 9), (300, 20))) == 0


def test_the_first_batch_of_a_length_is_told_from_those_after_it(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from seven_b import new_length_ms

    def answer(length, prefill, decode):
        made = sample_record("full@1.0", f"s{length}", score=1.0, tokens_kept=4)
        ms = {"prefill": prefill, "decode": decode}
        return changed(made, prompt_length=length, answer_length=2, batch_size=1, part_ms=ms, peak_memory_bytes=1)

    # The second of length 9 finds 9 and 10; the one of 10 finds its prompt's length, not its answer's.
    made = new_length_ms([answer(9, 50.0, 40.0), answer(9, 5.0, 4.0), answer(10, 7.0, 60.0)])
    assert made["full@1.0"] == {
        "prefill_new_ms": 50.0,
        "prefill_seen_ms": 6.0,
        "decode_new_ms": 50.0,
        "decode_seen_ms": 4.0,
        "prefill_new_batches": 1,
        "prefill_seen_batches": 2,
        "decode_new_batches": 2,
        "decode_seen_batches": 1,
    }


@pytest.mark.long
def test_a_small_model_of_another_family_is_trained_and_swept(tmp_path):
    options = ["--only", "tiny-siglip-qwen2", "--steps", "1", "--batch-size", "1", "--limit", "7", "--device", "cpu"]
    command = [sys.executable, str(BENCHMARKS / "families.py"), *options, "--output", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "tiny-siglip-qwen2"
    made = json.loads((folder / "family.json").read_text())
    assert set(made["stages"]) == {"align", "base", "question"}
    assert {"full@1.0", "question@8", "random@64", "none@none"} <= {cell["cell"] for cell in made["cells"]}
    assert all({"mean", "low", "high", "n"} <= set(cell["accuracy"]) for cell in made["cells"])
    assert made["comparisons"]
    assert (folder / "model" / "adapters" / "question").is_dir()
