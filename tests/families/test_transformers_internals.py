"""transformers' internals are read under either name, and a release that is newer is said or refused."""

import tomllib
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import adallava
from adallava import AdaLlava
from adallava.cli.main import main
from adallava.errors import AdallavaError
from adallava.families import decoder, head_groups, transformers_internals, transformers_probe, transformers_version
from adallava.families.transformers_internals import CACHE_NAMES, read_layer_inputs
from adallava.families.transformers_probe import find_fault

pytestmark = pytest.mark.newest

SOURCE = Path(adallava.__file__).parent


@pytest.mark.parametrize("name", CACHE_NAMES)
def test_a_layers_inputs_are_read_under_either_name_of_the_cache(name: str) -> None:
    tables = (torch.zeros(1, 3, 4), torch.ones(1, 3, 4))
    beside = {"attention_mask": None, "position_embeddings": tables, "position_ids": torch.arange(3)[None]}
    read = read_layer_inputs({**beside, name: "the cache", "use_cache": True})
    assert (read.cache, read.others) == ("the cache", {"use_cache": True})
    assert read.position_embeddings is tables


def test_a_layer_without_its_cache_or_mask_is_an_error_and_no_answer() -> None:
    with pytest.raises(AdallavaError, match=r"neither cache nor past_key_values names the cache .*attention_mask, kv"):
        read_layer_inputs({"attention_mask": None, "kv": None})
    with pytest.raises(AdallavaError, match="layers are not given position_embeddings"):
        read_layer_inputs({"attention_mask": None, "cache": None})


def test_pip_is_asked_for_what_was_tested() -> None:
    project = tomllib.loads((SOURCE.parents[1] / "pyproject.toml").read_text())["project"]
    assert f"transformers{transformers_version.TESTED_RANGE}" in project["dependencies"]


def test_the_probe_passes_and_draws_nothing() -> None:
    state = torch.random.get_rng_state()
    assert find_fault() is None
    assert torch.equal(torch.random.get_rng_state(), state)


def _without_cache(stock: Callable[..., Any]) -> Callable[..., Any]:
    return lambda kwargs: replace(stock(kwargs), cache=None)


def _a_column_short(stock: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args, **options: stock(*args, **options)[..., 1:]


def _hiding_the_last(stock: Callable[..., Any]) -> Callable[..., Any]:
    def made(*args: Any, **options: Any) -> Any:
        mask = stock(*args, **options).clone()
        mask[..., -1, -1] = False
        return mask

    return made


def _unheard(stock: Callable[..., Any]) -> Callable[..., Any]:
    return lambda model, reorder: None


def _twice_as_much(stock: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args: 2 * stock(*args)


@pytest.mark.parametrize(
    ("module", "name", "broken", "fault"),
    [
        (decoder, "read_layer_inputs", _without_cache, "AttributeError: 'NoneType'"),
        (decoder, "layer_mask", _a_column_short, "size of tensor|mismatch|must match|expanded size"),
        (decoder, "layer_mask", _hiding_the_last, "leaving padding out of a layer changed an answer"),
        (decoder, "hear_reordering", _unheard, r"beams of 4 rows were reordered as \[\]"),
        (head_groups, "attend", _twice_as_much, "all groups of a layer's heads do not add up"),
    ],
)
def test_the_probe_finds_what_would_go_wrong(
    monkeypatch: pytest.MonkeyPatch, module: Any, name: str, broken: Callable[..., Any], fault: str
) -> None:
    monkeypatch.setattr(module, name, broken(getattr(module, name)))
    found = find_fault()
    assert found is not None
    assert pytest.raises(AssertionError, match=fault).matches(AssertionError(found)), found


def test_a_cache_by_a_third_name_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transformers_internals, "CACHE_NAMES", ("state",))
    assert "neither state names the cache" in str(find_fault())


@pytest.fixture
def release(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Pretend that another version of transformers is installed, in a process that has not asked for it yet."""
    transformers_version._find_fault.cache_clear()
    yield lambda version: monkeypatch.setattr(transformers_version, "_installed", lambda: version)
    transformers_version._find_fault.cache_clear()


@pytest.mark.parametrize("version", ["5.17.0", "5.23.1", "5.24.9"])
def test_a_tested_release_is_not_probed(
    release: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, full: AdaLlava, version: str
) -> None:
    release(version)
    monkeypatch.setattr(transformers_probe, "find_fault", lambda: pytest.fail("probed"))
    assert AdaLlava(full.base, full.processor).method == "full"


@pytest.mark.parametrize("version", ["5.25.0", "5.25.0.dev0", "6.0.0rc1", "5.16.3"])
def test_another_is_said_once_by_name_if_its_layers_run_as_known(
    release: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, full: AdaLlava, version: str
) -> None:
    release(version)
    monkeypatch.setattr(transformers_probe, "find_fault", lambda: None)
    said = rf"transformers {version} is not one of the versions .*tested with \(>=5\.17,<5\.25\).*pip install"
    with pytest.warns(UserWarning, match=said):
        AdaLlava(full.base, full.processor)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        AdaLlava(full.base, full.processor)


def test_another_whose_layers_run_otherwise_is_refused_at_every_loading(
    release: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
    full: AdaLlava,
    tiny_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    release("5.30.1")
    monkeypatch.setattr(decoder, "hear_reordering", lambda model, reorder: None)
    said = r"transformers 5\.30\.1 is not one of .*beams of 4 rows.*Install one.*\"transformers>=5\.17,<5\.25\""
    for _ in range(2):
        with pytest.raises(AdallavaError, match=said):
            AdaLlava(full.base, full.processor)
    asked = ["--model", str(tiny_folder), "--method", "uniform", "--token-budget", "0.5", "--device", "cpu"]
    assert main(["sweep", *asked, "--limit", "1", "--output", str(tmp_path / "run")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "transformers 5.30.1 is not one of the versions" in line
