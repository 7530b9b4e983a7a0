"""What the page asks for, from the values of its controls to HTML. A mistake is one line on the page."""

import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from typing import ParamSpec

from adallava.budget import Latency, TokenBudget
from adallava.demo.answer_cards import cards_html, choice_html, notice_html
from adallava.demo.served_model import Answer, ServedModel
from adallava.demo.uploads import read_budgets, read_question
from adallava.errors import AdallavaError, InputError, in_short

EVERY_LAYER = "every layer runs"
"""Stands for no scheduler."""

MAX_METHODS = 6
"""That one click compares."""

Files = Sequence[tuple[str, str | None]] | None
"""Of a gallery: paths and captions; None for no image."""

P = ParamSpec("P")


def _in_one_line(work: Callable[P, Iterator[str]]) -> Callable[P, Iterator[str]]:
    """Turn whatever goes wrong into a line of the page; of what is nobody's mistake, the server's log has the rest."""

    @wraps(work)
    def told(*args: P.args, **kwargs: P.kwargs) -> Iterator[str]:
        """Do the work; what goes wrong is shown on the page."""
        try:
            yield from work(*args, **kwargs)
        except AdallavaError as error:
            yield notice_html(str(error))
        except Exception as error:  # a page has no other place for it, and the next visitor is to be served
            traceback.print_exc(file=sys.stderr)
            yield notice_html(f"The server failed; its log says more: {in_short(error)}")

    return told


@_in_one_line
def show_choice(served: ServedModel, files: Files, question: str, method: str, percent: float) -> Iterator[str]:
    """Give the patches that a budget keeps."""
    if not files:
        yield notice_html("Drop an image, or choose an example.")
        return
    yield choice_html(served.choose(_paths(files), read_question(question), method, _share(percent)))


@_in_one_line
def show_answers(
    served: ServedModel,
    files: Files,
    question: str,
    scheduler: str,
    latency_percent: float,
    percent: float,
    method: str,
    others: str,
) -> Iterator[str]:
    """Give the answers of one method at several budgets, one more each time; one for budgets of as many tokens."""
    asked, paths = read_question(question), _paths(files)
    layers = _layers(scheduler, latency_percent)
    answers: list[Answer] = []
    for budget in read_budgets(_share(percent), others):
        if any(
            budget.resolve(ran.num_vision_tokens) == ran.tokens_asked for ran in (one.result.ran for one in answers)
        ):
            continue
        answers.append(served.answer(paths, asked, method, budget, *layers))
        yield cards_html(asked, answers)


@_in_one_line
def show_methods(
    served: ServedModel,
    files: Files,
    question: str,
    scheduler: str,
    latency_percent: float,
    percent: float,
    methods: Sequence[str],
) -> Iterator[str]:
    """Give the answers of several methods at one budget, one more each time."""
    asked, paths, budget = read_question(question), _paths(files), _share(percent)
    if not methods:
        raise InputError("no method is chosen: choose one or several to compare")
    if len(methods) > MAX_METHODS:
        raise InputError(f"{len(methods)} methods are too many: compare {MAX_METHODS} at most")
    layers = _layers(scheduler, latency_percent)
    answers: list[Answer] = []
    for method in methods:
        answers.append(served.answer(paths, asked, method, budget, *layers))
        yield cards_html(asked, answers, by_method=True)


def least_percent(served: ServedModel, scheduler: str) -> int:
    """Return the smallest percentage of the layers that a scheduler can give; 100 for none."""
    return 100 if scheduler == EVERY_LAYER else -int(-100 * served.least_latency(scheduler) // 1)


def _paths(files: Files) -> tuple[str, ...]:
    return tuple(path for path, _ in files or ())


def _share(percent: float) -> TokenBudget:
    return TokenBudget.parse(f"{percent}%")


def _layers(scheduler: str, percent: float) -> tuple[str, Latency] | tuple[None, None]:
    """Return scheduler and latency; neither where every layer runs."""
    latency = Latency.parse(f"{percent}%")
    return (None, None) if scheduler == EVERY_LAYER or latency.is_full else (scheduler, latency)
