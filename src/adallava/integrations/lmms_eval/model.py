"""The model that lmms-eval runs by `--model adallava`.

    python -m lmms_eval --model adallava --model_args pretrained=tiny,method=question,token_budget=0.25 \\
        --tasks vqav2_val --batch_size 8 --log_samples --output_path out/0.25

Every argument that decides an answer is one of `--model_args`, because lmms-eval's `--use_cache` is keyed by these.
"""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from lmms_eval.api.instance import GenerationResult, TokenCounts
from lmms_eval.api.model import lmms
from lmms_eval.models.model_utils.gen_metrics import log_metrics
from loguru import logger

from adallava.budget import Latency, TokenBudget
from adallava.errors import BudgetError, InputError, UnsupportedModeError
from adallava.evaluation.empties import classify_empty
from adallava.evaluation.plan import sample_seed
from adallava.evaluation.ranks import Ranks
from adallava.generation.output import RunRecord
from adallava.model import AdaLlava
from adallava.records import FULL_METHOD

from .answers import Answered, EmptyWatch, describe
from .generation import batches_alike, cut_at, generation_arguments, stop_strings
from .messages import read_messages
from .placement import choose_device


class RunFailed(SystemExit):
    """Ends the process with exit code 1.

    lmms-eval's command line catches every `Exception`, prints it, and exits with 0: a failed run would look like a
    finished one. Inside a program, catch this, or look at its `__cause__`.
    """


@contextmanager
def _failing_loudly() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        logger.opt(exception=error).error("adallava failed")
        raise RunFailed(f"adallava: {type(error).__name__}: {error}") from error


class AdaLlavaLmms(lmms):  # type: ignore[misc]
    """An `AdaLlava` at one budget, as lmms-eval's chat models are called."""

    is_simple = False

    def __init__(
        self,
        pretrained: str,
        *,
        method: str = FULL_METHOD,
        token_budget: float | int | str = 1.0,
        latency: float | int | str = 1.0,
        scheduler: str | None = None,
        scheduler_adapter: str | None = None,
        adapter: str | None = None,
        positions: str = "original",
        seed: int = 0,
        dtype: str = "auto",
        attn_implementation: str = "sdpa",
        device: str | None = None,
        device_map: Any = None,
        batch_size: int | str = 1,
        max_batch_size: int | None = None,
        verbose: bool = False,
        max_empty_share: float = 0.01,
        **method_options: Any,
    ) -> None:
        """Load the model.

        Args:
            pretrained: bundled name, folder or hub id.
            method: selection method; `full` keeps every token.
            token_budget: a share (0.25) or a count (64) of the vision tokens, see `TokenBudget`.
            latency: a share (0.75) or a count (24) of the LLM's layers, see `Latency`.
            scheduler: which layers run at a latency below 1.0.
            scheduler_adapter: folder of a learned scheduler's weights, if it is not beside the model.
            adapter: folder of a learned method's weights, if it is not beside the model.
            positions: of the kept tokens, "original" or "compact".
            seed: of methods that draw at random; the same sample has the same seed as in `adallava sweep`.
            dtype: of the weights; "auto" is what they are stored in.
            attn_implementation: as in transformers.
            device: see `choose_device`.
            device_map: see `choose_device`.
            batch_size: requests answered together, a number; lmms-eval's command line gives it as text.
            max_batch_size: of lmms-eval's `batch_size=auto`, which is refused; not used.
            verbose: log a line for every sample; with `--verbosity DEBUG` they are logged anyway.
            max_empty_share: share of empty answers above which the run fails, see `EmptyWatch`.
            method_options: constructor arguments of a training-free method.

        Raises:
            RunFailed: for whatever is wrong, with exit code 1.
        """
        super().__init__()
        with _failing_loudly():
            self.batch_size = _parse_batch_size(batch_size)
            self._budget = _parse_budget(method, token_budget)
            self._latency = _parse_latency(scheduler, latency)
            ranks = Ranks.from_environment()
            self._rank, self._world_size = ranks.rank, ranks.world_size
            chosen = choose_device(device, device_map, ranks, torch.cuda.device_count())
            self.accelerator = Accelerator(cpu=chosen.type == "cpu")
            model = AdaLlava.from_pretrained(
                pretrained,
                method=method,
                adapter=adapter,
                dtype=dtype,
                device=chosen,
                attn_implementation=attn_implementation,
                **method_options,
            )
            self._model = model.with_scheduler(scheduler, adapter=scheduler_adapter)
            self._positions: Any = positions
            self._seed = seed
            self._level = "INFO" if verbose else "DEBUG"
            self._max_empty_share = max_empty_share

    @property
    def device(self) -> torch.device:
        """Where the model lies, and where lmms-eval gathers its counts of several processes."""
        return self._model.device

    def clean(self) -> None:
        """Keep the model: lmms-eval's own version deletes every module after one `simple_evaluate`."""

    def generate_until(self, requests: Sequence[Any]) -> list[GenerationResult]:
        """Answer requests of (context, doc_to_messages, gen_kwargs, doc_id, task, split), in their order.

        Raises:
            RunFailed: if any of them cannot be answered, or too many answers are empty.
        """
        answered: dict[int, Answered] = {}
        watch = EmptyWatch(self._max_empty_share)
        start = time.perf_counter()
        with _failing_loudly():
            for places in batches_alike([request.args[2] for request in requests], self.batch_size):
                for place, answer in zip(places, self._answer([requests[p] for p in places]), strict=True):
                    answered[place] = answer
                    watch.see(answer)
                watch.check()
            warning = watch.check(finished=True)
            if warning is not None:
                logger.warning(warning)
        self._log_totals(list(answered.values()), watch.causes, time.perf_counter() - start)
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
        prompts = []
        for request in requests:
            _, doc_to_messages, _, doc_id, task, split = request.args
            prompts.append(read_messages(self._model.processor, doc_to_messages(self.task_dict[task][split][doc_id])))
        images = [image for prompt in prompts for image in prompt.images]
        inputs = self._model.processor(
            images=images or None, text=[prompt.text for prompt in prompts], return_tensors="pt", padding=True
        )
        gen_kwargs = requests[0].args[2]
        output = self._model.generate(
            **{name: tensor.to(self.device) for name, tensor in inputs.items()},
            token_budget=self._budget,
            latency=self._latency,
            seed=[sample_seed(self._seed, str(request.args[3])) for request in requests],
            positions=self._positions,
            **generation_arguments(gen_kwargs),
        )
        tokenizer = self._model.processor.tokenizer
        eos_ids, special_ids = _eos_ids(self._model), frozenset(tokenizer.all_special_ids)
        batch = []
        for row, request in enumerate(requests):
            text = cut_at(output.text[row], stop_strings(gen_kwargs))
            answer = Answered(
                task=request.args[4],
                doc_id=request.args[3],
                text=text,
                prompt_length=output.prompt_lengths[row],
                answer_length=output.answer_lengths[row],
                record=output.records[row],
                layers_run=_layers_run(output.records[row], self._model),
                empty_cause=classify_empty(text, output.answer_ids[row], eos_ids, special_ids),
            )
            logger.log(self._level, describe(answer))
            batch.append(answer)
        return batch

    def _log_totals(self, answers: Sequence[Answered], empties: Counter[str], seconds: float) -> None:
        if not answers:
            return
        num_tokens = sum(answer.answer_length for answer in answers)
        means = {
            "mean_num_vision_tokens": sum(answer.record.num_vision_tokens for answer in answers) / len(answers),
            "mean_tokens_kept": sum(answer.record.tokens_kept for answer in answers) / len(answers),
            "mean_prompt_length": sum(answer.prompt_length for answer in answers) / len(answers),
        }
        counts = {"num_answers": len(answers), "num_empty": sum(empties.values())}
        log_metrics(
            total_elapsed_time=seconds,
            total_gen_tokens=num_tokens,
            avg_speed=num_tokens / seconds,
            additional_metrics=means | counts,
        )


def _result(answer: Answered) -> GenerationResult:
    counts = TokenCounts(input_tokens=answer.prompt_length, output_tokens=answer.answer_length)
    return GenerationResult(text=answer.text, token_counts=counts)


def _parse_batch_size(value: int | str) -> int:
    text = str(value)
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise InputError(f"batch_size={value!r} is not supported: give a whole number of at least 1")
    return int(text)


def _parse_budget(method: str, value: float | int | str) -> TokenBudget:
    budget = TokenBudget.parse(value)
    if method == FULL_METHOD and budget != TokenBudget(ratio=1.0):
        raise BudgetError(f"token_budget={value} with method={FULL_METHOD}, which keeps every token: give a method")
    return budget


def _parse_latency(scheduler: str | None, value: float | int | str) -> Latency:
    latency = Latency.parse(value)
    if scheduler is None and not latency.is_full:
        raise BudgetError(
            f"latency={value} leaves layers of the LLM out: give a scheduler that says which, or latency=1.0"
        )
    return latency


def _layers_run(record: RunRecord, model: AdaLlava) -> float:
    if record.layers is None:
        return float(model.base.config.get_text_config().num_hidden_layers)
    return float(sum(record.layers.layer_shares))


def _eos_ids(model: AdaLlava) -> frozenset[int]:
    eos = model.base.generation_config.eos_token_id
    return frozenset(eos if isinstance(eos, list) else [] if eos is None else [eos])
