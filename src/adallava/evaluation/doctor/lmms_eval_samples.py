"""Load lmms-eval's `*_samples_<task>.jsonl` for the doctor. One file is one cell.

The budget is not in those lines. It is read from `model_args` in the `*_results.json` beside the file, else
from the path (`…/budget_0.5/…`), else it is unknown and checks that need it say so.
"""

import ast
import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from adallava.budget import TokenBudget
from adallava.errors import BudgetError, InputError

from .answers import Answer, AnswerCell, AnswerFile

_FILE_NAME = re.compile(r"^(?P<date>.*?)_?samples_(?P<task>.+)\.jsonl$")
_BUDGET_IN_PATH = re.compile(r"budget[_=-]?(?P<budget>\d+(?:\.\d+)?%?)")
_BUDGET_KEYS = ("token_budget", "current_token_budget", "vision_token_budget")
_METHOD_KEYS = ("method", "token_selecting")
_NOT_METRICS = frozenset(
    (
        *("doc_id", "doc", "target", "arguments", "resps", "filtered_resps"),
        *("token_counts", "doc_hash", "input", "input_media"),
    )
)


@dataclass(frozen=True)
class _FileLabel:
    """A samples file, and what its name and folder say of it."""

    path: Path
    relative: str
    task: str
    method: str | None
    budget: str | None

    @property
    def short(self) -> str:
        """Name of the cell; of the file, where nothing names a budget."""
        return f"{self.method or 'model'}@{self.budget}" if self.budget else self.relative


def samples_files(folder: Path) -> list[Path]:
    """The samples files of lmms-eval anywhere under `folder`."""
    return sorted(path for path in folder.rglob("*samples_*.jsonl") if _FILE_NAME.match(path.name))


def load_lmms_eval(path: Path) -> AnswerFile:
    """Load one samples file, or every samples file under a folder (one a budget).

    Raises:
        InputError: if there is none, or a line is not lmms-eval's.
    """
    files = samples_files(path) if path.is_dir() else [path]
    labels = [_label(file, path if path.is_dir() else path.parent) for file in files]
    # Two files of one task and budget are two runs: only their paths tell them apart.
    times = Counter((label.task, label.short) for label in labels)
    cells = []
    for label in labels:
        name = label.short if times[label.task, label.short] == 1 else label.relative
        cells.append(_read_cell(label, name))
    if not any(cell.answers for cell in cells):
        raise InputError(f"{path} holds no sample of lmms-eval: was it run with --log_samples?")
    return AnswerFile(source=str(path), form="lmms-eval", cells=tuple(cells))


def _label(file: Path, root: Path) -> _FileLabel:
    match = _FILE_NAME.match(file.name)
    arguments = _model_arguments(file, match["date"] if match else "")
    budget = _first(arguments, _BUDGET_KEYS) or _budget_in_path(file)
    return _FileLabel(
        path=file,
        relative=str(file.relative_to(root)),
        task=match["task"] if match else "",
        method=_first(arguments, _METHOD_KEYS),
        budget=budget,
    )


def _budget_in_path(file: Path) -> str | None:
    # The folder nearest to the file was named for it; those above may be named for anything.
    matches = (_BUDGET_IN_PATH.search(part) for part in reversed(file.absolute().parts))
    return next((match["budget"] for match in matches if match), None)


def _first(arguments: Mapping[str, str], keys: tuple[str, ...]) -> str | None:
    return next((arguments[key] for key in keys if key in arguments), None)


def _model_arguments(file: Path, date: str) -> dict[str, str]:
    results = file.with_name(f"{date}_results.json" if date else "results.json")
    if not results.exists():
        return {}
    try:
        arguments = json.loads(results.read_text(encoding="utf-8"))["config"]["model_args"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{results} is not a results file of lmms-eval: {error!r}") from error
    if isinstance(arguments, Mapping):
        return {str(key): str(value) for key, value in arguments.items()}
    pairs = (part.partition("=") for part in str(arguments or "").split(","))
    return {key.strip(): value.strip() for key, _, value in pairs if value}


def _read_cell(label: _FileLabel, name: str) -> AnswerCell:
    answers = []
    with label.path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                answers.append(replace(_to_answer(row), cell=name, method=label.method))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise InputError(f"{label.path}, line {number}: not a samples line of lmms-eval ({error!r})") from error
    if len(answers) > 1 and len({answer.targets for answer in answers}) == 1:
        # VQAv2's task names a column that its data lack, and lmms-eval then writes that name in every line.
        answers = [replace(answer, targets=()) for answer in answers]
    return AnswerCell(
        label=name,
        task=label.task,
        method=label.method,
        budget=label.budget,
        full=_is_full(label.budget),
        answers=tuple(answers),
    )


def _is_full(budget: str | None) -> bool | None:
    if budget is None:
        return None
    try:
        parsed = TokenBudget.parse(budget)
    except BudgetError:
        return None
    # A count may or may not be all of N, and N is not in these files.
    return parsed.ratio == 1.0 if parsed.ratio is not None else None


def _to_answer(row: dict[str, Any]) -> Answer:
    counts = _token_counts(row.get("token_counts"))
    prompt = row.get("input")
    return Answer(
        cell="",
        sample_id=str(row["doc_id"]),
        question=prompt if isinstance(prompt, str) else None,
        targets=_targets(row.get("target")),
        response=_text(row["filtered_resps"]),
        score=_score(row),
        prompt_length=counts.get("input_tokens"),
        answer_length=counts.get("output_tokens"),
    )


def _token_counts(value: object) -> dict[str, int]:
    first = value[0] if isinstance(value, list) and len(value) == 1 else value
    return first if isinstance(first, dict) else {}


def _text(value: object) -> str:
    """The first response; older versions nest it in one or two lists."""
    while isinstance(value, list):
        value = value[0] if value else ""
    return str(value)


def _targets(value: object) -> tuple[str, ...]:
    """lmms-eval writes `str(target)`, so a list of answers arrives as its repr."""
    text = str(value) if value is not None else ""
    if text.startswith("["):
        try:
            return tuple(str(item) for item in ast.literal_eval(text))
        except (ValueError, SyntaxError):
            return (text,)
    return (text,) if text else ()


def _score(row: Mapping[str, Any]) -> float | None:
    numbers = (value for key, value in row.items() if key not in _NOT_METRICS)
    return next((float(value) for value in numbers if isinstance(value, int | float)), None)
