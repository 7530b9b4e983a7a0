"""Command lines: every one ends with 0 or 1, or with 2, one line on stderr and no work done; never with a traceback."""

import argparse
import contextlib
import io
import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from fuzzing import SECONDS_EACH, fuzz, judge
from hypothesis import strategies as st
from models import tiny_image
from mutations import ODD_TEXTS

from adallava import AdaLlava
from adallava.cli.main import build_parser, main
from adallava.errors import InputError

_MOST_CALLS = 40
_FOREWORD = re.compile("(checking|method) |(.*: )?(CAUTION|ALARM): ")
"""Lines that may come before the refusal's: what a diagnosis does, and what is to be said of the run in any case."""

_VALUES = (
    *(text for text in ODD_TEXTS if not text.startswith("/")),
    "/proc/nothing/x", "-1", "0", "1", "2", "3", "1.5", "0.5", "1e3", str(2**31 - 1), str(2**31), str(2**63),
    str(2**64),
    "9" * 29, "-9", "1,2", ",", "all", "none", "0.25,64", "0%", "50%", "random.power=2", "question=adapters",
    "mmtok.alpha=nan",
    "pool=x", "a=b", "a.b=c", "num_beams=4", "num_beams=-1", "temperature=NaN", "do_sample=true", "max_length=1e9",
    "eos_token_id=[[]]", "bad_words_ids=[]", "cpu", "cuda:99", "meta", "cpu:7", "mps", "float64", "fixed.plans=4+6",
    "fixed.plans=+", "first", "spaced", "layers", "random", "uniform", "fastv", "pool", "full", "none", "question",
    "lmms:x", "scenes", "data/q.jsonl", "data", "data/red.png", "run", "tiny/question", "recipe.toml", "h100-sxm",
    "compact",
    "{}", "[]", "--", "-", "=", "--output", "٣", "vqa", "exact-match", "validation", "answer", "question", "1_0",
    "+1", " 1 ",
)  # fmt: skip

_VALID: dict[str, str] = {
    "sweep": "--model model --task data/q.jsonl --method random --token-budget 8 --draws 1 --no-report --output new "
    "--max-new-tokens 1",
    "generate": "--model model --image data/red.png --question ? --method random --token-budget 8 --no-image "
    "--max-new-tokens 1",
    "bench": "--model model --method random --token-budget 8 --text-tokens 8 --new-tokens 2 --repeats 1 --warm-ups 0 "
    "--seconds 0 --output new",
    "report": "run --output page.html --pictures 1",
    "compare": "run run",
    "doctor": "run",
    "train": "recipe.toml --model model --data data/q.jsonl --output trained",
    "convert": "data --vision-tower model --output converted",
}

FINDINGS = {"a name of thousands of characters": ["generate", *_VALID["generate"].split(), "--model", "9" * 5000]}
"""Command lines that broke a rule, by what is odd in them."""


def _options(command: str) -> list[argparse.Action]:
    parser = build_parser([command])
    commands = next(one for one in parser._actions if isinstance(one, argparse._SubParsersAction))
    return [one for one in commands.choices[command]._actions if not isinstance(one, argparse._HelpAction)]


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    command = draw(st.sampled_from((*("sweep",) * 4, *("generate",) * 2, *_VALID)))
    words = _VALID[command].split()
    options = _options(command)
    for _ in range(draw(st.integers(0, 3))):
        option = draw(st.sampled_from(options))
        values = _VALUES + tuple(map(str, option.choices or ()))
        taken = 0 if option.nargs == 0 else draw(st.sampled_from((1, 1, 1, 1, 1, 2, 0)))
        value = [draw(st.one_of(st.sampled_from(values), st.text(max_size=4))) for _ in range(taken)]
        words = [*words, *option.option_strings[-1:], *value]
    for _ in range(draw(st.sampled_from((0, 0, 0, 1)))):
        place = draw(st.integers(0, len(words) - 1))
        words[place : place + 1] = draw(st.sampled_from(([], [words[place]] * 2, [draw(st.sampled_from(_VALUES))])))
    return [command, *words]


def check(calls: list[int], folder: Path, argv: list[str]) -> None:
    """Run a command line in its folder; what it says on stderr as it refuses is the error's words."""
    work = folder / "a" / "b"
    for made in ("new", "trained", "converted", "page.html"):
        shutil.rmtree(work / made, ignore_errors=True)
    calls[0] = 0
    out, err = io.StringIO(), io.StringIO()
    try:
        with contextlib.chdir(work), redirect_stdout(out), redirect_stderr(err):
            code = main(argv)
    except SystemExit as ended:  # --help and --version
        code = ended.code
    except _EnoughError:
        return
    said = err.getvalue()
    assert "Traceback" not in said + out.getvalue()
    assert code in (0, 1, 2), code
    if code == 2:
        lines = [line for line in said.splitlines() if not _FOREWORD.match(line)]
        assert [line.partition(" ")[0].rstrip(":") for line in lines] == ["adallava"], said
        assert calls[0] == 0 or argv[0] == "doctor", f"refused after {calls[0]} answers: {said}"
        assert not (work / "new" / "samples.jsonl").exists(), said
        raise InputError(lines[0])


class _EnoughError(BaseException):
    """Ends what would go on for hours, as asked for: no error handler on the way keeps it."""


@pytest.fixture(scope="module")
def calls() -> Iterator[list[int]]:
    """Count the answers, each of at most two tokens; after some of them the command line has shown that it runs.

    So it has after a few steps of training.
    """
    from transformers import Trainer

    number, generate, step = [0], AdaLlava.generate, Trainer.training_step

    def trained(self: Any, *args: Any, **options: Any) -> Any:
        if self.state.global_step >= 2:
            raise _EnoughError
        return step(self, *args, **options)

    def counted(self: AdaLlava, *args: Any, **options: Any) -> Any:
        number[0] += 1
        if number[0] > _MOST_CALLS:
            raise _EnoughError
        if isinstance(options.get("max_new_tokens"), int):
            options["max_new_tokens"] = min(options["max_new_tokens"], 2)
        return generate(self, *args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AdaLlava, "generate", counted)
        patch.setattr(Trainer, "training_step", trained)
        yield number


_RECIPE = """\
stage = "question"
questions_per_image = 1
first_scene = 3
samples_per_question = 2
spread_weight = 0.01

[keep]
keep_counts = [8]

[selector]
width = 8
question_width = 8
film_width = 8
match_width = 8

[optimisation]
steps = 1
batch_size = 1
learning_rate = 1e-4
warmup_steps = 0
weight_decay = 0.0
"""


@pytest.fixture(scope="module")
def module_patch() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def folder(module_patch: pytest.MonkeyPatch, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder whose `a/b` holds a model, a task and a recipe."""
    whole = tmp_path_factory.mktemp("arguments")
    work = whole / "a" / "b"
    (work / "data").mkdir(parents=True)
    module_patch.setattr(tempfile, "tempdir", str(whole))
    shutil.copytree(tiny_folder, work / "model")
    tiny_image().save(work / "data" / "red.png")
    rows = [{"id": str(n), "image": "red.png", "question": "what is it?", "answers": ["red"]} for n in range(2)]
    (work / "data" / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (work / "recipe.toml").write_text(_RECIPE)
    return whole


@pytest.fixture(scope="module")
def with_run(folder: Path) -> Path:
    """Return the folder once `a/b/run` is a finished run."""
    with contextlib.chdir(folder / "a" / "b"), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        assert main(["sweep", *_VALID["sweep"].replace("--output new", "--output run").split()]) in (0, 1)
    return folder


@pytest.mark.parametrize("name", FINDINGS)
def test_command_lines_that_failed_once(name: str, calls: list[int], folder: Path) -> None:
    judge(partial(check, calls, folder), FINDINGS[name], folder)


@pytest.mark.long
@pytest.mark.parametrize("command", ["sweep", "generate", "bench", "report", "compare", "doctor", "train"])
def test_a_valid_command_line_runs(command: str, calls: list[int], with_run: Path) -> None:
    assert judge(partial(check, calls, with_run), [command, *_VALID[command].split()], with_run) is None


@pytest.mark.long
@pytest.mark.timeout(SECONDS_EACH + 120)
def test_fuzz_arguments(calls: list[int], with_run: Path) -> None:
    fuzzed = partial(check, calls, with_run)
    tally = fuzz("command lines", command_lines(), fuzzed, with_run, findings=len(FINDINGS), at_once=50)
    assert tally.answered
    assert tally.refused
