"""Low-rank weights next to a frozen LLM (LoRA, arXiv 2106.09685), by `peft`: an optional dependency."""

import re
from pathlib import Path
from typing import Any

import torch

from adallava.errors import InputError
from adallava.families.family_contract import Family
from adallava.training.recipe import Lora


def check_peft() -> None:
    """Refuse a training that needs `peft` where it is not installed, before anything runs.

    Raises:
        InputError: saying how to install it.
    """
    try:
        import peft  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"this recipe has a [lora] table, which needs peft ({error}): pip install peft, or pip install "
            "'adallava[lora]'"
        ) from error


def add_lora(family: Family, lora: Lora, seed: int) -> Any:
    """Put low-rank weights next to projections of the LLM, in place; return the `PeftModel` around the same base.

    The tower has projections of the same names: only those inside the language model are meant.

    Raises:
        InputError: if the LLM has no projection of these names.
    """
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    llm = family.llm_of(family.model)
    within = next(name for name, module in family.model.named_modules() if module is llm)
    names = "|".join(map(re.escape, lora.target_modules))
    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=rf"{re.escape(within)}\..*\.({names})",
    )
    try:
        return get_peft_model(family.model, config)
    except ValueError as error:
        raise InputError(f"lora.target_modules {', '.join(lora.target_modules)}: {error}") from error


def save_and_merge(adapted: Any, folder: Path) -> None:
    """Write the low-rank weights as `peft` does, then add them to the base's own weights, in place."""
    adapted.save_pretrained(folder)
    adapted.merge_and_unload()
