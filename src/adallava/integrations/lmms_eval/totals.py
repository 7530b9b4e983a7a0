"""What is known about all answers of a run together, over all of its processes."""

import functools
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace

import torch.distributed as dist

from adallava.integrations.lmms_eval.answered import Answered
from adallava.integrations.lmms_eval.empty_answers import Outcomes, outcomes_of
from adallava.records import SeenPictures


@dataclass(frozen=True)
class Totals:
    """Sums over answers.

    Attributes:
        outcomes: how many, by task and cause of being empty.
        new_tokens: generated, EOS included.
        vision_tokens: before any was dropped.
        tokens_kept: of these.
        prompt_tokens: that entered the LLM, vision tokens included.
        seen_shares: how many images the model saw so much of, counted once an answer.
        seconds: that answering took, of several processes the longest.
    """

    outcomes: Outcomes = field(default_factory=Counter)
    new_tokens: int = 0
    vision_tokens: int = 0
    tokens_kept: int = 0
    prompt_tokens: int = 0
    seen_shares: Counter[float] = field(default_factory=Counter)
    seconds: float = 0.0

    @classmethod
    def of(cls, answers: Sequence[Answered], seconds: float, seen_shares: Iterable[float] = ()) -> "Totals":
        """Return the sums over answers that took so many seconds, with such shares of their images seen."""
        return cls(
            outcomes=outcomes_of(answers),
            new_tokens=sum(answer.ran.answer_length for answer in answers),
            vision_tokens=sum(answer.ran.num_vision_tokens for answer in answers),
            tokens_kept=sum(answer.ran.tokens_kept for answer in answers),
            prompt_tokens=sum(answer.ran.prompt_length for answer in answers),
            seen_shares=Counter(seen_shares),
            seconds=seconds,
        )

    def then(self, later: "Totals") -> "Totals":
        """Return the sums of these and of others that were answered afterwards."""
        return Totals(**{one.name: getattr(self, one.name) + getattr(later, one.name) for one in fields(self)})

    @property
    def seen(self) -> SeenPictures | None:
        """How much of the images the model saw; None where it is not known."""
        return SeenPictures.of(list(self.seen_shares.elements()))

    @property
    def answers(self) -> int:
        """How many there are."""
        return self.outcomes.total()

    def metrics(self) -> dict[str, float]:
        """Return the means over the answers, and the counts, as results.json names them."""
        return {
            "mean_num_vision_tokens": self.vision_tokens / self.answers,
            "mean_tokens_kept": self.tokens_kept / self.answers,
            "mean_prompt_length": self.prompt_tokens / self.answers,
            "num_answers": self.answers,
            "num_empty": sum(count for (_, cause), count in self.outcomes.items() if cause is not None),
        }


def over_processes(own: Totals) -> Totals:
    """Return the sums over all processes of a launch. Each of them has to call this, and waits for the others."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return own
    shares: list[Totals] = [own] * dist.get_world_size()
    dist.all_gather_object(shares, own)
    sums = functools.reduce(Totals.then, shares)
    return replace(sums, seconds=max(share.seconds for share in shares))
