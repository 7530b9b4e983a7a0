"""`adallava families` names every family, and what its class can do."""

import pytest

from adallava.cli.main import main
from adallava.families.overview import family_facts
from adallava.registry import family_names


def test_every_family_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["families"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in family_names())


def test_what_a_class_can_do() -> None:
    facts = {one.name: one for one in family_facts()}
    assert set(facts) == set(family_names())
    assert {"in-LLM methods, schedulers", "budget-token", "text tower", "downsample"} <= set(facts["llava"].abilities)
    assert not {"budget-token", "text tower"} & set(facts["qwen3_vl"].abilities)
    assert all(one.about and "\n" not in one.about for one in facts.values())


@pytest.mark.parametrize("width", ["40", "80", "115"])
def test_nothing_is_cut_on_a_narrow_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: str
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", width)
    assert main(["families"]) == 0
    printed = capsys.readouterr().out
    assert "…" not in printed
    assert all(name in printed for name in family_names())
