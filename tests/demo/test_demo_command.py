"""`adallava demo` before anything is loaded: what is missing or wrong is one line."""

import socket

import pytest

from adallava.cli import demo
from adallava.cli.main import main


@pytest.fixture(autouse=True)
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adallava.model.AdaLlava.from_pretrained", lambda *_, **__: pytest.fail("a model was loaded"))


def test_without_gradio_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "find_spec", lambda _: None)
    assert main(["demo"]) == 2
    said = capsys.readouterr().err
    assert said == "adallava demo: the demo needs Gradio, which is not installed: pip install 'adallava[demo]'\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--port", "70000"], "--port 70000 is not a port: give 1 to 65535"),
        (["--port", "http"], "'http' is not a whole number"),
        (["--max-new-tokens", "0"], "--max-new-tokens 0 leaves no answer"),
        (["--adapter", "question"], "--adapter 'question' is not METHOD=PATH"),
    ],
)
def test_mistakes_are_told_before_a_model_is_loaded(
    arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "find_spec", lambda _: object())
    assert main(["demo", *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_a_port_that_is_taken_is_told_before_a_model_is_loaded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "find_spec", lambda _: object())
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["demo", "--port", str(port)]) == 2
    assert f"cannot listen on 127.0.0.1:{port} (Address already in use): give another" in capsys.readouterr().err
    assert main(["demo", "--host", "999.0.0.1"]) == 2
    assert "cannot listen on 999.0.0.1:7860" in capsys.readouterr().err
