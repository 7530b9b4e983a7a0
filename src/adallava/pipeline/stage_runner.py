"""How the stages before the LLM are run: as they are, or by an engine that replays them; and what they share."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from adallava.families.family_contract import Family, VisionFeatures
from adallava.pipeline.clock import StageClock
from adallava.pipeline.wording import Language

T = TypeVar("T")


class Stages(Protocol):
    """Runs one stage's work on tensors."""

    def tower_of(self, family: Family) -> Family:
        """Return the family as its tower is to run: with the same model and the same features, up to rounding."""
        ...

    def run(self, owner: object, name: str, work: Callable[..., T], *args: object) -> T:
        """Return `work(*args)`.

        Args:
            owner: whose work it is: a model, a method. Its weights and its options decide what it does.
            name: of the stage, for one owner.
            work: a function of `args`, and of the owner's own state, alone.
            args: tensors, numbers, names, and dataclasses and tuples of them. What is not a tensor decides what is
                done; tensors only what it is done with.
        """
        ...


class PlainStages:
    """Runs everything as it is."""

    def tower_of(self, family: Family) -> Family:
        """Return the family."""
        return family

    def run(self, owner: object, name: str, work: Callable[..., T], *args: object) -> T:
        """Return `work(*args)`; see `Stages.run`."""
        return work(*args)


PLAIN = PlainStages()


@dataclass(frozen=True)
class StageContext:
    """What the stages of one call share, next to its request.

    Attributes:
        language: for methods that read the question's words.
        vision: the tower's output, if it ran already.
        clock: told when the parts "vision", "selector" and "projector" end; None for a call that nobody times.
        stages: runs the tower, the choice and the projector.
    """

    language: Language | None = None
    vision: VisionFeatures | None = None
    clock: StageClock | None = None
    stages: Stages = PLAIN

    def mark(self, part: str) -> None:
        """Say that a part ends now."""
        if self.clock is not None:
            self.clock.mark(part)
