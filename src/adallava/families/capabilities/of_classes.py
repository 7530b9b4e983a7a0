"""What may be asked of a family's class, before any model is loaded: its processor, its costs, a model from nothing."""

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, runtime_checkable

from adallava.errors import InputError
from adallava.families.costed_parts import CostedParts, on_meta
from adallava.registry import family_names, load_family_class


@runtime_checkable
class NamesProcessor(Protocol):
    """Its processor is another than the one that transformers would make of its files. Asked of the class."""

    @staticmethod
    def processor_class() -> Any:
        """Return a class of processors with transformers' `from_pretrained`."""
        ...


def processor_class(model_type: str) -> Any:
    """Return what loads the processor of a model, by its `model_type`: for most, transformers' own choice."""
    from transformers import AutoProcessor

    family = load_family_class(model_type) if model_type in family_names() else None
    return family.processor_class() if isinstance(family, NamesProcessor) else AutoProcessor


@runtime_checkable
class NamesCostedParts(Protocol):
    """Names the parts of a model without values, so that their products are counted. Asked of the class."""

    @staticmethod
    def costed_parts(model: Any) -> CostedParts:
        """Return the parts of a model on the meta device; see `costs/counted.py`."""
        ...


def costed_parts(config: Any) -> CostedParts:
    """Return the parts of the model of a config, on the meta device, in eval mode.

    Attention runs as plain products, which PyTorch's counter sees on every device; a mixture runs the experts that a
    token takes, and no others. The config is left as it is.

    Raises:
        InputError: for a family that does not name its parts.
        UnknownNameError: for a `model_type` without a family.
    """
    import transformers

    family = load_family_class(config.model_type)
    if not isinstance(family, NamesCostedParts):
        raise InputError(
            f"cannot count the FLOPs of a model whose model_type is {config.model_type!r}: its family has no "
            "`costed_parts` (see docs/how_to/add_a_model.md)"
        )
    return family.costed_parts(on_meta(getattr(transformers, family.transformers_class), config))


class BlankShape(Protocol):
    """Sizes of a model made from nothing: pixels, widths, and numbers of layers and heads.

    `patch_px` is the side of what one vision token shows; `tower` and `llm` are `model_type`s, None = the family's own.
    """

    @property
    def tower(self) -> str | None:
        """Its `model_type`."""
        ...

    @property
    def llm(self) -> str | None:
        """Its `model_type`."""
        ...

    @property
    def image_px(self) -> int:
        """Side of a picture."""
        ...

    @property
    def patch_px(self) -> int:
        """Side of a patch."""
        ...

    @property
    def vision_width(self) -> int:
        """Of the tower's states."""
        ...

    @property
    def vision_layers(self) -> int:
        """Of the tower."""
        ...

    @property
    def vision_heads(self) -> int:
        """Of each of the tower's layers."""
        ...

    @property
    def vision_mlp_width(self) -> int:
        """Inside the tower's MLPs."""
        ...

    @property
    def llm_width(self) -> int:
        """Of the LLM's states."""
        ...

    @property
    def llm_layers(self) -> int:
        """Of the LLM."""
        ...

    @property
    def llm_heads(self) -> int:
        """Of queries in each of the LLM's layers."""
        ...

    @property
    def llm_kv_heads(self) -> int:
        """Of keys and values in each of the LLM's layers."""
        ...

    @property
    def llm_mlp_width(self) -> int:
        """Inside the LLM's MLPs."""
        ...


@runtime_checkable
class MadeFromNothing(Protocol):
    """An untrained model of any size, for training from nothing. Asked of the class.

    Attributes:
        blank_tokens: text of the tokens of a picture and around it, by transformers' names;
            `image_token` is the placeholder's.
        blank_picture: what the chat template writes for a picture.
    """

    blank_tokens: ClassVar[Mapping[str, str]]
    blank_picture: ClassVar[str]

    @staticmethod
    def blank_model(shape: BlankShape, vocab_size: int, token_ids: Mapping[str, int], ids: dict[str, int]) -> Any:
        """Return a transformers model, initialized from torch's global generator.

        Args:
            shape: of it.
            vocab_size: rows of the embeddings.
            token_ids: of `blank_tokens`, by the same names.
            ids: of the token that ends an answer and of padding, by transformers' names.

        Raises:
            InputError: for a tower or LLM of a type that it cannot make.
        """
        ...

    @staticmethod
    def blank_processor(tokenizer: Any, shape: BlankShape, chat_template: str) -> Any:
        """Return the processor of such a model around a tokenizer."""
        ...
