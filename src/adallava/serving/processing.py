"""vLLM's multi-modal processors with a budget: K placeholders for an image, and what the model needs besides pixels.

A request's `mm_processor_kwargs` become a `Choice` first. The images that keep everything are left to the processor
that comes after this one, with the hash that they have there.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from vllm.multimodal.hasher import MultiModalHasher
from vllm.multimodal.inputs import MultiModalFieldConfig
from vllm.multimodal.parse import ImageProcessorItems
from vllm.multimodal.processing import BaseMultiModalProcessor, PromptReplacement

from adallava.errors import InputError
from adallava.serving.choice import BUDGET_KEY, CHOICE_KEY, SEED_KEY, Choice, Chooses, refuse_others, without_own
from adallava.serving.serving_settings import ServingSettings
from adallava.serving.vllm_metrics import count_kept

KEEP_FIELD, SEED_FIELD, QUESTION_FIELD = "adallava_keep_count", "adallava_seed", "adallava_question"
"""What travels to the model with an image."""

_Kwargs = Mapping[str, object]


class BudgetedProcessor(BaseMultiModalProcessor[Any]):
    """Goes before a vLLM processor in a class's bases. A model's own part is `_image_token_id` and `_grid`."""

    def __init__(self, info: Any, dummy_inputs: Any, **others: Any) -> None:
        """Read how the server is configured.

        Raises:
            InputError: for settings that mean nothing, or a budget among the engine's own options.
        """
        super().__init__(info, dummy_inputs, **others)
        settings = ServingSettings.read()
        assert settings is not None, "registered by the plug-in, which was configured"
        self._chooses = Chooses.by(settings)
        for key in (BUDGET_KEY, SEED_KEY):
            if key in (info.ctx.get_merged_mm_kwargs({}) or {}):
                raise InputError(
                    f"{key} is in the engine's mm_processor_kwargs, which reach transformers' processor: give a "
                    "default budget by ADALLAVA_TOKEN_BUDGET, and others with each request"
                )

    def _image_token_id(self) -> int:
        """Return the placeholder's id."""
        raise NotImplementedError

    def _grid(self, width: int, height: int, asked: _Kwargs) -> tuple[int, int]:
        """Return (rows, columns) of the tokens of an image of so many pixels."""
        raise NotImplementedError

    def _check(self, image: int, rows: int, columns: int) -> None:
        """Refuse an image that a choice cannot be made of.

        Raises:
            InputError: naming it.
        """

    def get_dummy_inputs(self, *args: Any, **kwargs: Any) -> Any:
        """Return what memory is measured with: every token of each image."""
        inputs = super().get_dummy_inputs(*args, **kwargs)
        return replace(inputs, hf_processor_mm_kwargs={**inputs.hf_processor_mm_kwargs, BUDGET_KEY: 1.0})

    def apply(self, inputs: Any, timing_ctx: Any) -> Any:
        """Process a request, with as many placeholders for each image as it is to keep.

        Raises:
            BudgetError: for a budget that means nothing, or that cannot be given.
            InputError: for a budget of rows that were encoded elsewhere, a seed that is none, or what is not ours.
        """
        asked = inputs.hf_processor_mm_kwargs
        refuse_others(asked, self._chooses.settings)
        others = without_own(asked)
        choice = self._plan(inputs, asked, others)
        planned = others if choice is None else {**others, CHOICE_KEY: choice}
        return super().apply(replace(inputs, hf_processor_mm_kwargs=planned), timing_ctx)

    def _plan(self, inputs: Any, asked: _Kwargs, others: _Kwargs) -> Choice | None:
        images = inputs.mm_data_items.get("image", ())
        if not len(images):
            return self._chooses.plan(asked, (), inputs.prompt, self._image_token_id())
        if not isinstance(images, ImageProcessorItems):
            if BUDGET_KEY in asked:
                raise InputError(f"{BUDGET_KEY} is for images, and these are rows that were encoded elsewhere")
            return None
        sizes = [images.get_image_size(image) for image in range(len(images))]
        grids = [self._grid(size.width, size.height, others) for size in sizes]
        choice = self._chooses.plan(asked, grids, inputs.prompt, self._image_token_id())
        for image, grid in enumerate(grids):
            if choice is not None and not choice.keeps_all(image):
                self._check(image, *grid)
        total = sum(rows * columns for rows, columns in grids)
        count_kept(total if choice is None else sum(choice.keep_counts), total)
        return choice

    def _get_mm_hashes(self, inputs: Any) -> Any:
        choice, others = _split(inputs.hf_processor_mm_kwargs)
        hashes = super()._get_mm_hashes(replace(inputs, hf_processor_mm_kwargs=others))
        if choice is None:
            return hashes
        algorithm = self.info.ctx.get_mm_config().mm_hasher_algorithm
        of_images = [
            of_picture
            if choice.keeps_all(image)
            else MultiModalHasher.hash_kwargs(algorithm, picture=of_picture, choice=choice.hash_factors(image))
            for image, of_picture in enumerate(hashes["image"])
        ]
        return {**hashes, "image": of_images}

    def _get_cache_missing_processor_kwargs(self, inputs: Any, mm_is_cached: Any) -> _Kwargs:
        planned = cast(_Kwargs, super()._get_cache_missing_processor_kwargs(inputs, mm_is_cached))
        choice, others = _split(planned)
        if choice is None:
            return planned
        missing = [image for image, is_cached in enumerate(mm_is_cached["image"]) if not is_cached]
        return {**others, CHOICE_KEY: choice.of(missing)}

    def _apply_hf_processor_main(self, mm_items: Any, hf_kwargs: _Kwargs) -> Any:
        choice, others = _split(hf_kwargs)
        data = super()._apply_hf_processor_main(mm_items, others)
        if choice is not None and choice.keep_counts:
            data[KEEP_FIELD] = torch.tensor(choice.keep_counts)
            data[SEED_FIELD] = torch.tensor(choice.seeds)
            data[QUESTION_FIELD] = torch.tensor([choice.question] * len(choice.seeds), dtype=torch.int64)
        return data

    def _get_mm_fields_config(self, hf_inputs: Any, hf_processor_mm_kwargs: _Kwargs) -> Any:
        fields = dict(super()._get_mm_fields_config(hf_inputs, _split(hf_processor_mm_kwargs)[1]))
        for name in (KEEP_FIELD, SEED_FIELD, QUESTION_FIELD):
            if name in hf_inputs:
                fields[name] = MultiModalFieldConfig.batched("image", keep_on_cpu=True)
        return fields

    def _get_prompt_updates(self, mm_items: Any, hf_processor_mm_kwargs: _Kwargs, out_mm_kwargs: Any) -> Any:
        choice, others = _split(hf_processor_mm_kwargs)
        updates = super()._get_prompt_updates(mm_items, others, out_mm_kwargs)
        return updates if choice is None else [_shortened(update, choice) for update in updates]


def _split(asked: _Kwargs) -> tuple[Choice | None, dict[str, object]]:
    """Return the choice among a request's options, and the others."""
    others = dict(asked)
    return cast(Choice | None, others.pop(CHOICE_KEY, None)), others


def _shortened(update: Any, choice: Choice) -> Any:
    """Return what puts K placeholders where the next processor would put N."""
    if update.modality != "image":
        return update
    full: Callable[[int], Sequence[int]] = update.replacement

    def replacement(image: int) -> Sequence[int]:
        """Return the placeholders of the tokens that an image keeps."""
        tokens = full(image)
        if len(tokens) != choice.token_counts[image]:
            raise InputError(
                f"image {image} has {len(tokens)} tokens, and {choice.token_counts[image]} were planned for it"
            )
        return tokens[: choice.keep_counts[image]]

    return PromptReplacement(modality="image", target=update.target, replacement=replacement)
