"""What a caller may hand over as the base: a stock model, or one that holds it and changes nothing around it."""

import hashlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from adallava.errors import UnsupportedModeError

_WRAPPERS = {
    "OptimizedModule": ("_orig_mod", "torch.compile wrapped it, and its stages are driven one by one here"),
    "DataParallel": ("module", "it spreads calls over devices, and one device holds everything here"),
    "DistributedDataParallel": ("module", "it is made for training"),
    "FullyShardedDataParallel": ("module", "its weights lie on several devices, and one holds everything here"),
}
"""Classes around a model: where they keep it, and why they are not taken."""

_UNCHANGED_PARTS = ("base_layer", "original_module")
"""Where `peft` keeps what it was put around."""


def stock_model(given: Any) -> Any:
    """Return the stock model itself; of a `PeftModel` that around whose layers it has put its own.

    These layers stay in the model, so that it computes what the `PeftModel` does.

    Raises:
        UnsupportedModeError: for what is not a loaded model, or wraps one, naming what to give.
    """
    kinds = {cls.__name__ for cls in type(given).__mro__}
    name = type(given).__name__
    for wrapper, (attribute, reason) in _WRAPPERS.items():
        if wrapper in kinds:
            raise UnsupportedModeError(f"a {name} cannot be the base model ({reason}): give its .{attribute}")
    if "Pipeline" in kinds:
        raise UnsupportedModeError(f"a {name} cannot be the base model: give its .model, and its .processor")
    if "PeftModel" in kinds or "PeftMixedModel" in kinds:
        return _inside_peft(given)
    if not isinstance(given, nn.Module) or not hasattr(given, "config"):
        raise UnsupportedModeError(
            f"a {name} is not a loaded model of transformers: AdaLlava.from_pretrained loads one by name or folder"
        )
    return given


def check_class(given: Any, class_name: str) -> None:
    """Refuse a model of another class than the one with a head for answers.

    Raises:
        UnsupportedModeError: naming both.
    """
    if class_name not in {cls.__name__ for cls in type(given).__mro__}:
        raise UnsupportedModeError(
            f"a {type(given).__name__} cannot be the base model: give a {class_name}, which has the head that "
            "answers need"
        )


def added_sha256(model: Any) -> str | None:
    """Return what identifies the weights that `peft` has added to a model's own; None if there are none.

    Their names and values count, which of them are active, and how strongly.
    """
    digest, found = hashlib.sha256(), False
    for name, module in model.named_modules():
        if not type(module).__module__.startswith("peft."):
            continue
        found = True
        settings = [getattr(module, field, None) for field in ("active_adapters", "disable_adapters", "scaling")]
        digest.update(repr((name, settings)).encode())
        for own, tensor in _own_tensors(module):
            digest.update(repr((own, str(tensor.dtype), tuple(tensor.shape))).encode())
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest() if found else None


def _own_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for name, tensor in module.named_parameters():
        if not any(part in _UNCHANGED_PARTS for part in name.split(".")):
            yield name, tensor


def _inside_peft(given: Any) -> Any:
    for name in given.active_adapters:
        config = given.peft_config[name]
        if config.is_prompt_learning:
            raise UnsupportedModeError(
                f"the adapter {name!r} of this {type(given).__name__} puts tokens of its own before the prompt "
                f"({config.peft_type}): only adapters inside the layers, such as LoRA, are supported"
            )
        if getattr(config, "alora_invocation_tokens", None):
            raise UnsupportedModeError(
                f"the adapter {name!r} of this {type(given).__name__} is switched on by tokens of the prompt (aLoRA): "
                "only adapters that always work, such as LoRA, are supported"
            )
    return given.get_base_model()
