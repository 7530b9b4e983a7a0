"""A conversion that is ended from outside leaves nothing half written, and one that is done leaves what can answer."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from original_llava import llm_weights, write_clip, write_original

from adallava.cli.main import main
from adallava.conversion import from_llava as llava
from adallava.processors.stock_processor import AdaLlavaProcessor

pytestmark = pytest.mark.long


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    source = write_original(tmp_path / "source", llm_weights())
    clip = write_clip(tmp_path / "clip")
    return ["convert", str(source), "--vision-tower", str(clip), "--output", str(tmp_path / "stock")]


@pytest.mark.parametrize(
    ("number", "said"),
    [(signal.SIGTERM, "ended by SIGTERM; no partial output is left"), (signal.SIGINT, "interrupted")],
)
def test_a_signal_amid_the_weights_leaves_nothing(
    command: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: signal.Signals,
    said: str,
) -> None:
    written, save = [], llava.save_file

    def save_and_be_ended(part: Any, path: Path, **named: Any) -> None:
        save(part, path, **named)
        written.append(path)
        os.kill(os.getpid(), number)

    monkeypatch.setattr(llava, "save_file", save_and_be_ended)
    # In a shell's background Python starts with Ctrl-C ignored.
    ignored = signal.signal(signal.SIGINT, signal.default_int_handler)
    # Without the command's own handler the test is told, and not ended.
    before = signal.signal(signal.SIGTERM, lambda *_: pytest.fail("SIGTERM would have ended the process here"))
    try:
        code = main(command)
    except SystemExit as exit_:
        code = int(exit_.code or 0)
    finally:
        found = signal.signal(signal.SIGTERM, before)
        signal.signal(signal.SIGINT, ignored)
    assert code == 128 + number
    assert said in capsys.readouterr().err
    assert len(written) == 1, "the first shard was there"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip", "source"]
    assert getattr(found, "__name__", "") == "<lambda>", "the handler from before is back"


def test_a_folder_is_left_only_if_its_processor_loads_too(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def damaged(folder: Path, *_: Any) -> None:
        (folder / "tokenizer.json").write_text("{}")
        (folder / "preprocessor_config.json").write_text("{}")

    with monkeypatch.context() as patched:
        patched.setattr(llava, "save_processor", damaged)
        assert main(command) == 2
    assert "its vision tower make no whole model: cannot load the processor: " in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip", "source"]
    assert main(command) == 0
    assert AdaLlavaProcessor.from_pretrained(str(tmp_path / "stock")).tokenizer.pad_token == "<pad>"
