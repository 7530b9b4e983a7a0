"""The model: a stock checkpoint with a selection method and a scheduler."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from adallava.adapters import save_adapter
from adallava.adapters.learned import Asked, BaseFiles, make_scheduler, make_selector
from adallava.budget import BudgetLike, LatencyLike
from adallava.checkpoints.placement import check_taken, pick_device, pick_dtype
from adallava.engines import Engines
from adallava.errors import CheckpointError, InputError, UnsupportedModeError
from adallava.families import find_checkpoint, load_family, wrap_model
from adallava.families.capabilities.of_llms import decoder_of
from adallava.families.needs import check_needs, check_scheduler
from adallava.families.quantization import check_quantization, quantize
from adallava.model_calls import ModelCalls
from adallava.pipeline.language import make_language
from adallava.pipeline.result import AdaLlavaOutput, ForwardOutput
from adallava.processors.stock_processor import (
    AdaLlavaProcessor,
    build_prompt,
    folder_or_id_of,
    given_processor,
    prepare_picture,
    sound_inputs,
)
from adallava.records import FULL_METHOD
from adallava.registry import load_selector_class
from adallava.scheduling.scheduler_contract import Scheduler
from adallava.selection.layer_contract import AnySelector
from adallava.tasks.images import as_rgb

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["AdaLlava", "AdaLlavaProcessor", "BudgetLike", "ForwardOutput", "LatencyLike", "build_prompt"]


class AdaLlava(ModelCalls):
    """A stock vision-language model that answers from K of its N vision tokens.

    The base is never changed, so models that share one (see `with_method`) may be used side by side.

    Attributes:
        processor: makes `input_ids` and `pixel_values`, and decodes answers.
        selector: the method; None for the full-token model.
        adapter_sha256: of a learned method's weights file; None for others.
        scheduler: of the LLM's layers; None runs them all.
        scheduler_sha256: of a learned scheduler's weights file; None for others.
    """

    def __init__(
        self,
        base: Any,
        processor: Any,
        selector: AnySelector | None = None,
        *,
        name_or_path: str = "",
        adapter_sha256: str | None = None,
        scheduler: Scheduler | None = None,
        scheduler_sha256: str | None = None,
        engine: str = "auto",
    ) -> None:
        """Drive an already loaded transformers model.

        Args:
            base: a stock model of a family that `adallava.registry.family_names()` lists, or a `PeftModel` around one.
            processor: its processor; None for a model that does not `generate`.
            selector: a method, with its weights if it is a learned one; None for the full-token model.
            name_or_path: where the base's files are: a bundled name, a folder or a hub id.
            adapter_sha256: of the selector's weights file.
            scheduler: which layers of the LLM run at a latency below 1.0.
            scheduler_sha256: of the scheduler's weights file.
            engine: how answers are run, see `with_engine`.

        Raises:
            UnsupportedModeError: for an unsupported model family, a model without a head, a wrapper, or a method or
                scheduler that needs what the model lacks.
            CheckpointError: if the base lies on several devices or is not floating-point, or the method's text tower
                cannot be loaded.
            InputError: for a tokenizer or anything else that is not the model's processor.
        """
        self._family = wrap_model(base)
        if selector is not None:
            check_needs(self._family, selector, name_or_path)
        self.processor = given_processor(processor)
        self.selector = selector.to(self.device) if isinstance(selector, nn.Module) else selector
        self._files = BaseFiles(name_or_path, self._family.model)
        self.adapter_sha256 = adapter_sha256
        if scheduler is not None:
            check_scheduler(self._family, scheduler)
        self.scheduler = scheduler.to(self.device).eval() if isinstance(scheduler, nn.Module) else scheduler
        self.scheduler_sha256 = scheduler_sha256
        self._language = make_language(self._family, self.selector, processor)
        self._engines = Engines(self._family.model, engine)

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        *,
        method: str = "question",
        adapter: str | Path | None = None,
        dtype: str | torch.dtype | None = "auto",
        device: str | torch.device | None = None,
        attn_implementation: str = "sdpa",
        allow_other_base: bool = False,
        pad_to_square: bool = False,
        least_pixels: int | None = None,
        most_pixels: int | None = None,
        engine: str = "auto",
        quantization: str = "none",
        **selector_options: Any,
    ) -> "AdaLlava":
        """Load a model and a selection method for it.

        Safetensors are mapped. On the CPU in the stored type, the mapped pages are the weights; in another type or on a
        GPU, each weight is copied once. Pickles are never read, and no code of a checkpoint is run. Names, sizes and
        headers are checked before any weight is read.

        Args:
            name_or_path: a bundled name (`tiny`), a folder, or a hub id, of a checkpoint in stock format. A hub id is
                fetched to the hub's local cache, and with `HF_HUB_OFFLINE=1` taken from there.
            method: a name of `adallava.registry.selector_names()`, or "full" for the full-token model.
            adapter: folder of a learned method's weights; by default `<folder>/adapters/<method>`.
            dtype: of every weight of the base, floating-point; "auto" and None are the checkpoint's own.
            device: one device for everything; by default the first GPU, else the CPU. There is no `device_map`.
            attn_implementation: "sdpa" or "eager".
            allow_other_base: accept an adapter that was trained on other weights of the same shapes.
            pad_to_square: pads images, see `AdaLlavaProcessor.from_pretrained`.
            least_pixels: of an image, see there.
            most_pixels: of an image, see there.
            engine: how answers are run, see `with_engine`.
            quantization: of the LLM's layers: "int8" and "fp8-weights" halve their memory, "fp8" multiplies
                in 8 bits too, on Hopper; for inference only, see docs/concepts/engines.md. Needs torchao.
            selector_options: constructor arguments of a training-free method.

        Raises:
            CheckpointError: if files are missing, damaged, or the adapter belongs to another base.
            UnsupportedModeError: for a model family that is not supported, weights stored as quantized ones, or
                `device_map`.
            InputError: for a device or type that cannot be used, or a quantization that is unknown or cannot run there.
            UnknownNameError: for an unknown method.
        """
        check_taken(selector_options)
        if method != FULL_METHOD:
            load_selector_class(method)  # A misspelled method fails before gigabytes are read.
        placed, typed = pick_device(device), pick_dtype(dtype)
        typed = check_quantization(quantization, placed, typed)
        name = str(name_or_path)
        folder = str(find_checkpoint(folder_or_id_of(name)))
        processor = AdaLlavaProcessor.from_pretrained(
            folder, pad_to_square=pad_to_square, least_pixels=least_pixels, most_pixels=most_pixels
        )
        family = load_family(folder, dtype=typed, device=placed, attn_implementation=attn_implementation)
        quantize(family.model, quantization)
        full = cls(family.model, processor, name_or_path=name, engine=engine)
        return full.with_method(method, adapter, allow_other_base=allow_other_base, **selector_options)

    def ask(
        self,
        images: "Image.Image | Sequence[Image.Image]",
        question: str,
        *,
        token_budget: BudgetLike | Sequence[BudgetLike] = 1.0,
        latency: LatencyLike | Sequence[LatencyLike] = 1.0,
        **options: Any,
    ) -> AdaLlavaOutput:
        """Answer one question about one or several images, at one or several budgets in one batch.

        The processor's chat template makes the prompt. For other prompts, or several questions in a batch, call the
        processor and `generate`.

        Args:
            images: one image, or a list for one question, opened by Pillow, in any mode.
            question: the text. It may contain the image token once for each image; without it, images come first.
            token_budget: one or several; the output has a row for each.
            latency: one or several; as many as budgets, if there are several of both.
            options: of `generate`.

        Raises:
            InputError: for no image, one that cannot be read, another number of image tokens, a question that is no
                text, a model without a processor.
            CheckpointError: for a processor whose files make it fail.
            BudgetError, UnsupportedModeError: as `generate`.
        """
        if self.processor is None:
            raise InputError("ask makes prompts with a processor, which this model lacks: AdaLlava(base, processor)")
        if not isinstance(question, str):
            raise InputError(
                f"ask takes one question, as text, not {_kind(question)}: ask once for each, or call processor and "
                "generate for a batch"
            )
        opened = [prepare_picture(self.processor, as_rgb(image)) for image in _listed(images)]
        rows = max(map(_num_rows, (token_budget, latency)))
        prompts = [build_prompt(self.processor, question, len(opened))] * rows
        inputs = sound_inputs(self.processor, opened * rows, prompts)
        return self.generate(**inputs, token_budget=token_budget, latency=latency, **options)

    def with_method(
        self,
        method: str,
        adapter: str | Path | None = None,
        *,
        allow_other_base: bool = False,
        **selector_options: Any,
    ) -> "AdaLlava":
        """Return a model with the same base, not copied, and another method. See `from_pretrained`."""
        if method == FULL_METHOD:
            if adapter is not None or selector_options:
                raise CheckpointError(f"method {FULL_METHOD!r} keeps every token: it has no adapter and no options")
            return self.with_selector(None)
        asked = Asked(method, adapter, allow_other_base, selector_options)
        selector, sha256 = make_selector(asked, self._files, self.shape)
        return self.with_selector(selector, adapter_sha256=sha256)

    def with_selector(self, selector: AnySelector | None, *, adapter_sha256: str | None = None) -> "AdaLlava":
        """Return a model with the same base, not copied, the same scheduler, and the given selector."""
        return self._with(selector, adapter_sha256, self.scheduler, self.scheduler_sha256)

    def with_scheduler(
        self,
        scheduler: str | Scheduler | None,
        adapter: str | Path | None = None,
        *,
        allow_other_base: bool = False,
        **options: Any,
    ) -> "AdaLlava":
        """Return a model with the same base, not copied, the same method, and another scheduler of the LLM's layers.

        Args:
            scheduler: a name of `adallava.registry.scheduler_names()`, a scheduler, or None to run every layer.
            adapter: folder of a learned scheduler's weights, or of one found by search; by default
                `<folder>/adapters/<scheduler>`.
            allow_other_base: accept an adapter that was trained on other weights of the same shapes.
            options: constructor arguments of a scheduler that is not learned; instead of an adapter.

        Raises:
            CheckpointError: if files are missing, damaged, or the adapter belongs to another base.
            UnsupportedModeError: for an LLM whose layers are not known, or cannot be split as the scheduler wants.
            UnknownNameError: for an unknown scheduler.
        """
        if not isinstance(scheduler, str):
            return self._with(self.selector, self.adapter_sha256, scheduler, None)
        asked = Asked(scheduler, adapter, allow_other_base, options)
        made, sha256 = make_scheduler(asked, self._files, decoder_of(self._family).shape)
        return self._with(self.selector, self.adapter_sha256, made, sha256)

    def _with(
        self,
        selector: AnySelector | None,
        adapter_sha256: str | None,
        scheduler: Scheduler | None,
        scheduler_sha256: str | None,
    ) -> "AdaLlava":
        other = AdaLlava(
            self.base,
            self.processor,
            selector,
            name_or_path=self.name_or_path,
            adapter_sha256=adapter_sha256,
            scheduler=scheduler,
            scheduler_sha256=scheduler_sha256,
        )
        other._files, other._engines = self._files, self._engines
        return other

    def with_engine(self, engine: str) -> "AdaLlava":
        """Return a model with the same base, not copied, method and scheduler, whose answers another engine runs.

        Args:
            engine: "auto" is CUDA graphs where they can run, else stock `generate`; "graphs" is the same, and refuses a
                model that is not on CUDA; "stock"; "eager" is the passes of the graphs without graphs.

        Raises:
            InputError: for another name, or graphs without CUDA.
        """
        other = self._with(self.selector, self.adapter_sha256, self.scheduler, self.scheduler_sha256)
        other._engines = Engines(self.base, engine)
        return other

    def can_generate(self) -> bool:
        """Refuse the question, which `transformers.pipeline` asks of its model.

        Raises:
            UnsupportedModeError: always. Make an `AdaLlava` from a pipeline's model and processor instead.
        """
        raise UnsupportedModeError(
            "an AdaLlava is not a model for transformers.pipeline, which has no budgets and expects tensors: call "
            "generate(), or make one from a pipeline's parts: AdaLlava(pipe.model, pipe.processor)"
        )

    def save_adapter(self, folder: str | Path) -> None:
        """Write the weights of the learned method, the learned scheduler, or both, to one folder.

        `from_pretrained(adapter=…)` and `with_scheduler(…, adapter=…)` read it.

        Raises:
            CheckpointError: if neither is learned, or the base was not made from files.
        """
        save_adapter(
            folder,
            self.selector,
            scheduler=self.scheduler,
            shape=self.shape,
            base_model_name_or_path=self.name_or_path,
            base_weights_sha256=self.weights_sha256,
        )


def _listed(images: Any) -> "list[Image.Image]":
    from PIL.Image import Image

    listed = [images] if isinstance(images, Image) else list(images) if isinstance(images, (list, tuple)) else None
    for image in [images] if listed is None else listed:
        if not isinstance(image, Image):
            fix = "call PIL.Image.fromarray first" if hasattr(image, "__array__") else "call PIL.Image.open first"
            raise InputError(f"ask takes an image opened by Pillow, or a list of them, not {_kind(image)}: {fix}")
    if not listed:
        raise InputError("ask got an empty list of images: give at least one")
    return listed


def _kind(value: Any) -> str:
    """Return a value as a message names it: text as it is, of anything else the type."""
    return repr(value)[:80] if isinstance(value, (str, bytes, Path)) else f"a value of type {type(value).__name__}"


def _num_rows(dial: Any) -> int:
    """Return the samples that the value of a dial is for."""
    return len(dial) if isinstance(dial, Sequence) and not isinstance(dial, str) else 1
