"""What every family of transformers' own layout shares: the stock model, its embeddings, its LLM, where they lie."""

from functools import reduce
from typing import Any, ClassVar

import torch
from torch import Tensor

from adallava.errors import CheckpointError
from adallava.families.decoder import StockDecoder
from adallava.selection.selector_contract import TowerShape


class StockParts:
    """Holds a stock model, changes nothing in it.

    Attributes:
        llm_path: names of the modules from the model to its LLM.
    """

    llm_path: ClassVar[tuple[str, ...]] = ("model", "language_model")
    _shape: TowerShape

    def __init__(self, model: Any) -> None:
        """Wrap a loaded model.

        Raises:
            CheckpointError: if parameters lie on several devices or are not floating-point, or the token of a picture
                has no row among the embeddings.
        """
        self._model = model
        _check_parameters(model)
        rows = model.get_input_embeddings().num_embeddings
        if self.image_token_id >= rows:
            raise CheckpointError(
                f"an image's token has the id {self.image_token_id}, and the embeddings only {rows} rows: give the "
                "LLM more (resize_token_embeddings) and save it"
            )

    @property
    def model(self) -> Any:
        """The stock transformers model."""
        return self._model

    @property
    def shape(self) -> TowerShape:
        """N, C, D and the grid: of an image, of a tile where those are images, or of a square picture of 448 pixels."""
        return self._shape

    @property
    def image_token_id(self) -> int:
        """The id of the placeholder of one vision token in a prompt."""
        return int(self._model.config.image_token_id)

    @property
    def pad_token_id(self) -> int:
        """The id that padding is written with: the model's own, or the end of an answer's, as in transformers;
        0 where the model names neither.
        """
        configs = (self._model.generation_config, self._model.config.get_text_config())
        for name in ("pad_token_id", "eos_token_id"):
            for ids in (getattr(config, name, None) for config in configs):
                first = ids[0] if isinstance(ids, list | tuple) and ids else ids
                if isinstance(first, int) and first >= 0:
                    return first
        return 0

    @property
    def device(self) -> torch.device:
        """The one device that all parameters are on, also after `model.to(…)`."""
        return torch.device(next(self._model.parameters()).device)

    @property
    def dtype(self) -> torch.dtype:
        """The parameters' floating-point type, also after `model.to(…)`."""
        dtype: torch.dtype = self._model.dtype
        return dtype

    def embed_text(self, input_ids: Tensor) -> Tensor:
        """Return the LLM's input embeddings of token ids, [..., D]."""
        embeds: Tensor = self._model.get_input_embeddings()(input_ids)
        return embeds

    def llm_of(self, model: Any) -> Any:
        """Return the LLM without its head, of the stock model or of a view of it."""
        return reduce(getattr, self.llm_path, model)

    @property
    def window_tokens(self) -> int | None:
        """The narrowest sliding window among the LLM's layers; None if every token sees all before it.

        A window counts the tokens that are in the prompt, not the positions that they had: with fewer vision tokens it
        reaches further back than the stock model's over the full prompt.
        """
        config = self._model.config.get_text_config()
        window = getattr(config, "sliding_window", None)
        kinds = getattr(config, "layer_types", None)
        if window is None or (kinds is not None and "sliding_attention" not in kinds):
            return None
        return int(window)

    def decoder(self) -> StockDecoder:
        """Return the LLM's layers, for methods inside the LLM.

        Raises:
            UnsupportedModeError: for an LLM whose layers are not known.
        """
        return StockDecoder(self._model, (*self.llm_path, "layers"))

    @property
    def num_llm_layers(self) -> int:
        """Layers of the LLM, of whatever kind it is."""
        return int(self._model.config.get_text_config().num_hidden_layers)


def _check_parameters(model: Any) -> None:
    """Refuse parameters on several devices, or of a type that is not floating-point."""
    devices: dict[torch.device, str] = {}
    for name, parameter in model.named_parameters():
        devices.setdefault(parameter.device, name)
        if not parameter.dtype.is_floating_point:
            raise CheckpointError(
                f"parameter {name!r} has type {parameter.dtype}: load the model in a floating-point type"
            )
    if len(devices) != 1 or "meta" in {device.type for device in devices}:
        found = ", ".join(f"{name!r} on {device}" for device, name in devices.items())
        raise CheckpointError(f"all parameters must be on one real device, found {found}: load with one device")
