"""Model families: which file drives a checkpoint, by its `model_type`."""

from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from adallava.checkpoints.files import check_config, check_weights
from adallava.checkpoints.hub import CONFIG_FILES, MODEL_FILES, find_folder
from adallava.errors import UnsupportedModeError
from adallava.families.capabilities.of_classes import MadeFromNothing
from adallava.families.family_contract import Family
from adallava.families.given_model import check_class, stock_model
from adallava.families.quantization import check_unadapted
from adallava.families.stock_loading import load_stock, load_stock_without_llm
from adallava.families.transformers_version import check_transformers
from adallava.registry import family_names, load_family_class


def find_checkpoint(folder_or_id: str) -> Path:
    """Return the folder of a checkpoint that is whole, as far as names, sizes and headers tell.

    Of a hub id it is a snapshot in the local cache, fetched if it is not there; of a model that is not supported, the
    config alone is.

    Raises:
        CheckpointError: if there is none, it is not a model in stock layout, or its weights are missing or damaged.
        UnsupportedModeError: for a family that is not supported, or quantized weights.
    """
    config = check_config(find_folder(folder_or_id, CONFIG_FILES))
    _supported(config, folder_or_id)
    folder = find_folder(folder_or_id, MODEL_FILES)
    check_weights(folder)
    return folder


def load_family(
    folder_or_id: str, *, dtype: str | torch.dtype, device: torch.device, attn_implementation: str
) -> Family:
    """Load the checkpoint with the family that its config names.

    One policy for all families. *Type*: "auto" is the one that the checkpoint names; the one asked for is given to
    every weight. *Device*: one, for everything. *Memory*: the files are mapped, and each weight goes from its page to
    its place on its own: on the CPU in the stored type the pages are the weights, elsewhere the one copy is made on the
    device. Pickled weights are never read.

    Args:
        folder_or_id: a folder, or a hub id; see `find_checkpoint`.
        dtype: "auto", or a floating-point type.
        device: to load to.
        attn_implementation: "sdpa" or "eager".

    Raises:
        CheckpointError: if there is no readable config, or the weights are missing or damaged.
        UnsupportedModeError: for a family that is not supported, or quantized weights.
        AdallavaError: for a transformers whose layers run in a way that is not known.
    """
    folder = find_checkpoint(folder_or_id)
    check_transformers()
    family = load_family_class(_supported(check_config(folder), folder_or_id))
    driven: Family = family(
        load_stock(
            family.transformers_class,
            str(folder),
            dtype=dtype,
            device=device,
            attn_implementation=attn_implementation,
        )
    )
    return driven


def load_without_llm(
    folder_or_id: str, *, embeddings: nn.Module, dtype: str | torch.dtype, device: torch.device
) -> Family:
    """Load the tower and the projector alone, for an LLM that runs elsewhere; see `load_family`.

    The family embeds text by what it is given, has no layer of the LLM, and answers nothing.

    Args:
        folder_or_id: a folder, or a hub id; see `find_checkpoint`.
        embeddings: of that LLM, from ids, with `num_embeddings`.
        dtype: "auto", or a floating-point type.
        device: to load to.

    Raises:
        CheckpointError: if there is no readable config, or the weights are missing or damaged.
        UnsupportedModeError: for a family that is not supported, or quantized weights.
    """
    folder = find_checkpoint(folder_or_id)
    check_transformers()
    family = load_family_class(_supported(check_config(folder), folder_or_id))
    stock = load_stock_without_llm(
        family.transformers_class, str(folder), embeddings=embeddings, dtype=dtype, device=device
    )
    driven: Family = family(stock)
    return driven


def wrap_model(model: Any) -> Family:
    """Return the family that drives an already loaded transformers model, or the one inside a `PeftModel`.

    Raises:
        UnsupportedModeError: for a family that is not supported, a model without a head, what wraps a model, or
            adapters around quantized weights.
        AdallavaError: for a transformers whose layers run in a way that is not known.
    """
    check_transformers()
    stock = stock_model(model)
    family = load_family_class(_supported(stock.config.to_dict(), type(stock).__name__))
    check_class(stock, family.transformers_class)
    check_unadapted(stock)
    driven: Family = family(stock)
    return driven


def family_from_nothing(model_type: str | None = None) -> MadeFromNothing:
    """Return the family that makes untrained models of a type; by default the first, by name, that makes any.

    Raises:
        UnsupportedModeError: if it does not, or none does.
    """
    families = {name: load_family_class(name) for name in family_names()}
    able = {name: cast(MadeFromNothing, one) for name, one in families.items() if isinstance(one, MadeFromNothing)}
    if model_type is None and able:
        return next(iter(able.values()))
    if model_type not in able:
        what = "a model" if model_type is None else f"a {model_type!r}"
        raise UnsupportedModeError(f"no family makes {what} from nothing; these do: {', '.join(able) or 'none'}")
    return able[model_type]


def weights_folder(folder_or_id: str) -> Path:
    """Return the folder that holds a checkpoint's files: itself, or the hub's local copy.

    Raises:
        CheckpointError: if a hub id has no local copy.
    """
    return find_folder(folder_or_id, MODEL_FILES, download=False)


def _supported(config: dict[str, Any], where: str) -> str:
    model_type = str(config.get("model_type", "unknown"))
    if model_type not in family_names():
        raise UnsupportedModeError(
            f"{where!r} is of the family {model_type!r}; supported are: {', '.join(family_names())}"
        )
    return model_type
