"""What there is to ask of a model that a method drives: where it came from, what it is, how it is run."""

from typing import Any

import torch

from adallava.adapters.learned import BaseFiles
from adallava.engines import Engines
from adallava.families.family_contract import Family
from adallava.families.quantization import quantization_of
from adallava.pipeline.wording import Language
from adallava.records import FULL_METHOD
from adallava.selection.layer_contract import AnySelector
from adallava.selection.selector_contract import TowerShape, WordsMethod


class ModelFacts:
    """Read only; see `AdaLlava`.

    Attributes:
        selector: the method; None for the full-token model.
    """

    selector: AnySelector | None
    _family: Family
    _files: BaseFiles
    _engines: Engines
    _language: Language | None

    @property
    def engine(self) -> str:
        """The engine that runs what it can; an answer's own is in its record."""
        return self._engines.preferred

    @property
    def quantization(self) -> str:
        """How the LLM's layers are quantized; "none" if they are not."""
        return quantization_of(self.base)

    @property
    def config(self) -> Any:
        """The base's."""
        return self.base.config

    @property
    def family(self) -> Family:
        """The stages of the model, for training and for tools."""
        return self._family

    @property
    def base(self) -> Any:
        """The stock transformers model."""
        return self._family.model

    @property
    def name_or_path(self) -> str:
        """The base's, as it was asked for."""
        return self._files.name_or_path

    @property
    def method(self) -> str:
        """Name of the selection method; "full" if there is none."""
        return FULL_METHOD if self.selector is None else self.selector.name

    @property
    def shape(self) -> TowerShape:
        """N, C, D and the grid."""
        return self._family.shape

    @property
    def device(self) -> torch.device:
        """The device that everything is on."""
        return self._family.device

    @property
    def dtype(self) -> torch.dtype:
        """The base's floating-point type."""
        return self._family.dtype

    def num_words(self, question: str) -> int:
        """Return how many tokens the words have that the method picks from a question; 0 if it picks none."""
        if self._language is None or not isinstance(self.selector, WordsMethod):
            return 0
        return len(self._language.wording.word_ids(self.selector.words(question)))

    def text_tower_flops(self, question: str) -> int:
        """Return the FLOPs of comparing one image with a question in a text tower; 0 for methods without one."""
        if self._language is None or self._language.text_tower is None:
            return 0
        return self._language.text_tower.flops(question, self.shape.num_vision_tokens)

    @property
    def weights_sha256(self) -> str:
        """SHA-256 of the base's safetensors files. Reads them all, once.

        Raises:
            CheckpointError: if the model was not made from files.
        """
        return self._files.weights_sha256

    @property
    def settings_sha256(self) -> dict[str, str]:
        """SHA-256 by name of the checkpoint's configuration, tokenizer and template files.

        Raises:
            CheckpointError: if the model was not made from files.
        """
        return self._files.settings_sha256
