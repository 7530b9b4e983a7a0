"""What most methods have in common, so that a method's class says only what is its own."""

from typing import ClassVar

from adallava.selection.selector_contract import Need


class Method:
    """A method that is not learned, reads features alone, keeps patches as they are, and chooses for each sample.

    A base for methods before the LLM and inside it; see `selection.selector_contract.Selector` for what each
    attribute means. It has no `select` and no `flops`: what a method does and costs is its own to say.
    """

    learned: ClassVar[bool] = False
    needs: ClassVar[frozenset[Need]] = frozenset()
    merges: ClassVar[bool] = False
    per_sample: ClassVar[bool] = True
    ignores_budget: ClassVar[bool] = False
