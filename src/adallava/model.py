"""The model: a stock Llava, a selection method beside it, and how the two are driven."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from adallava.adapters import load_adapter, load_scheduler, save_adapter, weights_sha256
from adallava.budget import Latency, TokenBudget
from adallava.errors import CheckpointError
from adallava.families import load_family, weights_folder, wrap_model
from adallava.families.contract import Family, check_needs, check_scheduler
from adallava.generation.clock import PrefillMark, StageClock
from adallava.generation.compact import Positions
from adallava.generation.layout import Side
from adallava.generation.llm_run import LLMRun, prepare_run
from adallava.generation.modes import plan_generation
from adallava.generation.output import (
    AdaLlavaOutput,
    ForwardOutput,
    SampleSelection,
    describe_selections,
    read_answers,
)
from adallava.generation.request import Request, one_each
from adallava.generation.run_forward import choose_inside, forward_inside, forward_run
from adallava.language import make_language
from adallava.processor import AdaLlavaProcessor, build_prompt, folder_or_id_of
from adallava.records import FULL_METHOD
from adallava.registry import load_scheduler_class, load_selector_class
from adallava.scheduling import build_scheduler
from adallava.scheduling.contract import Scheduler, has_free_token
from adallava.selection import build_selector
from adallava.selection.contract import TowerShape, WordsMethod
from adallava.selection.layer_contract import AnySelector, LayerSelector

__all__ = ["AdaLlava", "AdaLlavaProcessor", "BudgetLike", "ForwardOutput", "LatencyLike", "build_prompt"]

BudgetLike = float | int | str | TokenBudget
"""A share (`0.25`, `"25%"`) or a count (`64`) of the vision tokens; see `TokenBudget`."""

LatencyLike = float | int | str | Latency
"""A share (`0.75`, `"75%"`) or a count (`24`) of the LLM's layers; see `Latency`."""


class AdaLlava:
    """A stock Llava that answers from K of its N vision tokens.

    The base is held, never changed: models that share one (see `with_method`) may be used side by side, and
    no call leaves anything behind on it.

    Attributes:
        processor: makes `input_ids` and `pixel_values`, and decodes answers.
        selector: the method; None for the full-token model.
        name_or_path: as it was asked for.
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
    ) -> None:
        """Drive an already loaded transformers model.

        Args:
            base: a `LlavaForConditionalGeneration`.
            processor: its processor.
            selector: a method, with its weights if it is a learned one; None for the full-token model.
            name_or_path: where the base's files are: a bundled name, a folder or a hub id.
            adapter_sha256: of the selector's weights file.
            scheduler: which layers of the LLM run at a latency below 1.0.
            scheduler_sha256: of the scheduler's weights file.

        Raises:
            UnsupportedModeError: for a model family that is not supported, or a method or scheduler that needs what it
                lacks.
            CheckpointError: if the base lies on several devices or is not floating-point, or the method's text tower
                cannot be loaded.
        """
        self._family = wrap_model(base)
        if selector is not None:
            check_needs(self._family, selector, name_or_path)
        self.processor = processor
        self.selector = selector.to(self.device) if isinstance(selector, nn.Module) else selector
        self.name_or_path = name_or_path
        self.adapter_sha256 = adapter_sha256
        if scheduler is not None:
            check_scheduler(self._family, scheduler)
        self.scheduler = scheduler.to(self.device).eval() if isinstance(scheduler, nn.Module) else scheduler
        self.scheduler_sha256 = scheduler_sha256
        self._language = make_language(self._family, self.selector, processor)

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str,
        *,
        method: str = "question",
        adapter: str | Path | None = None,
        dtype: str | torch.dtype = "auto",
        device: str | torch.device | None = None,
        attn_implementation: str = "sdpa",
        allow_other_base: bool = False,
        **selector_options: Any,
    ) -> "AdaLlava":
        """Load a model and a selection method for it.

        Args:
            name_or_path: a bundled name (`tiny`), a folder, or a hub id, of a checkpoint in stock format.
            method: a name of `adallava.registry.selector_names()`, or "full" for the full-token model.
            adapter: folder of a learned method's weights; by default `<folder>/adapters/<method>`.
            dtype: of the base; "auto" is the checkpoint's own.
            device: one device for everything; by default CUDA if there is one.
            attn_implementation: "sdpa" or "eager".
            allow_other_base: accept an adapter that was trained on other weights of the same shapes.
            selector_options: constructor arguments of a training-free method.

        Raises:
            CheckpointError: if files are missing, damaged, or the adapter belongs to another base.
            UnsupportedModeError: for a model family that is not supported.
            UnknownNameError: for an unknown method.
        """
        if method != FULL_METHOD:
            load_selector_class(method)  # A misspelt method is told before gigabytes are read.
        folder_or_id = folder_or_id_of(name_or_path)
        family = load_family(
            folder_or_id, dtype=dtype, device=_pick_device(device), attn_implementation=attn_implementation
        )
        full = cls(family.model, AdaLlavaProcessor.from_pretrained(name_or_path), name_or_path=name_or_path)
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
        folder = self._learned_folder("method", method, load_selector_class(method), adapter, selector_options)
        if folder is None:
            return self.with_selector(build_selector(method, self.shape, **selector_options))
        loaded = load_adapter(
            folder,
            method=method,
            shape=self.shape,
            base_weights_sha256=self.weights_sha256,
            allow_other_base=allow_other_base,
        )
        return self.with_selector(loaded.selector, adapter_sha256=loaded.sha256)

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
            adapter: folder of a learned scheduler's weights; by default `<folder>/adapters/<scheduler>`.
            allow_other_base: accept an adapter that was trained on other weights of the same shapes.
            options: constructor arguments of a scheduler that is not learned.

        Raises:
            CheckpointError: if files are missing, damaged, or the adapter belongs to another base.
            UnsupportedModeError: for an LLM whose layers are not known, or cannot be split as the scheduler wants.
            UnknownNameError: for an unknown scheduler.
        """
        if not isinstance(scheduler, str):
            return self._with(self.selector, self.adapter_sha256, scheduler, None)
        folder = self._learned_folder("scheduler", scheduler, load_scheduler_class(scheduler), adapter, options)
        shape = self._family.decoder().shape
        if folder is None:
            made = build_scheduler(scheduler, shape, **options)
            return self._with(self.selector, self.adapter_sha256, made, None)
        loaded = load_scheduler(
            folder,
            name=scheduler,
            shape=shape,
            base_weights_sha256=self.weights_sha256,
            allow_other_base=allow_other_base,
        )
        return self._with(self.selector, self.adapter_sha256, loaded.scheduler, loaded.sha256)

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
        if "weights_sha256" in self.__dict__:
            other.__dict__["weights_sha256"] = self.weights_sha256
        return other

    @property
    def family(self) -> Family:
        """The stages of the model, for training and for tools."""
        return self._family

    @property
    def base(self) -> Any:
        """The stock transformers model."""
        return self._family.model

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

    @cached_property
    def weights_sha256(self) -> str:
        """SHA-256 of the base's safetensors files. Reads them all, once.

        Raises:
            CheckpointError: if the model was not made from files.
        """
        if not self.name_or_path:
            raise CheckpointError("this model was made in memory: pass name_or_path to have its weights hashed")
        return weights_sha256(weights_folder(folder_or_id_of(self.name_or_path)))

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
        image_sizes: Tensor | None = None,
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
            pixel_values: [I, 3, H, W], one row per image, in the order of the prompts.
            image_sizes: [I, 2], of a processor that gives them: pictures of LLaVA-NeXT differ in their N.
            token_budget: one for all samples, or one each.
            latency: how much of the LLM runs, 1.0 for all of it; one for all samples, or one each.
            seed: of methods and schedulers that draw; one for all samples, or one each.
            positions: "original" keeps each token's position in the full prompt; "compact" counts anew.
            clock: measures the parts, if given.
            generation_kwargs: transformers' own. `max_length` counts the full prompt, as in the stock model.

        Raises:
            BudgetError: for a budget or latency that means nothing, or that the method "full", or the scheduler, cannot
                give.
            InputError: if prompts and images do not fit together.
            UnsupportedModeError: for a mode of generation that cannot be given correctly.
        """
        request = self._request(
            input_ids, attention_mask, pixel_values, image_sizes, token_budget, latency, seed, positions, side="left"
        )
        plan = plan_generation(
            generation_kwargs,
            self.base.generation_config,
            prompt_columns=input_ids.shape[1],
            inside_llm=isinstance(self.selector, LayerSelector)
            or request.skips_layers
            or has_free_token(self.scheduler),
        )
        if clock is not None:
            clock.start()
        run = self._prepare(request, clock)
        batch = run.prepared.batch
        kwargs = dict(plan.kwargs)
        if clock is not None:
            kwargs["logits_processor"] = [*(kwargs.get("logits_processor") or []), PrefillMark(clock)]
        result = run.model().generate(
            input_ids=batch.input_ids,
            inputs_embeds=batch.inputs_embeds,
            attention_mask=batch.attention_mask,
            position_ids=batch.position_ids,
            **kwargs,
        )
        if clock is not None:
            clock.mark("decode")
        return read_answers(result, plan, run.settled(), self.processor, positions, clock)

    @torch.no_grad()
    def select(
        self,
        *,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        image_sizes: Tensor | None = None,
        token_budget: BudgetLike | Sequence[BudgetLike],
        seed: int | Sequence[int] = 0,
        positions: Positions = "original",
    ) -> tuple[SampleSelection, ...]:
        """Return what each sample would keep. Arguments as for `generate`.

        The LLM does not run; for a method inside it, its layers run as far as the last drop, and what they look at
        depends on the positions.
        """
        request = self._request(
            input_ids, attention_mask, pixel_values, image_sizes, token_budget, 1.0, seed, positions, side="left"
        )
        run = self._prepare(request)
        return describe_selections(run.prepared if run.inside is None else choose_inside(run.inside))

    def forward(
        self,
        *,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        image_sizes: Tensor | None = None,
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
            forward_kwargs: for the base's own forward, for instance `logits_to_keep`.

        Raises:
            BudgetError: for a budget that means nothing.
            InputError: if prompts, images and labels do not fit together.
        """
        run = self._prepare(
            self._request(
                input_ids,
                attention_mask,
                pixel_values,
                image_sizes,
                token_budget,
                latency,
                seed,
                positions,
                side="right",
                labels=labels,
            )
        )
        return forward_run(run, forward_kwargs) if run.inside is None else forward_inside(run, forward_kwargs)

    def _prepare(self, request: Request, clock: StageClock | None = None) -> LLMRun:
        return prepare_run(self._family, self.selector, self.scheduler, request, language=self._language, clock=clock)

    def _request(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        pixel_values: Tensor | None,
        image_sizes: Tensor | None,
        token_budget: BudgetLike | Sequence[BudgetLike],
        latency: LatencyLike | Sequence[LatencyLike],
        seed: int | Sequence[int],
        positions: Positions,
        *,
        side: Side,
        labels: Tensor | None = None,
    ) -> Request:
        return Request(
            input_ids=input_ids,
            attention_mask=attention_mask,
            pixel_values=pixel_values,
            image_sizes=image_sizes,
            budgets=[TokenBudget.parse(budget) for budget in one_each(token_budget, len(input_ids))],
            seeds=[int(value) for value in one_each(seed, len(input_ids))],
            positions=positions,
            side=side,
            latencies=[Latency.parse(value) for value in one_each(latency, len(input_ids))],
            labels=labels,
        )

    def _learned_folder(
        self, kind: str, name: str, cls: type[Any], adapter: str | Path | None, options: dict[str, Any]
    ) -> str | Path | None:
        """Return the folder of a learned method's or scheduler's weights; None for one that is not learned."""
        if not cls.learned:
            if adapter is not None:
                raise CheckpointError(f"{kind} {name!r} is not learned: it takes no adapter ({str(adapter)!r})")
            return None
        if options:
            raise CheckpointError(
                f"{kind} {name!r} takes its options from its adapter, not from the call: {', '.join(sorted(options))}"
            )
        if adapter is not None:
            return adapter
        folder = weights_folder(folder_or_id_of(self.name_or_path)) / "adapters" / name
        if not folder.is_dir():
            without = "'uniform' or 'full'" if kind == "method" else "'first' or 'spaced'"
            raise CheckpointError(
                f"{self.name_or_path!r} has no adapter for the learned {kind} {name!r} (looked for {folder}): "
                f"train one, pass adapter=…, or choose a {kind} that needs none, such as {without}"
            )
        return folder


def _pick_device(device: str | torch.device | None) -> torch.device:
    if device is not None:
        return torch.device(device)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
