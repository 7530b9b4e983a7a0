"""Empty answers, task by task, and whether so many pass: a score over empty answers is not a score."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

from adallava.errors import AdallavaError
from adallava.integrations.lmms_eval.answered import Answered
from adallava.records import EmptyCause

Outcomes = Counter[tuple[str, EmptyCause | None]]
"""Numbers of answers by task and cause of being empty, which is None for those with text."""

ENOUGH_TO_STOP = 100
"""Answers to a task after which a run may end before its last one: its message should tell how it looks."""


def outcomes_of(answers: Iterable[Answered]) -> Outcomes:
    """Count answers."""
    return Counter((answer.task, answer.empty_cause) for answer in answers)


def most_answers(num_requests: Mapping[str, int], repeats: int, world_size: int) -> dict[str, int]:
    """Return the most answers that all processes together may come to have, by task.

    lmms-eval gives documents to processes in turns: another process has at most one more of a task.

    Args:
        num_requests: of this process, by task.
        repeats: requests of one document.
        world_size: number of processes.
    """
    return {task: own + (world_size - 1) * (own + repeats) for task, own in num_requests.items()}


def check_empties(
    outcomes: Outcomes, max_share: float, most: Mapping[str, int] | None = None, *, enough: int = 1
) -> list[str]:
    """Hold each task's share of empty answers against the one that passes.

    Args:
        outcomes: of all answers, or of some of them.
        max_share: of empty answers that is let pass.
        most: if others are to come, the most answers that each task may come to have: a task then fails only if it will
            fail whatever these are, so that neither order nor number of processes decides.
        enough: answers below which a task is not judged.

    Returns:
        A line for each task with empty answers that passes.

    Raises:
        AdallavaError: if any task has too many.
    """
    by_task: dict[str, Outcomes] = defaultdict(Counter)
    for (task, cause), count in outcomes.items():
        by_task[task][task, cause] += count
    passed: list[str] = []
    failed: list[str] = []
    for task, own in by_task.items():
        num_answers, num_empty = own.total(), own.total() - own[task, None]
        if not num_empty or num_answers < enough:
            continue
        in_the_end = max(num_answers, (most or {}).get(task, 0))
        verdicts = failed if num_empty / in_the_end > max_share else passed
        so_far = " so far" if num_answers < in_the_end else ""
        causes = ", ".join(f"{count} {cause}" for (_, cause), count in own.items() if cause is not None)
        verdicts.append(f"{task}: {num_empty} of {num_answers} answers{so_far} are empty ({causes})")
    if failed:
        raise AdallavaError(
            f"{'; '.join(failed)}, more than the share of {max_share} that passes: their score would be no score. "
            "first-token-eos is a finding about the model at this budget; pass max_empty_share=1 to have its score "
            "all the same"
        )
    return passed
