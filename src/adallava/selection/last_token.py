"""What methods inside the LLM share that rank by the attention of the question's last token."""

from adallava.selection.base import Method
from adallava.selection.layer_contract import (
    Drop,
    DropInput,
    PromptInput,
    Raters,
    attention_of_present,
    last_text_token,
)
from adallava.selection.selector_contract import Selection, TowerShape, keep_highest


class RankedByLastToken(Method):
    """Everything of a `LayerSelector` but its name and its schedule."""

    def raters(self, inputs: PromptInput) -> Raters:
        """Name the last token of the question."""
        return last_text_token(inputs)

    def choose(self, inputs: DropInput) -> Selection:
        """Keep the tokens with the most attention."""
        scores = attention_of_present(inputs)
        return keep_highest(scores, inputs.keep_counts)

    def num_raters(self, num_text_tokens: int) -> int:
        """Return 1."""
        return 1

    def flops(self, shape: TowerShape, num_text_tokens: int, drops: tuple[Drop, ...]) -> int:
        """Return 0: nothing but one row of attention at each drop."""
        return 0
