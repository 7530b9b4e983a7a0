"""AdaLLaVA's scheduler and latency encoder as an adapter of ours, next to the converted model.

Key names, config fields and their defaults from the authors' code: `scheduler/simple_scheduler.py`,
`ada_llava_llama.py` and `configuration_ada_llama.py`.
"""

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from adallava.adapters import save_adapter, weights_sha256
from adallava.conversion.shards import read_config
from adallava.errors import CheckpointError, UnsupportedModeError
from adallava.scheduling import build_scheduler
from adallava.scheduling.scheduler_contract import DecoderShape
from adallava.selection.selector_contract import TowerShape

SCHEDULER_PREFIX = "scheduler."
"""Of the original names."""

_PARTS = (("mlp_head.", "head."), ("scheduler_up_proj.net.", "latency_mlp."))
"""After the prefix, what is called what here."""

_DEFAULTS = {"scheduler_type": "L", "scheduler_rank": 8, "num_prefix_layers": 16, "token_selecting": "none"}
"""Of fields that a config leaves out."""

_METHODS = {"none": None, "prumerge": "prumerge", "prumerge+": "prumerge-plus"}
"""The method here that a checkpoint was tuned with, by its `token_selecting`."""


def write_scheduler(folder: Path, base_name: str, weights: dict[str, Tensor], config: dict[str, Any]) -> Path | None:
    """Write the adapter to `<folder>/adapters/<scheduler>`, where `--scheduler` finds it; None without a scheduler.

    Args:
        folder: the converted model, whole.
        base_name: what the adapter calls it.
        weights: by their original names.
        config: of the original checkpoint.

    Raises:
        CheckpointError: if weights are missing, or do not fit the config.
        UnsupportedModeError: for a type of scheduler that is not known.
    """
    if not weights:
        if config["model_type"] == "ada_llava_llama":
            raise CheckpointError("this checkpoint of AdaLLaVA has no weight that begins with 'scheduler.'")
        return None
    name, options = _form(config)
    scheduler = build_scheduler(name, _decoder_shape(config), **options)
    assert isinstance(scheduler, nn.Module)
    try:
        scheduler.load_state_dict({_renamed(key): weight for key, weight in weights.items()})
    except RuntimeError as error:
        reason = " ".join(str(error).split("\n\t")[1:3])
        raise CheckpointError(f"the scheduler's weights do not fit the config ({options}): {reason}") from error
    adapter = folder / "adapters" / name
    save_adapter(
        adapter,
        None,
        scheduler=scheduler.to(next(iter(weights.values())).dtype),
        shape=_tower_shape(folder, config),
        base_model_name_or_path=base_name,
        base_weights_sha256=weights_sha256(folder),
    )
    return adapter


def method_of(config: dict[str, Any]) -> str | None:
    """Return the method here that a checkpoint was tuned with; None for all vision tokens.

    Raises:
        UnsupportedModeError: for a `token_selecting` that AdaLLaVA's published code does not have.
    """
    asked = config.get("token_selecting") or _DEFAULTS["token_selecting"]
    if not isinstance(asked, str) or asked not in _METHODS:
        raise UnsupportedModeError(
            f"token_selecting={asked!r} is not supported: {', '.join(map(repr, _METHODS))} are, as in AdaLLaVA's code"
        )
    return _METHODS[asked]


def _form(config: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    fields = {field: config.get(field, default) for field, default in _DEFAULTS.items()}
    options = {"prefix_layers": fields["num_prefix_layers"]}
    if fields["scheduler_type"] == "L":
        return "adallava-layers", options
    if fields["scheduler_type"] == "H":
        return "adallava-heads", {**options, "rank": fields["scheduler_rank"]}
    raise UnsupportedModeError(f"scheduler_type={fields['scheduler_type']!r} is not supported: 'L' and 'H' are")


def _renamed(original: str) -> str:
    name = original.removeprefix(SCHEDULER_PREFIX)
    for theirs, ours in _PARTS:
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    raise CheckpointError(f"the checkpoint holds {original!r}, which AdaLLaVA's scheduler does not have")


def _decoder_shape(config: dict[str, Any]) -> DecoderShape:
    heads = config["num_attention_heads"]
    return DecoderShape(
        num_layers=config["num_hidden_layers"],
        width=config["hidden_size"],
        query_heads=heads,
        kv_heads=config.get("num_key_value_heads") or heads,
        mlp_width=config["intermediate_size"],
    )


def _tower_shape(folder: Path, config: dict[str, Any]) -> TowerShape:
    vision = read_config(folder)["vision_config"]
    side = vision["image_size"] // vision["patch_size"]
    return TowerShape(side * side, vision["hidden_size"], config["hidden_size"], (side, side))
