"""A task of lmms-eval as a task of a sweep: its data, prompts and metrics under this project's journal and statistics.

lmms-eval loads the data, words the question, filters and scores the response, and aggregates the scores; it is asked
for each of these as its own evaluator asks (`lmms_eval.evaluator.evaluate`, 0.7.3).
"""

import copy
import difflib
import hashlib
import inspect
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from PIL import Image

from adallava.errors import InputError, UnsupportedModeError
from adallava.integrations.lmms_eval.generation import cut_at, generation_arguments, stop_strings
from adallava.runs.batches import describe_error
from adallava.tasks.images import as_rgb, open_rgb
from adallava.tasks.task import Task, TaskSample

_KIND_COLUMNS = ("answer_type", "category")
"""Columns that say what kind a question is: VQAv2's, and POPE's and MME's."""

_TRIAL_RESPONSE = "yes"
"""Scored once before anything runs, to see what the task's metrics look like."""


def load_lmms_task(
    name: str, *, limit: int | None = None, metric: str | None = None, include_path: Path | None = None
) -> Task:
    """Load the task `lmms:<name>`.

    Args:
        name: as for lmms-eval's `--tasks`.
        limit: take the first so many samples; None takes all.
        metric: of the task's metrics, the one that is the score, or several with `/` between, of which a sample's score
            is the first that it has; by default the first that gives each sample a number.
        include_path: folder with further tasks, as for lmms-eval's `--include_path`.

    Raises:
        InputError: if lmms-eval is not installed, has no such task, or cannot load its data.
        UnsupportedModeError: for a task that cannot be mapped, with the reason.
    """
    source = _load(name, include_path)
    _check_form(name, source)
    count = len(source.eval_docs_no_media) if limit is None else min(limit, len(source.eval_docs_no_media))
    asked = generation_arguments(source.config.generation_kwargs or {})
    extra = {key: value for key, value in asked.items() if (key, value) not in _GREEDY and key != "max_new_tokens"}
    if extra:
        raise UnsupportedModeError(f"task lmms:{name} asks for {extra}: a sweep answers greedily")
    samples = tuple(_sample(source, place) for place in range(count))
    _check_shown(samples[0])
    stops = stop_strings(source.config.generation_kwargs or {})
    numbers = _default_metrics(name, source)
    scoring = _Scoring(source, numbers if metric is None else tuple(metric.split("/")), stops)
    scoring.score(samples[0], _TRIAL_RESPONSE)
    return Task(
        name=f"lmms:{name}",
        samples=samples,
        split=source.config.test_split or source.config.validation_split,
        sha256=_sha256(samples, asked),
        hash_samples=partial(_sha256, asked=asked),
        columns={},
        metric="/".join(scoring.metrics),
        score=scoring.score,
        max_new_tokens=int(asked["max_new_tokens"]),
        aggregate=scoring.aggregate,
    )


_GREEDY = (("do_sample", False), ("num_beams", 1))


def _load(name: str, include_path: Path | None) -> Any:
    try:
        from lmms_eval.tasks import TaskManager, get_task_dict
    except ModuleNotFoundError as error:
        raise InputError(
            f"task lmms:{name} needs lmms-eval, and {error.name} is not installed: docs/how_to/lmms_eval.md says how "
            "to install it without another torch"
        ) from error
    if include_path is not None and not include_path.is_dir():
        raise InputError(f"--include-path {include_path} is not a folder")
    with _quiet():
        known = TaskManager("ERROR", include_path=None if include_path is None else str(include_path))
        if name not in known.all_subtasks:
            raise InputError(_unknown_task(name, known, include_path))
        try:
            loaded = get_task_dict([name], known, "chat")[name]
        except Exception as error:  # whatever a task's code and the loading of its data may raise
            raise InputError(f"lmms-eval cannot load task {name}: {_reason(error)}") from error
    return loaded


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep lmms-eval's notes about every task it knows out of a sweep's display."""
    from loguru import logger

    logger.disable("lmms_eval")
    try:
        yield
    finally:
        logger.enable("lmms_eval")


def _unknown_task(name: str, known: Any, include_path: Path | None) -> str:
    if name in known.all_tasks:
        return f"lmms-eval's {name!r} is a group of tasks: sweep one of them, each into a folder of its own"
    close = difflib.get_close_matches(name, known.all_subtasks, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    own = "" if include_path is not None else ", and --include-path DIR adds your own"
    return f"lmms-eval has no task {name!r}: {hint}`python -m lmms_eval --tasks list` lists them{own}"


def _check_form(name: str, source: Any) -> None:
    reasons = {
        f"it is scored by {source.OUTPUT_TYPE}, and only generate_until can be answered": (
            source.OUTPUT_TYPE != "generate_until"
        ),
        f"it shows {source.config.num_fewshot} examples before the question": bool(source.config.num_fewshot),
        f"it scores {len(source._filters)} readings of every response": len(source._filters) != 1,
        "it has a description before the question, which lmms-eval's chat models are not given": bool(
            source.config.description
        ),
    }
    for reason, applies in reasons.items():
        if applies:
            raise UnsupportedModeError(f"task lmms:{name} cannot be swept: {reason}")


def _sample(source: Any, place: int) -> TaskSample:
    doc = source.eval_docs_no_media[place]
    try:
        question = source.doc_to_text(doc)
        answers = _answer_texts(doc.get("answers") or source.doc_to_target(doc))
    except Exception as error:  # a task's own code, on data of its own
        raise InputError(
            f"task lmms:{source.config.task} makes no question for doc {place}: {_reason(error)}"
        ) from error
    if not isinstance(question, str):
        raise UnsupportedModeError(f"task lmms:{source.config.task} makes no question: doc {place} gives {question!r}")
    kinds = (doc.get(column) for column in _KIND_COLUMNS)
    return TaskSample(
        id=str(place),
        question=_writable(question),
        answers=answers,
        kind=next((kind for kind in kinds if isinstance(kind, str)), None),
        load_images=partial(_load_images, source, place, question),
    )


def _answer_texts(value: Any) -> tuple[str, ...]:
    """Return the answers that are shown next to a response, whatever their types: lmms-eval scores by its own."""
    values = value if isinstance(value, list) else [value]
    texts = (item.get("answer") if isinstance(item, dict) else item for item in values)
    return tuple(_writable(str(text)) for text in texts if text is not None)


def _writable(text: str) -> str:
    return text.encode(errors="replace").decode()


def _check_shown(sample: TaskSample) -> None:
    try:
        sample.load_images()
    except UnsupportedModeError:  # the task is one that cannot be swept
        raise
    except Exception:  # one image that cannot be read: its sample fails alone, when it is asked
        return


def _load_images(source: Any, place: int, question: str) -> tuple[Image.Image, ...]:
    """Return the images of a sample, if its messages are those and then the question."""
    messages = source.doc_to_messages(source.eval_docs[place])
    content = messages[0]["content"] if len(messages) == 1 else []
    kinds = [part["type"] for part in content]
    if kinds != ["image"] * max(1, len(kinds) - 1) + ["text"] or content[-1]["text"] != question:
        shown = ", ".join(part["type"] for message in messages for part in message["content"])
        raise UnsupportedModeError(
            f"doc {place} of task lmms:{source.config.task} is shown as {shown}: only images and then the "
            "question can be swept; `python -m lmms_eval --model adallava` takes conversations"
        )
    return tuple(_read(part["url"]) for part in content[:-1])


def _read(picture: Any) -> Image.Image:
    return as_rgb(picture) if isinstance(picture, Image.Image) else open_rgb(Path(picture))


def _default_metrics(name: str, source: Any) -> tuple[str, ...]:
    """Return the first metric that gives a sample a number, and those that the sample lacks: MME's have one each."""
    doc = copy.deepcopy(source.eval_docs_no_media[0])
    try:
        results = source.process_results(doc, [_filtered(source, 0, _TRIAL_RESPONSE)])
    except Exception as error:  # a task's own code, which may want files, a network or a judge
        raise UnsupportedModeError(f"task lmms:{name} cannot score a response here: {_reason(error)}") from error
    numbers = [metric for metric, value in results.items() if _number(value) is not None]
    ordered = [metric for metric in source.aggregation() if metric in numbers]
    if not ordered:
        raise UnsupportedModeError(
            f"task lmms:{name} gives a sample no number, only {', '.join(results) or 'nothing'}: there is nothing to "
            "compare sample by sample"
        )
    return tuple(metric for metric in source.aggregation() if metric == ordered[0] or metric not in results)


def _reason(error: Exception) -> str:
    # lmms-eval tries several times, and then says only that it did.
    return describe_error(error.__cause__ if isinstance(error.__cause__, Exception) else error)


def _filtered(source: Any, place: int, response: str) -> Any:
    from lmms_eval.api.instance import Instance

    about = {"task": source.config.task, "doc_id": place, "repeats": 1}
    request = Instance(request_type="generate_until", arguments=("",), idx=0, metadata=about, resps=[response])
    (ensemble,) = source._filters
    ensemble.apply([request], None)
    return request.filtered_resps[ensemble.name]


def _number(value: object) -> float | None:
    """Return a metric's number: itself, or the `score` of what is kept for aggregation, as POPE and MME do."""
    if isinstance(value, Mapping):
        value = value.get("score")
    return float(value) if isinstance(value, int | float) else None


@dataclass(frozen=True)
class _Scoring:
    """How lmms-eval scores responses to a task: sample by sample, and all together."""

    source: Any
    metrics: tuple[str, ...]
    stops: tuple[str, ...]

    def results(self, sample_id: str, response: str) -> Mapping[str, Any]:
        """Return all metrics of one response."""
        place = int(sample_id)
        # Some metrics rewrite the document that they are given.
        doc = copy.deepcopy(self.source.eval_docs_no_media[place])
        results: Mapping[str, Any] = self.source.process_results(
            doc, [_filtered(self.source, place, cut_at(response, self.stops))]
        )
        return results

    def score(self, sample: TaskSample, response: str) -> float:
        """Return the first of the chosen metrics that the sample has.

        Raises:
            InputError: if it gives no number in [0, 1].
        """
        results = self.results(sample.id, response)
        metric = next((metric for metric in self.metrics if metric in results), self.metrics[0])
        value = _number(results.get(metric))
        if value is None:
            numbers = [name for name, one in results.items() if _number(one) is not None]
            raise InputError(
                f"metric {metric} gives sample {sample.id} of {self.source.config.task} no number; those that do: "
                f"{', '.join(numbers) or 'none'}"
            )
        if not 0.0 <= value <= 1.0:
            raise InputError(f"metric {metric} is {value} for sample {sample.id}: a score lies in [0, 1]")
        return value

    def aggregate(self, responses: Mapping[str, str]) -> dict[str, float | None]:
        """Return lmms-eval's figures over responses by sample id; None for one that fails on them."""
        collected: dict[str, list[Any]] = {}
        for sample_id, response in responses.items():
            for metric, value in self.results(sample_id, response).items():
                collected.setdefault(metric, []).append(value)
        figures = {}
        for metric, aggregate in self.source.aggregation().items():
            # Those that want the command line's arguments write a file to hand in.
            if metric in collected and "args" not in inspect.signature(aggregate).parameters:
                figures[metric] = _figure(aggregate, collected[metric])
        return figures


def _figure(aggregate: Any, values: list[Any]) -> float | None:
    try:
        return _number(aggregate(values))
    except Exception:  # such as a share over no cases, on a few samples
        return None


def _sha256(samples: tuple[TaskSample, ...], asked: Mapping[str, Any]) -> str:
    """Hash what decides prompts and scores: the texts, the generation, lmms-eval's version. Not the images."""
    texts = [[sample.id, sample.question, list(sample.answers)] for sample in samples]
    content = [version("lmms-eval"), dict(sorted(asked.items())), texts]
    return hashlib.sha256(json.dumps(content, default=str).encode()).hexdigest()
