"""What a command prints, wherever it goes: a terminal, a stream of another encoding, a reader that goes early."""

import io
import json
import logging
import os
import subprocess
import sys

import pytest
from rich.table import Table

from adallava.cli.console import make_console
from adallava.cli.streams import harmless, say_json, steady_streams

EVIL = "\x1b]0;PWN\x07\x1b[31mRED\x9b2J\u202e!"


def test_controls_become_the_signs_that_stand_for_them():
    assert harmless("a\tb\nc é 漢") == "a\tb\nc é 漢"
    assert harmless(EVIL) == "␛]0;PWN␇␛[31mRED\ufffd2J\ufffd!"
    assert harmless("\x7f") == "␡"


def test_a_table_of_a_colored_terminal_has_only_its_own_controls(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    console = make_console(width=80)
    console.file = io.StringIO()
    table = Table("column")
    table.add_row(EVIL)
    console.print(table)
    console.print(EVIL, markup=False, highlight=False, style="red")
    written = console.file.getvalue()
    assert "\x1b[" in written
    for bad in ("\x1b]0;", "\x07", "\x1b[31mRED", "\x9b", "\u202e"):
        assert bad not in written
    assert written.count("␛]0;PWN") == 2  # The bell between is taken out by rich itself.


def test_what_any_library_logs_is_harmless_too(logged):
    make_record = logging.getLogRecordFactory()
    with steady_streams():
        logging.getLogger("transformers").warning("a model of type %s", EVIL)
    assert [record.getMessage() for record in logged] == ["a model of type " + harmless(EVIL)]
    assert logging.getLogRecordFactory() is make_record


def test_json_reads_back_the_same(capsys):
    say_json(json.dumps({"text": EVIL}, ensure_ascii=False, indent=2))
    printed = capsys.readouterr().out
    assert "\x9b" not in printed
    assert json.loads(printed) == {"text": EVIL}


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_what_an_encoding_lacks_is_escaped(encoding, monkeypatch):
    bytes_out = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(bytes_out, encoding=encoding))
    with steady_streams():
        print("é 漢 \udcff")
    written = bytes_out.getvalue()
    assert written.startswith({"ascii": b"\\xe9", "latin-1": b"\xe9"}.get(encoding, "é".encode()))
    assert written.endswith(b"\\udcff\n")


def test_a_reader_that_has_gone_ends_nothing():
    read, write = os.pipe()
    os.close(read)
    code = (
        "import sys; from adallava.cli.streams import steady_streams\n"
        "with steady_streams():\n"
        "    print('x' * 100_000); print('more'); sys.stderr.write('went on')\n"
        "sys.exit(7)"
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (7, "went on")
