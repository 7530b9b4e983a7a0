"""The model: a stock Llava, a selection method beside it, and how the two are driven."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from adallava.adapters import save_adapter
from adallava.adapters.learned import Asked, BaseFiles, make_scheduler, make_selector
from adallava.budget import BudgetLike, LatencyLike
from adallava.checkpoints.placement import check_taken, pick_device, pick_dtype
from adallava.engines import Engines, WarmUp, warm_up
from adallava.errors import CheckpointError, InputError, UnsupportedModeError
from adallava.families import find_checkpoint, load_family, wrap_model
from adallava.families.capabilities.of_llms import adds_rows, decoder_of, window_tokens
from adallava.families.capabilities.of_pictures import take_pictures
from adallava.families.needs import check_needs, check_scheduler
from adallava.families.picture_inputs import PictureInputs
from adallava.families.quantization import check_quantization, check_untrained, quantize
from adallava.model_facts import ModelFacts
from adallava.pipeline.call import Request
from adallava.pipeline.clock import StageClock
from adallava.pipeline.forward import choose_inside, forward_inside, forward_run
from adallava.pipeline.generation_bounds import check_generation_bounds
from adallava.pipeline.language import make_language
from adallava.pipeline.modes import DEFAULT_NEW_TOKENS, GenerationPlan, asked_values, plan_generation
from adallava.pipeline.pack import Positions
from adallava.pipeline.program import LLMRun, prepare_run
from adallava.pipeline.prompt_limit import warn_of_positions
from adallava.pipeline.result import AdaLlavaOutput, ForwardOutput, describe_choice, read_answers
from adallava.pipeline.skips import SampleLayers
from adallava.pipeline.stage_runner import PLAIN, Stages
from adallava.pipeline.stock_arguments import check_as_configured
from adallava.processors.stock_processor import AdaLlavaProcessor, build_prompt, folder_or_id_of, given_processor
from adallava.records import FULL_METHOD, WhatRan
from adallava.registry import load_selector_class
from adallava.scheduling.scheduler_contract import Scheduler, has_free_token
from adallava.selection.layer_contract import AnySelector, LayerSelector

__all__ = ["AdaLlava", "AdaLlavaProcessor", "BudgetLike", "ForwardOutput", "LatencyLike", "build_prompt"]


class AdaLlava(ModelFacts):
    """A stock Llava that answers from K of its N vision tokens.

    The base is held, never changed: models that share one (see `with_method`) may be used side by side, and
    no call leaves anything behind on it.

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
            processor: its processor; None for a model that is not to `generate`.
            selector: a method, with its weights if it is a learned one; None for the full-token model.
            name_or_path: where the base's files are: a bundled name, a folder or a hub id.
            adapter_sha256: of the selector's weights file.
            scheduler: which layers of the LLM run at a latency below 1.0.
            scheduler_sha256: of the scheduler's weights file.
            engine: how answers are run, see `with_engine`.

        Raises:
            UnsupportedModeError: for a model family that is not supported, what has no head or wraps a model, or a
                method or scheduler that needs what it lacks.
            CheckpointError: if the base lies on several devices or is not floating-point, or the method's text tower
                cannot be loaded.
            InputError: for a tokenizer, or anything else that is not the model's processor.
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

        One policy for memory: safetensors are mapped, on the CPU in the stored type the mapped pages are the weights,
        and in another type or on a GPU each weight is copied once, on its own. Pickles are never read, and no code of a
        checkpoint is run. What can be told from names, sizes and headers is told before any weight is read.

        Args:
            name_or_path: a bundled name (`tiny`), a folder, or a hub id, of a checkpoint in stock format. A hub id is
                fetched to the hub's local cache, and with `HF_HUB_OFFLINE=1` taken from there.
            method: a name of `adallava.registry.selector_names()`, or "full" for the full-token model.
            adapter: folder of a learned method's weights; by default `<folder>/adapters/<method>`.
            dtype: of every weight of the base, floating-point; "auto" and None are the checkpoint's own.
            device: one device for everything; by default CUDA if there is one. There is no `device_map`.
            attn_implementation: "sdpa" or "eager".
            allow_other_base: accept an adapter that was trained on other weights of the same shapes.
            pad_to_square: of the processor's pictures, see `AdaLlavaProcessor.from_pretrained`.
            least_pixels: likewise.
            most_pixels: likewise.
            engine: how answers are run, see `with_engine`.
            quantization: of the LLM's layers: "int8" and "fp8-weights" halve their memory, "fp8" multiplies
                in 8 bits as well, on Hopper; for answers alone, see docs/engines.md. Needs torchao.
            selector_options: constructor arguments of a training-free method.

        Raises:
            CheckpointError: if files are missing, damaged, or the adapter belongs to another base.
            UnsupportedModeError: for a model family that is not supported, weights stored as quantized ones, or
                `device_map`.
            InputError: for a device that is not here, a type that weights cannot have, or a quantization that is not
                known or that the device cannot run.
            UnknownNameError: for an unknown method.
        """
        check_taken(selector_options)
        if method != FULL_METHOD:
            load_selector_class(method)  # A misspelt method is told before gigabytes are read.
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

    def warm_up(
        self,
        *,
        batch_sizes: Sequence[int] = (1,),
        token_budgets: Sequence[BudgetLike] = (1.0,),
        latencies: Sequence[LatencyLike] = (1.0,),
        text_tokens: Sequence[int] = (64,),
        max_new_tokens: int = DEFAULT_NEW_TOKENS,
        compiled: bool = False,
    ) -> WarmUp:
        """Meet the sizes of coming calls, so that none of them waits; see `engines.warming.warm_up`.

        Args:
            batch_sizes: samples a call.
            token_budgets: of the samples.
            latencies: of the samples.
            text_tokens: of a prompt without its picture.
            max_new_tokens: of an answer at most.
            compiled: compile the LLM's layers too: half a minute or so, for faster answers from then on.

        Raises:
            InputError: for a model whose pictures differ in their tokens, or a size that means nothing.
            UnsupportedModeError: to compile where no graphs can run.
        """
        if compiled:
            self._engines.compile()
        return warm_up(
            self.generate,
            self._family,
            batch_sizes=batch_sizes,
            token_budgets=token_budgets,
            latencies=latencies,
            text_tokens=text_tokens,
            max_new_tokens=max_new_tokens,
        )

    def prepare_for(self, passes: int) -> bool:
        """Say how many passes are about to be decoded; return whether the LLM's layers are compiled for them.

        They are where the engine is "auto", and so many passes repay it: see `engines.pick.REPAYING_PASSES`.
        """
        return self._engines.compile_if_repaid(passes)

    def release(self) -> None:
        """Give back the memory that engines hold between calls: graphs and caches. The next call begins anew."""
        self._engines.release()

    def can_generate(self) -> bool:
        """Refuse the question, which `transformers.pipeline` asks of its model.

        Raises:
            UnsupportedModeError: always; a pipeline's model and processor make an `AdaLlava`, not the other way round.
        """
        raise UnsupportedModeError(
            "an AdaLlava is no model for transformers.pipeline, which has no budgets and expects tensors: call "
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

    @torch.no_grad()
    def generate(
        self,
        *,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        token_budget: BudgetLike | Sequence[BudgetLike] = 1.0,
        latency: LatencyLike | Sequence[LatencyLike] = 1.0,
        seed: int | Sequence[int] = 0,
        positions: Positions = "original",
        clock: StageClock | None = None,
        **generation_kwargs: Any,
    ) -> AdaLlavaOutput:
        """Answer a batch of prompts, each from K of its N vision tokens and with part of the LLM's layers.

        Args:
            input_ids: [B, L], as the processor makes them, with N placeholders for each image.
            attention_mask: [B, L]; None = every token is real.
            pixel_values: the pictures in the order of the prompts, as the processor makes them. What else it makes of
                them, such as their sizes, is taken by its name, and so is what it says of each token.
            token_budget: one for all samples, or one each.
            latency: how much of the LLM runs, 1.0 for all of it; one for all samples, or one each.
            seed: of methods and schedulers that draw; one for all samples, or one each.
            positions: "original" keeps each token's position in the full prompt; "compact" counts anew.
            clock: measures the parts, if given.
            generation_kwargs: transformers' own, over the model's `generation_config`, as in the stock model:
                `max_length` counts the full prompt. What is taken and refused is in docs/decoding.md.

        Raises:
            BudgetError: for a budget or latency that means nothing, or that the method "full", or the scheduler, cannot
                give.
            InputError: if prompts and images do not fit together, or the model has no processor.
            UnsupportedModeError: for a mode of generation that cannot be given correctly.
        """
        if self.processor is None:
            raise InputError(
                "generate decodes answers with the processor's tokenizer, and this model was made without a processor: "
                "AdaLlava(base, processor)"
            )
        pictures, generation_kwargs = take_pictures(
            self._family, {"input_ids": input_ids, "pixel_values": pixel_values, **generation_kwargs}
        )
        request = Request.parse(
            input_ids,
            attention_mask,
            pictures,
            side="left",
            token_budget=token_budget,
            latency=latency,
            seed=seed,
            positions=positions,
        )
        if clock is not None:
            clock.start()
        # The device begins with the tower while the host reads the rest of the call.
        run = self._prepare(request, clock, self._engines.stages())
        plan = self._plan(request, input_ids.shape[1], generation_kwargs)
        made = self._engines.generate(run, plan, clock)
        return read_answers(made, plan, run, processor=self.processor, scheduler=self.scheduler, clock=clock)

    def _plan(self, request: Request, prompt_columns: int, generation_kwargs: dict[str, Any]) -> GenerationPlan:
        """Read how a call decodes; see `plan_generation`."""
        check_as_configured(generation_kwargs, self.base.config)
        default_config = self.base.generation_config
        plan = plan_generation(
            generation_kwargs,
            default_config,
            prompt_columns=prompt_columns,
            inside_llm=isinstance(self.selector, LayerSelector)
            or request.skips_layers(self.family.num_llm_layers)
            or has_free_token(self.scheduler)
            or adds_rows(self._family),
        )
        check_generation_bounds(asked_values(generation_kwargs, default_config), self.base)
        warn_of_positions(self.base.config, prompt_columns, plan.max_new_tokens)
        return plan

    @torch.no_grad()
    def select(
        self,
        *,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        token_budget: BudgetLike | Sequence[BudgetLike],
        seed: int | Sequence[int] = 0,
        positions: Positions = "original",
        **processed: Any,
    ) -> tuple[WhatRan, ...]:
        """Return what each sample would keep, without an answer. Arguments as for `generate`.

        The LLM does not run; for a method inside it, its layers run as far as the last drop, and what they look at
        depends on the positions.

        Raises:
            InputError: also for an argument that nobody knows.
        """
        request = Request.parse(
            input_ids,
            attention_mask,
            self._pictures("select", input_ids, pixel_values, processed),
            side="left",
            token_budget=token_budget,
            seed=seed,
            positions=positions,
        )
        run = self._prepare(request)
        chosen = run.prepared if run.inside is None else choose_inside(run, run.inside)
        return describe_choice(chosen, run.request, self.scheduler, window_tokens(self._family))

    def _pictures(
        self, taker: str, input_ids: Tensor, pixel_values: Tensor | None, processed: dict[str, Any]
    ) -> PictureInputs | None:
        """Return what the processor made of the pictures, and refuse anything else."""
        given = {"input_ids": input_ids, "pixel_values": pixel_values, **processed}
        pictures, unknown = take_pictures(self._family, given)
        for name in unknown:
            raise InputError(f"{taker} takes no {name}")
        return pictures

    @torch.no_grad()
    def read_layers(
        self,
        *,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        token_budget: BudgetLike | Sequence[BudgetLike] = 1.0,
        latency: LatencyLike | Sequence[LatencyLike],
        seed: int | Sequence[int] = 0,
        positions: Positions = "original",
        **processed: Any,
    ) -> tuple[SampleLayers, ...] | None:
        """Return what of the LLM would run for each sample, without an answer; None if all layers run for all.

        Arguments as for `generate`. The LLM runs as far as the scheduler reads it, and not at all for one that reads
        no prompt.

        Raises:
            InputError: also for an argument that nobody knows.
        """
        request = Request.parse(
            input_ids,
            attention_mask,
            self._pictures("read_layers", input_ids, pixel_values, processed),
            side="left",
            token_budget=token_budget,
            latency=latency,
            seed=seed,
            positions=positions,
        )
        return self._prepare(request, stages=self._engines.stages()).decide()

    def forward(
        self,
        *,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        labels: Tensor | None = None,
        token_budget: BudgetLike | Sequence[BudgetLike] = 1.0,
        latency: LatencyLike | Sequence[LatencyLike] = 1.0,
        seed: int | Sequence[int] = 0,
        positions: Positions = "original",
        **forward_kwargs: Any,
    ) -> ForwardOutput:
        """Run the LLM once over the shortened batch, padded on the right, with gradients if they are enabled.

        Arguments as for `generate`, and:

        Args:
            labels: [B, L], -100 where no token is learned. A selector reads the prompt up to the first label only.
            forward_kwargs: for the base's own forward, for instance `logits_to_keep`, whose columns are those of the
                shortened batch.

        Returns:
            The output, or with `return_dict=False` its `to_tuple()`.

        Raises:
            BudgetError: for a budget that means nothing.
            InputError: if prompts, images and labels do not fit together, or for an argument that nobody knows.
            UnsupportedModeError: for an argument that cannot be given correctly, or gradients of quantized weights.
        """
        pictures, forward_kwargs = take_pictures(
            self._family, {"input_ids": input_ids, "pixel_values": pixel_values, **forward_kwargs}
        )
        check_as_configured(forward_kwargs, self.base.config)
        if torch.is_grad_enabled():
            check_untrained(self.base, "forward() outside of torch.no_grad()")
        request = Request.parse(
            input_ids,
            attention_mask,
            pictures,
            side="right",
            token_budget=token_budget,
            latency=latency,
            seed=seed,
            positions=positions,
            labels=labels,
        )
        run = self._prepare(request)
        output = forward_run(run, forward_kwargs) if run.inside is None else forward_inside(run, forward_kwargs)
        # Typed as what all but those callers get.
        return output if forward_kwargs.get("return_dict") is not False else output.to_tuple()  # type: ignore[return-value]

    def _prepare(self, request: Request, clock: StageClock | None = None, stages: Stages = PLAIN) -> LLMRun:
        for part in (self.selector, self.scheduler):
            if isinstance(part, nn.Module):
                part.to(self.device)  # After the base went elsewhere.
        return prepare_run(
            self._family, self.selector, self.scheduler, request, language=self._language, clock=clock, stages=stages
        )
