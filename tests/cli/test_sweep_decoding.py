"""A sweep decodes by what its run.json says, and by nothing else of the checkpoint's."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from models import tiny_image
from sweep_inputs import deterministic_samples, samples, sweep

from adallava.cli.main import main
from adallava.errors import InputError
from adallava.pipeline.decoding import decoding_of, generate_arguments, values_of_checkpoint
from adallava.records import Run
from adallava.runs.decoding_options import TAKEN, check_options

CHANGED = {
    "repetition_penalty": 5.0,
    "num_beams": 4,
    "do_sample": True,
    "temperature": 3.0,
    "forced_eos_token_id": 5,
    "suppress_tokens": list(range(60, 200)),
    "no_repeat_ngram_size": 1,
    "min_new_tokens": 3,
    "max_length": 3,
    "max_new_tokens": 1,
    "stop_strings": ["a"],
    "use_cache": False,
    "watermarking_config": {"bias": 9.0, "context_width": 1},
    "num_return_sequences": 2,
}
"""Each of them would change the answers, or make every sample fail."""

ONE = ("--method", "uniform", "--token-budget", "4", "--no-report")


@pytest.fixture
def checkpoint(tiny_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_folder, tmp_path / "model", ignore=shutil.ignore_patterns("adapters")))


@pytest.fixture(scope="module")
def plain(model: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the same weights, decoded as by default."""
    folder = tmp_path_factory.mktemp("plain") / "run"
    assert sweep(model, folder, *ONE) == 0
    return folder


def _configure(checkpoint: Path, **changed: Any) -> None:
    file = checkpoint / "generation_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changed}))


def _run(folder: Path) -> Run:
    return Run.model_validate_json((folder / "run.json").read_bytes())


def test_a_checkpoints_generation_config_changes_nothing_and_is_named(
    plain: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep(str(checkpoint), tmp_path / "before", *ONE, "--limit", "1")
    assert "generation_config" not in capsys.readouterr().err
    _configure(checkpoint, **CHANGED)
    sweep(str(checkpoint), tmp_path / "after", *ONE, "--timing-batch-sizes", "1")
    assert deterministic_samples(tmp_path / "after") == deterministic_samples(plain)
    timings = (tmp_path / "after" / "timings.jsonl").read_text().splitlines()
    assert [json.loads(line)["error"] for line in timings] == [None, None]
    message = " ".join(capsys.readouterr().err.split())
    assert "generation_config sets do_sample=True" in message
    assert all(f"{name}=" in message for name in CHANGED)
    decoding = _run(tmp_path / "after").config.decoding
    assert decoding is not None
    assert (decoding.options, decoding.eos_token_ids, decoding.pad_token_id) == ({}, [257], 258)


def test_a_config_without_a_cache_is_swept_with_one(plain: Path, checkpoint: Path, tmp_path: Path) -> None:
    (checkpoint / "generation_config.json").unlink()
    file = checkpoint / "config.json"
    config = json.loads(file.read_text())
    config["text_config"]["use_cache"] = False
    file.write_text(json.dumps({**config, "use_cache": False}))
    assert sweep(str(checkpoint), tmp_path / "after", *ONE) == 0
    assert [one.response for one in samples(tmp_path / "after")] == [one.response for one in samples(plain)]


def test_a_resume_takes_the_same_answers_or_is_refused(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep(str(checkpoint), tmp_path / "run", *ONE)
    whole = deterministic_samples(tmp_path / "run")
    path = tmp_path / "run" / "samples.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:4]))
    _configure(checkpoint, **CHANGED)
    assert sweep(str(checkpoint), tmp_path / "run", *ONE) == 0
    assert deterministic_samples(tmp_path / "run") == whole
    capsys.readouterr()
    _configure(checkpoint, eos_token_id=[257, 7])
    assert sweep(str(checkpoint), tmp_path / "run", *ONE) == 2
    assert "the list of token ids that end an answer was 257 and is 257,7" in capsys.readouterr().err
    _configure(checkpoint, eos_token_id=257)
    assert sweep(str(checkpoint), tmp_path / "run", *ONE, "--generation-option", "num_beams=2") == 2
    assert "--generation-option was greedy and is num_beams 2" in capsys.readouterr().err


def test_beams_are_recorded_and_cost_as_many_rows(plain: Path, checkpoint: Path, tmp_path: Path) -> None:
    sweep(str(checkpoint), tmp_path / "beams", *ONE, "--generation-option", "num_beams=3")
    assert _run(tmp_path / "beams").config.decoding.options == {"num_beams": 3}  # type: ignore[union-attr]
    pairs = list(zip(samples(plain), samples(tmp_path / "beams"), strict=True))
    # Random answers never end: three new tokens in both, so that only the rows differ.
    assert all(one.ran.answer_length == other.ran.answer_length == 3 for one, other in pairs)
    for one, other in pairs:
        for part in ("prefill", "decode"):
            assert other.flops[part] == 3 * one.flops[part]
        for part in ("vision", "selector", "projector"):
            assert other.flops[part] == one.flops[part]
        assert other.kv_bytes == 3 * (one.kv_bytes or 0)
    assert [one.response for one, _ in pairs] != [other.response for _, other in pairs]


def test_sampled_answers_follow_from_the_seed_and_every_method_draws(checkpoint: Path, tmp_path: Path) -> None:
    sampling = (*ONE, "--draws", "2", "--generation-option", "do_sample=true", "--generation-option", "temperature=2.5")
    sweep(str(checkpoint), tmp_path / "run", *sampling)
    first = samples(tmp_path / "run")
    assert {(one.cell, one.draw) for one in first} == {(c, d) for c in ("full@1.0", "uniform@4") for d in (0, 1)}
    by_draw = [[one.response for one in first if one.draw == draw] for draw in (0, 1)]
    assert by_draw[0] != by_draw[1]
    path = tmp_path / "run" / "samples.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:7]))
    sweep(str(checkpoint), tmp_path / "run", *sampling)
    assert samples(tmp_path / "run")[7:] != []
    assert {(s.cell, s.sample_id, s.draw): s.response for s in samples(tmp_path / "run")} == {
        (s.cell, s.sample_id, s.draw): s.response for s in first
    }


def test_the_doctor_says_how_a_folder_was_decoded_or_that_it_was_not_recorded(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep(str(checkpoint), tmp_path / "run", *ONE, "--generation-option", "num_beams=2")

    def said() -> dict[str, Any]:
        capsys.readouterr()
        main(["doctor", str(tmp_path / "run"), "--json"])
        document = json.loads(capsys.readouterr().out)
        diagnoses = document if isinstance(document, list) else document.get("diagnoses", [document])
        return next(one for one in diagnoses[0]["outcomes"] if one["check"] == "decoding-unrecorded")

    assert said()["status"] == "passed"
    assert said()["evidence"][0].startswith("num_beams 2; of the checkpoint: end of an answer 257")
    file = tmp_path / "run" / "run.json"
    older = json.loads(file.read_text())
    del older["config"]["decoding"]
    file.write_text(json.dumps(older))
    assert said()["status"] == "not-visible"
    assert "did not record how answers were decoded" in said()["evidence"][0]
    assert sweep(str(checkpoint), tmp_path / "run", *ONE) == 2
    assert "--generation-option was not recorded and is" in capsys.readouterr().err


@pytest.mark.long
def test_the_live_doctor_asks_both_models_by_the_same_decoding(
    checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _configure(checkpoint, **CHANGED)
    main(["doctor", "--model", str(checkpoint), "--method", "uniform", "--json"])
    document = json.loads(capsys.readouterr().out)
    diagnoses = document if isinstance(document, list) else document.get("diagnoses", [document])
    status = {one["check"]: one["status"] for one in diagnoses[0]["outcomes"]}
    assert status["full-equals-stock"] == status["batch-equals-alone"] == "passed"


@pytest.fixture
def generate(checkpoint: Path, tmp_path: Path) -> Callable[[], int]:
    tiny_image(0).save(tmp_path / "a.png")
    call = ["--image", str(tmp_path / "a.png"), "--question", "what?", "--method", "full", "--no-image"]
    return lambda: main(["generate", "--model", str(checkpoint), *call, "--max-new-tokens", "4"])


def test_generate_says_what_of_the_checkpoint_counts(
    generate: Callable[[], int], checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert generate() == 0
    assert "note" not in capsys.readouterr().err
    _configure(checkpoint, repetition_penalty=5.0, do_sample=True, temperature=3.0, stop_strings=["a"], use_cache=False)
    assert generate() == 0
    counts, does_not = capsys.readouterr().err.splitlines()
    assert counts.endswith("has repetition_penalty=5.0, which counts here")
    assert does_not.endswith(
        "has do_sample=True, stop_strings=['a'], temperature=3.0, use_cache=False, which does not count here"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_beam": 3}, "did you mean num_beams"),
        ({"max_new_tokens": 3}, "give --max-new-tokens"),
        ({"num_return_sequences": 2}, "one answer a sample is scored"),
        ({"cache_implementation": "static"}, "in no count of FLOPs"),
        ({"num_beams": 0}, "num_beams is 0: give a whole number from 1 to 128"),
        ({"num_beams": 4000}, "num_beams is 4000: give a whole number from 1 to 128"),
        ({"encoder_no_repeat_ngram_size": 2**31 - 1}, "give a whole number from 0 to 1024"),
        ({"num_beams": 4, "length_penalty": 1e9}, "give a number from -20 to 20"),
        ({"do_sample": True, "temperature": 10**400}, "temperature is 1000"),
        ({"do_sample": True, "top_k": 10**30}, "top_k is 1000"),
        ({"num_beams": True}, "num_beams is True: give"),
        ({"repetition_penalty": "high"}, "repetition_penalty is 'high': give a number above 0"),
        ({"suppress_tokens": [1, -2]}, "give a list of token ids"),
        ({"temperature": 0.5}, "temperature has no effect without do_sample=true"),
        ({"length_penalty": 0.5, "num_beams": 1}, "length_penalty has no effect without num_beams above 1"),
    ],
)
def test_an_option_that_means_nothing_is_refused_before_anything_is_loaded(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        check_options(options)


def test_an_id_that_the_llm_lacks_is_told_before_any_answer(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep(str(checkpoint), tmp_path / "run", *ONE, "--generation-option", "forced_eos_token_id=260") == 2
    assert "forced_eos_token_id is 260, and the LLM has words 0 to 259" in capsys.readouterr().err
    _configure(checkpoint, pad_token_id=10**6)
    assert sweep(str(checkpoint), tmp_path / "run", *ONE) == 2
    assert "pad_token_id is 1000000, and the LLM has words" in capsys.readouterr().err
    assert not (tmp_path / "run" / "samples.jsonl").exists()


def test_options_are_read_as_json_or_text(checkpoint: Path, tmp_path: Path) -> None:
    given = ["num_beams=2", "early_stopping=never", "length-penalty=0.5", "suppress_tokens=[63,131]"]
    options = [part for one in given for part in ("--generation-option", one)]
    assert sweep(str(checkpoint), tmp_path / "run", *ONE, *options) == 0
    assert _run(tmp_path / "run").config.decoding.options == {  # type: ignore[union-attr]
        "num_beams": 2,
        "early_stopping": "never",
        "length_penalty": 0.5,
        "suppress_tokens": [63, 131],
    }


def test_a_stated_decoding_names_every_attribute_of_transformers() -> None:
    """What is not named in a call, transformers fills from the checkpoint's own configuration."""
    from transformers import GenerationConfig

    own = GenerationConfig(**{**CHANGED, "eos_token_id": [3, 4]})
    named = generate_arguments(decoding_of(own, {"num_beams": 2}))
    left_to_the_call = {"max_length", "min_length", "return_dict_in_generate", "transformers_version"}
    assert {name for name in vars(own) if name[0] != "_"} - left_to_the_call == named.keys()
    assert (named["num_beams"], named["repetition_penalty"], named["stop_strings"]) == (2, 1.0, None)
    assert (named["eos_token_id"], named["pad_token_id"]) == ([3, 4], 3)
    assert values_of_checkpoint(own).keys() == CHANGED.keys()
    assert values_of_checkpoint(GenerationConfig(num_beams=1, do_sample=False, output_scores=False)) == {}
    assert TAKEN.keys() <= vars(own).keys()
