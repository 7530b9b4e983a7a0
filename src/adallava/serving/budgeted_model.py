"""What vLLM's models with a budget share: rows of an image by the method, and stock rows where everything is kept."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adallava.checkpoints.hub import MODEL_FILES, find_folder
from adallava.families.picture_inputs import PictureInputs
from adallava.processors.stock_processor import folder_or_id_of
from adallava.records import FULL_METHOD
from adallava.serving.chosen_rows import ChosenRows, EngineEmbeddings, RowChooser
from adallava.serving.processing import KEEP_FIELD, QUESTION_FIELD, SEED_FIELD
from adallava.serving.serving_settings import ServingSettings


class BudgetedModel:
    """Goes before a vLLM model in a class's bases. What it leaves open is a model's own part."""

    _chooser: RowChooser | None = None

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        """Make vLLM's model, and read how the server is configured."""
        super().__init__(vllm_config=vllm_config, prefix=prefix)  # type: ignore[call-arg]
        self._settings = ServingSettings.read()
        self._model_config = vllm_config.model_config

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> Any:
        """Load vLLM's weights, and tower, projector and method next to them.

        Raises:
            AdallavaError: for a method that this model cannot serve, or files that do not fit.
        """
        loaded = super().load_weights(weights)  # type: ignore[misc]
        if self._settings is not None and self._settings.method != FULL_METHOD:
            self._chooser = self._load_chooser(self._settings)
        return loaded

    def _load_chooser(self, settings: ServingSettings) -> RowChooser:
        llm = self._llm()
        config = self._model_config
        embeddings = EngineEmbeddings(llm, config.get_vocab_size())
        was = torch.get_default_dtype()
        torch.set_default_dtype(torch.float32)
        try:
            return RowChooser.load(
                Path(find_folder(folder_or_id_of(config.model), MODEL_FILES)),
                settings,
                embeddings=embeddings,
                dtype=config.dtype,
                device=next(llm.parameters()).device,
            )
        finally:
            torch.set_default_dtype(was)

    def embed_multimodal(self, **kwargs: Any) -> Any:
        """Return the rows of each image, [K, D], in the order of the images."""
        keep = kwargs.pop(KEEP_FIELD, None)
        seeds, questions = kwargs.pop(SEED_FIELD, None), kwargs.pop(QUESTION_FIELD, None)
        if keep is None:
            return self._stock_rows(super().embed_multimodal(**kwargs), kwargs)  # type: ignore[misc]
        counts = [int(count) for count in keep]
        totals = self._token_counts(kwargs)
        short = [image for image, count in enumerate(counts) if count < totals[image]]
        whole = [image for image in range(len(counts)) if image not in short]
        rows: dict[int, Tensor] = {}
        if whole:
            stock = self._some(kwargs, whole)
            found = self._stock_rows(super().embed_multimodal(**stock), stock)  # type: ignore[misc]
            rows.update(zip(whole, found, strict=True))
        if short:
            chosen = self._chosen_rows(self._some(kwargs, short), short, counts, seeds, questions)
            rows.update(zip(short, chosen, strict=True))
        return tuple(rows[image] for image in range(len(counts)))

    def _chosen_rows(
        self, kwargs: dict[str, Any], images: Sequence[int], counts: Sequence[int], seeds: Any, questions: Any
    ) -> list[Tensor]:
        assert self._chooser is not None, "a choice was planned, and no method was loaded"
        beside = {name: kwargs[name] for name in self._chooser.picture_inputs if name != "pixel_values"}
        pictures = PictureInputs.of(self._pixels(kwargs["pixel_values"]), **beside)
        assert pictures is not None
        chosen = self._chooser.choose(
            pictures,
            [counts[image] for image in images],
            [int(seeds[image]) for image in images],
            [torch.as_tensor(questions[image], dtype=torch.int64).cpu() for image in images],
        )
        return [self._engine_rows(rows, number, kwargs) for number, rows in enumerate(chosen)]

    def _llm(self) -> Any:
        """Return vLLM's LLM, with its embeddings."""
        raise NotImplementedError

    def _pixels(self, pixel_values: Tensor) -> Tensor:
        """Return pixels as the tower reads them; by default as they came, in the model's type."""
        return pixel_values.to(self._model_config.dtype)

    def _token_counts(self, kwargs: dict[str, Any]) -> list[int]:
        """Return N of each image."""
        raise NotImplementedError

    def _some(self, kwargs: dict[str, Any], images: Sequence[int]) -> dict[str, Any]:
        """Return the inputs of some images."""
        raise NotImplementedError

    def _stock_rows(self, rows: Any, kwargs: dict[str, Any]) -> Any:
        """Return the rows of images that keep everything as the engine takes them."""
        return rows

    def _engine_rows(self, rows: ChosenRows, number: int, kwargs: dict[str, Any]) -> Tensor:
        """Return one image's rows as the engine takes them; by default what the LLM reads."""
        return rows.embeds
