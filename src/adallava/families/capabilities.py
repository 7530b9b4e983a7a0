"""What a family may be able to do beside the core of `contract`: one protocol a capability, and one function that asks.

A family that has the methods has the capability; nothing is registered. What code can do stands here; what one loaded
model has (its tower a class token, say) is told by `Family.provides`.
"""

from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from adallava.errors import UnsupportedModeError
from adallava.families.contract import Family
from adallava.families.picture_inputs import PictureInputs


class BlankShape(Protocol):
    """Sizes of a model made from nothing: pixels, widths, and numbers of layers and heads."""

    @property
    def image_px(self) -> int: ...  # noqa: D102
    @property
    def patch_px(self) -> int: ...  # noqa: D102
    @property
    def vision_width(self) -> int: ...  # noqa: D102
    @property
    def vision_layers(self) -> int: ...  # noqa: D102
    @property
    def vision_heads(self) -> int: ...  # noqa: D102
    @property
    def vision_mlp_width(self) -> int: ...  # noqa: D102
    @property
    def llm_width(self) -> int: ...  # noqa: D102
    @property
    def llm_layers(self) -> int: ...  # noqa: D102
    @property
    def llm_heads(self) -> int: ...  # noqa: D102
    @property
    def llm_kv_heads(self) -> int: ...  # noqa: D102
    @property
    def llm_mlp_width(self) -> int: ...  # noqa: D102


@runtime_checkable
class MadeFromNothing(Protocol):
    """An untrained model of any size, for training from nothing. Asked of the class."""

    @staticmethod
    def blank_model(shape: BlankShape, vocab_size: int, image_token_id: int, ids: dict[str, int]) -> Any:
        """Return a transformers model, initialised from torch's global generator.

        Args:
            shape: of it.
            vocab_size: rows of the embeddings.
            image_token_id: the placeholder's.
            ids: of the token that ends an answer and of padding, by transformers' names.
        """
        ...

    @staticmethod
    def blank_processor(tokenizer: Any, shape: BlankShape, chat_template: str) -> Any:
        """Return the processor of such a model around a tokenizer."""
        ...


@runtime_checkable
class AlignsPatches(Family, Protocol):
    """Tower and projector can learn words before the LLM ever runs: the training stage `align`."""

    def project_with_summary(self, pictures: PictureInputs) -> tuple[Tensor, Tensor]:
        """Return each patch and the class token as the LLM would read them, [I, N, D] and [I, D], of the last layer."""
        ...

    def scale_projector(self, factor: Tensor) -> None:
        """Multiply all that the projector puts out, in place, by one number, []."""
        ...


def aligning(family: Family) -> AlignsPatches:
    """Return the family as one whose patches can be aligned with words.

    Raises:
        UnsupportedModeError: if they cannot.
    """
    if not isinstance(family, AlignsPatches):
        raise UnsupportedModeError(
            f"stage 'align' trains tower and projector apart from the LLM, which models of type {family.name!r} do not "
            "allow: start from one of another family"
        )
    return family
