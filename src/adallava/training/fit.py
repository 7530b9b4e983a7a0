"""Runs one stage with `transformers.Trainer`: optimiser, schedule, checkpoints, resuming, logs."""

import json
import os
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils.data import Dataset, Sampler, SequentialSampler
from transformers import Trainer, TrainingArguments

from adallava.errors import CheckpointError, InputError, TrainingError
from adallava.training.examples import Example
from adallava.training.recipe import Recipe

WEIGHTS = "trained.safetensors"

_NOT_SAVED = (
    "training stops and nothing of it is saved as a model or adapter; lower learning_rate or clip_norm in the recipe, "
    "and give another --output"
)


class StageTrainer(Trainer):  # type: ignore[misc]
    """A `Trainer` that reads examples in order, logs every part of the loss and saves only what is trained."""

    def __init__(
        self,
        *args: Any,
        schedule_steps: int | None = None,
        selector_learning_rate: float | None = None,
        **kwargs: Any,
    ) -> None:
        """Start with empty running sums of the parts of the loss."""
        self._schedule_steps = schedule_steps
        self._selector_learning_rate = selector_learning_rate
        self._started = time.perf_counter()
        self._sums: dict[str, torch.Tensor] = {}
        self._steps: dict[str, int] = defaultdict(int)
        super().__init__(*args, **kwargs)

    def _get_train_sampler(self, train_dataset: Dataset[Any] | None = None) -> Sampler[int]:
        # Scenes are drawn by index, and a user's own data lie shuffled: a resumed run goes on where it stopped.
        return SequentialSampler(self.train_dataset)

    def compute_loss(self, model: nn.Module, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:
        """Return the objective's `loss`, and remember its other parts for the log.

        Raises:
            TrainingError: if the loss is not a finite number.
        """
        outputs = model(**inputs)
        if not bool(outputs["loss"].detach().isfinite()):
            raise TrainingError(
                f"the loss is {float(outputs['loss'])} at step {self.state.global_step + 1} of {self.args.max_steps}: "
                f"{_NOT_SAVED}"
            )
        for name, value in outputs.items():
            if name != "loss":
                self._sums[name] = self._sums.get(name, 0.0) + value.detach()
                self._steps[name] += 1
        return (outputs["loss"], outputs) if return_outputs else outputs["loss"]

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Add the mean of each part of the loss since the last line of the log, and the seconds of this process."""
        for name, total in self._sums.items():
            logs[name] = round(float(total) / self._steps[name], 5)
        self._sums, self._steps = {}, defaultdict(int)
        logs["seconds"] = round(time.perf_counter() - self._started, 2)
        super().log(logs, *args, **kwargs)

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """Make AdamW over the trained parameters; matrices decay, vectors and embeddings do not."""
        groups: dict[tuple[float, float], list[nn.Parameter]] = defaultdict(list)
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                decays = parameter.ndim >= 2 and "embed" not in name
                beside = {"selector", "scheduler"} & set(name.split("."))
                rate = self._selector_learning_rate if beside else None
                key = (self.args.weight_decay if decays else 0.0, rate or self.args.learning_rate)
                groups[key].append(parameter)
        self.optimizer = torch.optim.AdamW(
            [{"params": found, "weight_decay": decay, "lr": rate} for (decay, rate), found in groups.items()],
            lr=self.args.learning_rate,
            betas=(self.args.adam_beta1, self.args.adam_beta2),
            fused=True,
        )
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> Any:
        """Make the schedule; a stage may stop before the schedule's end."""
        return super().create_scheduler(self._schedule_steps or num_training_steps, optimizer)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        folder = Path(output_dir or self.args.output_dir)
        self.check_weights()
        folder.mkdir(parents=True, exist_ok=True)
        save_file(trained_state(self.model), folder / WEIGHTS)

    def check_weights(self) -> None:
        """Refuse to save what learned into nothing: a finite loss may have had a gradient that is not.

        Raises:
            TrainingError: naming the first parameter that is not finite.
        """
        for name, parameter in trained_state(self.model).items():
            if not bool(parameter.isfinite().all()):
                raise TrainingError(f"{name} is no longer finite at step {self.state.global_step}: {_NOT_SAVED}")

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        target = self.model if model is None else model
        saved = load_file(Path(resume_from_checkpoint) / WEIGHTS)
        if saved.keys() != trained_state(target).keys():
            raise CheckpointError(
                f"{resume_from_checkpoint} holds other parameters than this stage trains: give another --output"
            )
        # Not strict: the frozen rest of the base is not in a checkpoint.
        target.load_state_dict(saved, strict=False)


def trained_state(objective: nn.Module) -> dict[str, torch.Tensor]:
    """Return the parameters that learn, each once: the frozen base stays where it is."""
    return {n: p.detach().contiguous() for n, p in objective.named_parameters() if p.requires_grad}


class _OneDevice(TrainingArguments):  # type: ignore[misc]
    """With several GPUs, `Trainer` would split a batch by rows, whose numbers differ between our batches' tensors."""

    @property
    def n_gpu(self) -> int:
        """At most one."""
        return min(1, int(super().n_gpu))


def arguments(recipe: Recipe, folder: Path, device: torch.device) -> TrainingArguments:
    """Translate a recipe into `TrainingArguments`."""
    settings = recipe.optimisation
    assert settings is not None
    return _OneDevice(
        output_dir=str(folder / "checkpoints"),
        max_steps=settings.steps,
        per_device_train_batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        lr_scheduler_type=settings.schedule,
        warmup_steps=settings.warmup_steps,
        weight_decay=settings.weight_decay,
        adam_beta2=settings.adam_beta2,
        max_grad_norm=settings.clip_norm,
        seed=recipe.seed,
        use_cpu=device.type == "cpu",
        bf16=device.type == "cuda",
        logging_nan_inf_filter=False,
        logging_steps=max(1, min(50, settings.steps // 20)),
        save_steps=max(1, settings.steps // 10),
        save_total_limit=2,
        report_to=[],
        remove_unused_columns=False,
        dataloader_num_workers=0 if device.type == "cpu" else min(14, max(1, (os.cpu_count() or 2) - 2)),
        dataloader_drop_last=True,
        disable_tqdm=None,
    )


def newest_checkpoint(folder: Path) -> str | None:
    """Return the newest whole checkpoint, or None. The state is written last: a kill can leave one without it."""
    whole = [path.parent for path in folder.glob("checkpoint-*/trainer_state.json")]
    return str(max(whole, key=lambda path: int(path.name.rpartition("-")[2]))) if whole else None


def fit(objective: nn.Module, recipe: Recipe, data: Dataset[Example], collate: Any, folder: Path) -> None:
    """Train until the recipe's last step; resumes from the newest checkpoint in `folder`, if there is one.

    Writes `folder/curve.json`: one entry per logged step, with every part of the loss, and the seconds of this
    process (since it started or resumed).

    Raises:
        TrainingError: if the loss or a weight is no longer finite.
        InputError: if an image can no longer be read.
    """
    assert recipe.optimisation is not None
    device = next(objective.parameters()).device
    trainer = StageTrainer(
        model=objective,
        args=arguments(recipe, folder, device),
        train_dataset=data,
        data_collator=collate,
        schedule_steps=recipe.optimisation.schedule_steps,
        selector_learning_rate=recipe.optimisation.selector_learning_rate,
    )
    checkpoints = folder / "checkpoints"
    newest = newest_checkpoint(checkpoints)
    started = time.perf_counter()
    try:
        trainer.train(resume_from_checkpoint=newest)
    except InputError as error:
        # A worker process sends its traceback as the message; the last line is the error's own.
        raise InputError(str(error).strip().splitlines()[-1].rpartition("InputError: ")[2]) from error
    trainer.check_weights()
    curve = {
        "seconds_since_resumed": round(time.perf_counter() - started, 1),
        "resumed": newest is not None,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "log": trainer.state.log_history,
    }
    (folder / "curve.json").write_text(json.dumps(curve, indent=1) + "\n")
