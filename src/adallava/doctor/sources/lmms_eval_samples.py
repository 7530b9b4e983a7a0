"""Load lmms-eval's `*_samples_<task>.jsonl` for the doctor. One file is one cell.

The budget is not in those lines. It is read from `model_args` in the `*_results.json` next to the file, else
from the path (`…/budget_0.5/…`), else it is unknown and checks that need it say so.
"""

import ast
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from adallava.budget import Latency, TokenBudget
from adallava.doctor.answers import Answer, AnswerCell, AnswerFile
from adallava.doctor.sources.lmms_eval_rows import Row, question_of, read_rows, responses_of, score_of
from adallava.doctor.tails import reflects
from adallava.errors import BudgetError, InputError
from adallava.records.regular_files import read_regular

_FILE_NAME = re.compile(r"^(?P<date>.*?)_?samples_(?P<task>.+)\.jsonl(\.gz)?$")
_BUDGET_IN_PATH = re.compile(r"budget[_=-]?(?P<budget>\d+(?:\.\d+)?%?)")
_BUDGET_KEYS = ("token_budget", "current_token_budget", "vision_token_budget")
_METHOD_KEYS = ("method", "token_selecting")
_CONFIG_KEYS = ("model", "gen_kwargs", "limit", "offset")
"""Of the results' `config`, besides `model_args`: what decides answers, or which samples there are."""

_NOT_SETUP = frozenset(
    (
        *(*_BUDGET_KEYS, *_METHOD_KEYS, "scheduler", "latency"),
        *("batch_size", "max_batch_size", "device", "device_map", "verbose", "max_empty_share"),
    )
)
"""Arguments that a cell's method and budget are read from, and those that decide no answer.

Two files that differ in any other differ in more than their budget: they are not compared.
"""

_NOT_METRICS = frozenset(
    (
        *("doc_id", "doc", "target", "arguments", "resps", "filtered_resps"),
        *("token_counts", "doc_hash", "input", "input_media"),
    )
)


@dataclass(frozen=True)
class _File:
    """A samples file: its lines, and what its name, its folder and the results next to it say of it."""

    relative: str
    task: str
    arguments: Mapping[str, str]
    budget: str | None
    rows: list[Row]

    @property
    def method(self) -> str | None:
        """The method, with `/<scheduler>@<latency>` after it where layers are left out."""
        method = _first(self.arguments, _METHOD_KEYS)
        return f"{method or 'model'}/{self.schedule}" if self.schedule else method

    @property
    def schedule(self) -> str:
        """`<scheduler>@<latency>`, or nothing."""
        scheduler, latency = self.arguments.get("scheduler"), self.arguments.get("latency", "1.0")
        return f"{scheduler or 'latency'}@{latency}" if scheduler or not _is_full_latency(latency) else ""

    def setup(self, keys: list[str]) -> str:
        """Write out some of the arguments."""
        return ",".join(f"{key}={self.arguments.get(key, '')}" for key in keys)


def samples_files(folder: Path) -> list[Path]:
    """The samples files of lmms-eval anywhere under `folder`."""
    return sorted(path for path in folder.rglob("*samples_*.jsonl*") if _FILE_NAME.match(path.name))


def load_lmms_eval(path: Path) -> AnswerFile:
    """Load one samples file, or every samples file under a folder (one a budget).

    Raises:
        InputError: if there is none, or a line is not lmms-eval's.
    """
    paths = samples_files(path) if path.is_dir() else [path]
    files = [_read_file(one, path if path.is_dir() else path.parent) for one in paths]
    differing = _differing_setup(files)
    names = [_short_name(file, file.setup(differing)) for file in files]
    # Two files of one task and budget are two runs: only their paths tell them apart.
    times = Counter((file.task, name) for file, name in zip(files, names, strict=True))
    cells = tuple(
        _to_cell(file, name if times[file.task, name] == 1 else file.relative, file.setup(differing))
        for file, name in zip(files, names, strict=True)
    )
    if not any(cell.answers for cell in cells):
        raise InputError(f"{path} holds no sample of lmms-eval: was it run with --log_samples?")
    return AnswerFile(source=str(path), form="lmms-eval", cells=cells)


def _differing_setup(files: Sequence[_File]) -> list[str]:
    """The arguments that set files apart; not the budget's own, under whatever name a wrapper takes it."""
    keys = dict.fromkeys(key for file in files for key in file.arguments if key not in _NOT_SETUP)
    return [
        key
        for key in keys
        if len({file.arguments.get(key) for file in files}) > 1
        and any(file.arguments.get(key) != file.budget for file in files)
    ]


def _short_name(file: _File, setup: str) -> str:
    if not file.budget:
        return file.relative
    method, _, schedule = (file.method or "model").partition("/")
    return f"{method}@{file.budget}" + (f"/{schedule}" if schedule else "") + (f" ({setup})" if setup else "")


def _read_file(path: Path, root: Path) -> _File:
    match = _FILE_NAME.match(path.name)
    rows, inside = read_rows(path)
    arguments = {**_parse_arguments(inside), **_arguments_beside(path, match["date"] if match else "")}
    return _File(
        relative=str(path.relative_to(root)),
        task=match["task"] if match else "",
        arguments=arguments,
        budget=_first(arguments, _BUDGET_KEYS) or _budget_in_path(path),
        rows=rows,
    )


def _budget_in_path(file: Path) -> str | None:
    # The folder nearest to the file was named for it; those above may be named for anything.
    matches = (_BUDGET_IN_PATH.search(part) for part in reversed(file.absolute().parts))
    return next((match["budget"] for match in matches if match), None)


def _first(arguments: Mapping[str, str], keys: tuple[str, ...]) -> str | None:
    return next((arguments[key] for key in keys if key in arguments), None)


def _arguments_beside(file: Path, date: str) -> dict[str, str]:
    """Return how a samples file was made, by the results file next to it; nothing if there is none."""
    results = file.with_name(f"{date}_results.json" if date else "results.json")
    if not results.exists():
        return {}
    try:
        config = json.loads(read_regular(results))["config"]
        said = {key: str(config[key]) for key in _CONFIG_KEYS if config.get(key) not in (None, "")}
        return {**said, **_parse_arguments(config["model_args"])}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{results} is not a results file of lmms-eval: {error!r}") from error


def _parse_arguments(arguments: object) -> dict[str, str]:
    if isinstance(arguments, Mapping):
        return {str(key): str(value) for key, value in arguments.items()}
    pairs = (part.partition("=") for part in str(arguments or "").split(","))
    return {key.strip(): value.strip() for key, _, value in pairs if value}


def _to_cell(file: _File, name: str, setup: str) -> AnswerCell:
    answers: list[Answer] = []
    for number, row in enumerate(file.rows, start=1):
        try:
            answers.extend(replace(one, cell=name, method=file.method) for one in _to_answers(row))
        except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
            raise InputError(f"{file.relative}, entry {number}: not a sample of lmms-eval ({error!r})") from error
    if _name_a_column(answers):
        answers = [replace(answer, targets=()) for answer in answers]
    return AnswerCell(
        label=name,
        task=file.task,
        method=file.method,
        budget=file.budget,
        full=_is_full(file.budget, file.arguments),
        answers=tuple(answers),
        setup=setup,
    )


def _name_a_column(answers: Sequence[Answer]) -> bool:
    """Say whether the lines name no right answers, but all of them the column that should hold those.

    VQAv2's task names one that its data lack, and lmms-eval then writes that name in every line. A word that the
    responses have to do with is the right answer to all of a slice, such as 'yes'.
    """
    targets = {answer.targets for answer in answers}
    if len(answers) < 2 or len(targets) > 1:
        return False
    (common,) = targets
    return len(common) == 1 and common[0].isidentifier() and not reflects(common[0], answers)


def _is_full(budget: str | None, arguments: Mapping[str, str]) -> bool | None:
    if not _is_full_latency(arguments.get("latency", "1.0")):
        return False
    if budget is None or "scheduler" in arguments:
        # Some schedulers add a token to every prompt, at the full latency too.
        return None
    try:
        parsed = TokenBudget.parse(budget)
    except BudgetError:
        return None
    # A count may or may not be all of N, and N is not in these files.
    return parsed.ratio == 1.0 if parsed.ratio is not None else None


def _is_full_latency(latency: str) -> bool:
    try:
        return Latency.parse(latency).is_full
    except BudgetError:
        return False


def _to_answers(row: Row) -> Iterator[Answer]:
    """Yield one answer for each time that a sample was asked."""
    counts = _token_counts(row.get("token_counts"))
    for draw, response in enumerate(responses_of(row)):
        yield Answer(
            cell="",
            sample_id=str(row["doc_id"]),
            draw=draw,
            question=question_of(row),
            targets=_targets(row.get("target")),
            response=response,
            score=score_of(row, _NOT_METRICS),
            prompt_length=counts.get("input_tokens"),
            answer_length=counts.get("output_tokens"),
        )


def _token_counts(value: object) -> dict[str, int]:
    first = value[0] if isinstance(value, list) and len(value) == 1 else value
    return first if isinstance(first, dict) else {}


def _targets(value: object) -> tuple[str, ...]:
    """lmms-eval writes `str(target)`, so a list of answers arrives as its repr."""
    text = str(value) if value is not None else ""
    if text.startswith("["):
        try:
            return tuple(str(item) for item in ast.literal_eval(text))
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            return (text,)
    return (text,) if text else ()
