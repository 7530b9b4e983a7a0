from pathlib import Path

import pytest

from adallava.checkpoints import bundled
from adallava.errors import UnknownNameError


@pytest.fixture
def two_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("small", "tiny"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    (tmp_path / "unfinished").mkdir()
    monkeypatch.setattr(bundled, "_bundled_root", lambda: tmp_path)
    return tmp_path


def test_models_with_a_config_are_listed(two_models: Path) -> None:
    assert bundled.bundled_names() == ("small", "tiny")
    assert bundled.is_bundled("tiny")
    assert bundled.model_folder("tiny") == two_models / "tiny"


@pytest.mark.parametrize("name", ["unfinished", "Tiny", "../tiny", "", "./tiny"])
def test_another_name_is_answered_with_the_list(two_models: Path, name: str) -> None:
    assert not bundled.is_bundled(name)
    with pytest.raises(UnknownNameError, match="bundled are: small, tiny"):
        bundled.model_folder(name)


def test_an_installation_without_models_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundled, "_bundled_root", lambda: tmp_path / "absent")
    with pytest.raises(UnknownNameError, match="none in this installation"):
        bundled.model_folder("tiny")


def test_the_root_is_inside_the_package() -> None:
    import adallava

    assert bundled._bundled_root() == Path(adallava.__file__).parent / "bundled"
