"""The model that lmms-eval runs by `--model adallava`.

    python -m lmms_eval --model adallava --model_args pretrained=tiny,method=question,token_budget=0.25 \\
        --tasks vqav2_val --batch_size 8 --log_samples --output_path out/0.25

Every argument that decides an answer is one of `--model_args`, because lmms-eval's `--use_cache` is keyed by these.
"""

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Self

import torch
from lmms_eval.api.instance import GenerationResult, TokenCounts
from lmms_eval.api.model import lmms
from lmms_eval.models.model_utils.gen_metrics import log_metrics
from lmms_eval.utils import simple_parse_args_string
from loguru import logger

from adallava.errors import AdallavaError, InputError, UnsupportedModeError
from adallava.integrations.lmms_eval.answered import Answered, describe
from adallava.integrations.lmms_eval.device import choose_device
from adallava.integrations.lmms_eval.empty_answers import ENOUGH_TO_STOP, check_empties, most_answers, outcomes_of
from adallava.integrations.lmms_eval.generation import batches_alike, cut_at, generation_arguments, stop_strings
from adallava.integrations.lmms_eval.messages import ChatPrompt, check_nothing_is_left_out, read_messages
from adallava.integrations.lmms_eval.settings import Settings, join_arguments
from adallava.integrations.lmms_eval.totals import Totals, over_processes
from adallava.model import AdaLlava
from adallava.pipeline.decoding import decoding_of, generate_arguments, in_words, values_of_checkpoint
from adallava.pipeline.result import AdaLlavaOutput
from adallava.processors.picture_cuts import find_frames
from adallava.processors.stock_processor import check_pixels, make_inputs
from adallava.records import FULL_METHOD
from adallava.records.cells import sample_seed
from adallava.records.picture_frames import seen_share
from adallava.registry import load_selector_class
from adallava.report.seen import cut_words
from adallava.runs.batches import describe_error
from adallava.runs.empty_causes import classify_empty, eos_ids_of
from adallava.runs.loading import load_base
from adallava.runs.ranks import Ranks


class RunFailed(SystemExit):
    """Ends the process with exit code 1.

    lmms-eval's command line catches every `Exception`, prints it, and exits with 0: a failed run would look like a
    finished one. Inside a program, catch this, or look at its `__cause__`.
    """


@contextmanager
def _failing_loudly() -> Iterator[None]:
    try:
        yield
    except AdallavaError as error:  # says itself what was wrong
        logger.opt(exception=error).debug("adallava failed")
        raise RunFailed(f"adallava: {_with_notes(str(error), error)}") from error
    except Exception as error:
        logger.opt(exception=error).error("adallava failed")
        raise RunFailed(f"adallava: {_with_notes(describe_error(error), error)}") from error


def _with_notes(message: str, error: Exception) -> str:
    return " ".join((message, *(f"({note})" for note in getattr(error, "__notes__", ()))))


class AdaLlavaLmms(lmms):  # type: ignore[misc]
    """An `AdaLlava` at one budget, as lmms-eval's chat models are called."""

    is_simple = False

    def __init__(self, pretrained: str, **arguments: Any) -> None:
        """Load the model.

        Args:
            pretrained: bundled name, folder or hub id.
            arguments: see `Settings`; of other names, options of a training-free method.

        Raises:
            RunFailed: for whatever is wrong, with exit code 1.
        """
        super().__init__()
        with _failing_loudly():
            self._settings = Settings.read(pretrained, **arguments)
            self.batch_size = self._settings.config.batch_size
            ranks = Ranks.from_environment()
            self._rank, self._world_size = ranks.rank, ranks.world_size
            device = choose_device(
                self._settings.config.device, self._settings.device_map, ranks, torch.cuda.device_count()
            )
            self._model = _load(self._settings, str(device))
            self._decoding = decoding_of(self._model.base.generation_config)
            left_out = values_of_checkpoint(self._model.base.generation_config)
            if left_out:
                logger.warning(
                    f"the checkpoint's generation_config sets {in_words(left_out)}, which is not taken: --gen_kwargs "
                    "asks for it, and lmms-eval's results then name it"
                )
            self._level = "INFO" if self._settings.verbose else "DEBUG"
            self._totals = Totals()

    @classmethod
    def create_from_arg_string(cls, arg_string: str, additional_config: Mapping[str, Any] | None = None) -> Self:
        """Load the model as lmms-eval's command line asks for it.

        Args:
            arg_string: `name=value,name=value`, of `--model_args`.
            additional_config: what further options of the command line say; None is nothing said.

        Raises:
            RunFailed: for whatever is wrong, with exit code 1.
        """
        with _failing_loudly():
            try:
                given = simple_parse_args_string(arg_string)
            except ValueError as error:
                raise InputError(f"--model_args {arg_string!r} cannot be read: write name=value,name=value") from error
            arguments = join_arguments(given, additional_config or {})
        return cls(**arguments)

    @property
    def chat_template(self) -> str:
        """Refuse `--apply_chat_template`.

        Raises:
            RunFailed: always.
        """
        with _failing_loudly():
            raise UnsupportedModeError(
                "leave --apply_chat_template out: every prompt goes through the chat template of the checkpoint anyway"
            )
        return ""

    apply_chat_template = chat_template

    @property
    def device(self) -> torch.device:
        """Where the model lies, and where lmms-eval gathers its counts of several processes."""
        return self._model.device

    def clean(self) -> None:
        """Judge and report on all answers: lmms-eval calls this in every process, when the last one has answered.

        The model is kept: lmms-eval's own version deletes every module after one `simple_evaluate`.

        Raises:
            RunFailed: in every process, if too many answers to a task are empty.
        """
        with _failing_loudly():
            totals, self._totals = over_processes(self._totals), Totals()
            try:
                warnings = check_empties(totals.outcomes, self._settings.max_empty_share)
            except AdallavaError as error:
                # By now lmms-eval has logged every answer in its cache: a launch of the same id reads them all again.
                error.add_note(
                    "with --use_cache, take another cache folder: a restart would score these answers unseen"
                )
                raise
        if totals.answers and self.rank == 0:
            cut = cut_words(totals.seen, "pad_to_square=True in --model_args")
            for warning in (*warnings, *([] if cut is None else [cut])):
                logger.warning(warning)
            log_metrics(
                total_elapsed_time=totals.seconds,
                total_gen_tokens=totals.new_tokens,
                avg_speed=totals.new_tokens / totals.seconds,
                additional_metrics=totals.metrics(),
            )

    def generate_until(self, requests: Sequence[Any]) -> list[GenerationResult]:
        """Answer requests of (context, doc_to_messages, gen_kwargs, doc_id, task, split), in their order.

        Raises:
            RunFailed: if any of them cannot be answered, or so many answers to a task are empty that the run will fail.
        """
        answered: dict[int, Answered] = {}
        padding = {place for place, request in enumerate(requests) if request.metadata.get("__padding_only__")}
        own = [request for place, request in enumerate(requests) if place not in padding]
        most = most_answers(
            Counter(request.args[4] for request in own), max((r.repeats for r in own), default=1), self.world_size
        )
        max_share, outcomes = self._settings.max_empty_share, outcomes_of(())
        start = time.perf_counter()
        with _failing_loudly():
            for places in batches_alike([request.args[2] for request in requests], self.batch_size):
                answered |= zip(places, self._answer([requests[place] for place in places]), strict=True)
                outcomes += outcomes_of(answered[place] for place in places if place not in padding)
                check_empties(outcomes, max_share, most, enough=ENOUGH_TO_STOP)
            # Also here, not in `clean` alone: lmms-eval keeps in its cache whatever is returned.
            check_empties(outcomes, max_share, most)
        counted = [answer for place, answer in answered.items() if place not in padding]
        shares = [share for answer in counted for share in answer.seen_shares]
        self._totals = self._totals.then(Totals.of(counted, time.perf_counter() - start, shares))
        return [_result(answered[place]) for place in range(len(requests))]

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        """Refuse.

        Raises:
            RunFailed: always.
        """
        with _failing_loudly():
            raise UnsupportedModeError("tasks of several rounds are not supported: only `generate_until`")
        return []

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Refuse.

        Raises:
            RunFailed: always.
        """
        with _failing_loudly():
            raise UnsupportedModeError(
                "tasks scored by log-likelihood are not supported: only `generate_until`; many tasks have both forms"
            )
        return []

    def _answer(self, requests: Sequence[Any]) -> list[Answered]:
        prompts = [self._read(request) for request in requests]
        images = [image for prompt in prompts for image in prompt.images]
        inputs = make_inputs(self._model.processor, images or None, [prompt.text for prompt in prompts])
        settings, gen_kwargs = self._settings, requests[0].args[2]
        try:
            if images:
                check_pixels(inputs["pixel_values"])
            output = self._model.generate(
                **{name: tensor.to(self.device) for name, tensor in inputs.items()},
                **settings.cell.call(),
                seed=[sample_seed(settings.config.seed, str(request.args[3])) for request in requests],
                **{**generate_arguments(self._decoding), **generation_arguments(gen_kwargs)},
            )
        except Exception as error:
            error.add_note(", ".join(f"{request.args[4]} doc {request.args[3]}" for request in requests))
            raise
        batch = [
            self._answered(request, row, output, self._seen_shares(prompt))
            for row, (request, prompt) in enumerate(zip(requests, prompts, strict=True))
        ]
        for answer in batch:
            logger.log(self._level, describe(answer))
        return batch

    def _read(self, request: Any) -> ChatPrompt:
        context, doc_to_messages, _, doc_id, task, split = request.args
        try:
            messages = doc_to_messages(self.task_dict[task][split][doc_id])
            check_nothing_is_left_out(context, messages)
            return read_messages(self._model.processor, messages)
        except AdallavaError as error:
            error.add_note(f"{task} doc {doc_id}")
            raise
        except Exception as error:  # whatever a file does to a decoder, or a task's own code raises
            raise InputError(f"{task} doc {doc_id} cannot be read: {describe_error(error)}") from error

    def _seen_shares(self, prompt: ChatPrompt) -> tuple[float, ...]:
        frames = find_frames(self._model.processor, [image.size for image in prompt.images])
        return tuple(round(seen_share(frame), 4) for frame in frames or ())

    def _answered(self, request: Any, row: int, output: AdaLlavaOutput, seen_shares: tuple[float, ...]) -> Answered:
        _, _, gen_kwargs, doc_id, task, _ = request.args
        text = cut_at(output.text[row], stop_strings(gen_kwargs))
        special_ids = frozenset(self._model.processor.tokenizer.all_special_ids)
        return Answered(
            task=task,
            doc_id=doc_id,
            text=text,
            ran=output.records[row],
            layers_run=output.records[row].layer_share * self._model.family.num_llm_layers,
            empty_cause=classify_empty(text, output.answer_ids[row], eos_ids_of(self._model), special_ids),
            seen_shares=seen_shares,
        )


def _result(answer: Answered) -> GenerationResult:
    counts = TokenCounts(input_tokens=answer.ran.prompt_length, output_tokens=answer.ran.answer_length)
    return GenerationResult(text=answer.text, token_counts=counts)


def _load(settings: Settings, device: str) -> AdaLlava:
    config, cell = settings.config, settings.cell
    if cell.method != FULL_METHOD:
        load_selector_class(cell.method)  # A misspelled method is reported before gigabytes are read.
    options: dict[str, Any] = dict(config.method_options.get(cell.method, {}))
    full = load_base(config.model_copy(update={"device": device}))
    model = full.with_method(cell.method, settings.adapter, **options)
    if cell.scheduler is None:
        return model
    options = dict(config.scheduler_options.get(cell.scheduler, {}))
    return model.with_scheduler(cell.scheduler, adapter=settings.scheduler_adapter, **options)
