"""The calls of a model: answers, choices without answers, one pass with gradients."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from adallava.budget import BudgetLike, LatencyLike
from adallava.engines import WarmUp, warm_up
from adallava.errors import InputError
from adallava.families.capabilities.of_llms import adds_rows, window_tokens
from adallava.families.capabilities.of_pictures import take_pictures
from adallava.families.family_contract import VisionFeatures
from adallava.families.quantization import check_untrained
from adallava.model_facts import ModelFacts
from adallava.pipeline.call import Request
from adallava.pipeline.clock import StageClock
from adallava.pipeline.forward import choose_inside, forward_inside, forward_run
from adallava.pipeline.generation_bounds import check_generation_bounds
from adallava.pipeline.modes import DEFAULT_NEW_TOKENS, GenerationPlan, asked_values, plan_generation
from adallava.pipeline.pack import Positions
from adallava.pipeline.picture_features import PictureFeatures, encode_pictures
from adallava.pipeline.program import LLMRun, prepare_run
from adallava.pipeline.prompt_limit import warn_of_positions
from adallava.pipeline.result import AdaLlavaOutput, ForwardOutput, describe_choice, read_answers
from adallava.pipeline.skips import SampleLayers
from adallava.pipeline.stage_runner import PLAIN, StageContext, Stages
from adallava.pipeline.stock_arguments import check_as_configured
from adallava.records import WhatRan
from adallava.scheduling.scheduler_contract import Scheduler, has_free_token
from adallava.selection.layer_contract import LayerSelector


class ModelCalls(ModelFacts):
    """What runs a model; see `AdaLlava`.

    Attributes:
        processor: decodes answers; None for a model that does not `generate`.
        scheduler: of the LLM's layers; None runs them all.
    """

    processor: Any
    scheduler: Scheduler | None

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
        """Prepare for the sizes of later calls, so that none of them waits; see `engines.warming.warm_up`.

        Args:
            batch_sizes: samples per call.
            token_budgets: of the samples.
            latencies: of the samples.
            text_tokens: tokens of a prompt without its image.
            max_new_tokens: the longest answer.
            compiled: compile the LLM's layers too: about half a minute, for faster answers afterwards.

        Raises:
            InputError: for a model whose images differ in their number of tokens, or a size that means nothing.
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
        """Say how many passes will be decoded; return whether the LLM's layers are compiled for them.

        With engine "auto" they are, if the passes repay it: see `engines.pick.REPAYING_PASSES`.
        """
        return self._engines.compile_if_repaid(passes)

    def release(self) -> None:
        """Free the memory that engines hold between calls: graphs and caches. The next call makes them again."""
        self._engines.release()

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
            pixel_values: the images in the order of the prompts, as the processor makes them. Pass its other outputs by
                name, such as image sizes.
            token_budget: one for all samples, or one each.
            latency: how much of the LLM runs, 1.0 for all of it; one for all samples, or one each.
            seed: of methods and schedulers that draw; one for all samples, or one each.
            positions: "original" keeps each token's position in the full prompt; "compact" renumbers them.
            clock: times the parts, if given.
            generation_kwargs: transformers' own, over the model's `generation_config`, as in the stock model:
                `max_length` counts the full prompt. docs/concepts/decoding.md says which are supported.

        Raises:
            BudgetError: for a budget or latency that means nothing, or that the method "full", or the scheduler, cannot
                give.
            InputError: if prompts and images do not fit together, or the model has no processor.
            UnsupportedModeError: for an unsupported mode of generation.
        """
        if self.processor is None:
            raise InputError(
                "generate decodes answers with the processor's tokenizer, and this model was made without a processor: "
                "AdaLlava(base, processor)"
            )
        request, generation_kwargs = self._read(
            input_ids,
            attention_mask,
            {"pixel_values": pixel_values, **generation_kwargs},
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
        features: PictureFeatures | None = None,
        **processed: Any,
    ) -> tuple[WhatRan, ...]:
        """Return what each sample would keep, without an answer. Arguments as for `generate`.

        The LLM does not run; for a method inside it, its layers run as far as the last drop, and what they look at
        depends on the positions.

        Args:
            features: of the same images, by `encode_pictures`: the tower does not run again.

        Raises:
            InputError: also for an unknown argument, or features of other images.
        """
        request = self._read_known(
            "select",
            input_ids,
            attention_mask,
            {"pixel_values": pixel_values, **processed},
            token_budget=token_budget,
            seed=seed,
            positions=positions,
        )
        vision = None if features is None else features.of(self.selector, request.pictures)
        run = self._prepare(request, vision=vision)
        chosen = run.prepared if run.inside is None else choose_inside(run, run.inside)
        return describe_choice(chosen, run.request, self.scheduler, window_tokens(self._family))

    @torch.no_grad()
    def encode_pictures(
        self, *, input_ids: Tensor, pixel_values: Tensor, attention_mask: Tensor | None = None, **processed: Any
    ) -> PictureFeatures:
        """Run only the tower, for several calls of `select` with the same images and method.

        Arguments as for `generate`. A method whose tower sees each budget differently runs it again in every call.

        Raises:
            InputError: for an unknown argument.
        """
        given = {"pixel_values": pixel_values, **processed}
        request = self._read_known("encode_pictures", input_ids, attention_mask, given)
        return encode_pictures(self._family, self.selector, request)

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
        """Return which parts of the LLM would run for each sample, without an answer; None if all layers run for all.

        Arguments as for `generate`. The LLM runs as far as the scheduler reads it, and not at all for one that reads
        no prompt.

        Raises:
            InputError: also for an unknown argument.
        """
        request = self._read_known(
            "read_layers",
            input_ids,
            attention_mask,
            {"pixel_values": pixel_values, **processed},
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
            InputError: if prompts, images and labels do not fit together, or for an unknown argument.
            UnsupportedModeError: for an unsupported argument, or gradients of quantized weights.
        """
        request, forward_kwargs = self._read(
            input_ids,
            attention_mask,
            {"pixel_values": pixel_values, **forward_kwargs},
            side="right",
            token_budget=token_budget,
            latency=latency,
            seed=seed,
            positions=positions,
            labels=labels,
        )
        check_as_configured(forward_kwargs, self.base.config)
        if torch.is_grad_enabled():
            check_untrained(self.base, "forward() outside of torch.no_grad()")
        run = self._prepare(request)
        output = forward_run(run, forward_kwargs) if run.inside is None else forward_inside(run, forward_kwargs)
        # Typed as what all but those callers get.
        return output if forward_kwargs.get("return_dict") is not False else output.to_tuple()  # type: ignore[return-value]

    def _read(
        self, input_ids: Tensor, attention_mask: Tensor | None, given: Mapping[str, Any], **asked: Any
    ) -> tuple[Request, dict[str, Any]]:
        """Return the request of a call, see `Request.parse`, and the arguments that no processor makes."""
        pictures, rest = take_pictures(self._family, {"input_ids": input_ids, **given})
        return Request.parse(input_ids, attention_mask, pictures, **asked), rest

    def _read_known(
        self, taker: str, input_ids: Tensor, attention_mask: Tensor | None, given: Mapping[str, Any], **asked: Any
    ) -> Request:
        """Return the request of a call that takes what a processor makes, and nothing else.

        Raises:
            InputError: for another argument.
        """
        request, unknown = self._read(input_ids, attention_mask, given, side="left", **asked)
        for name in unknown:
            raise InputError(f"{taker} takes no {name}")
        return request

    def _prepare(
        self,
        request: Request,
        clock: StageClock | None = None,
        stages: Stages = PLAIN,
        vision: VisionFeatures | None = None,
    ) -> LLMRun:
        for part in (self.selector, self.scheduler):
            if isinstance(part, nn.Module):
                part.to(self.device)  # After the base went elsewhere.
        context = StageContext(self._language, vision, clock, stages)
        return prepare_run(self._family, self.selector, self.scheduler, request, context)
