"""Weights of the LLM's layers in 8 bits, by torchao, put in after a checkpoint was loaded.

    int8          weights int8,        products as before     half the bytes
    fp8-weights   weights float8_e4m3, products as before     the same
    fp8           weights and what they are multiplied with in float8_e4m3, on Hopper: products take less time

Each row of a weight has a scale of its own, and so has each token in `fp8`: what a token becomes does not depend on
what else is in its batch. Embeddings, tower, projector and head stay as they are: what a method before the LLM
chooses is what it chooses in full precision, and the head is 2 % of a 7B model's bytes.
"""

import copy
import warnings
from functools import partial
from typing import Any, get_args

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from adallava.errors import InputError, UnsupportedModeError
from adallava.families.layer_stack import llm_of
from adallava.records.names import QuantizationName

_HOPPER = (9, 0)
"""The first compute capability whose products in float8 were tried here."""

LEAST = 1e-12
"""The least that a token's largest number is taken for: a padded token may be all zeros, and 0 / 0 is not a number."""

MOST_IN_FP8 = 448.0
"""The largest number of float8_e4m3."""

_NAMES: dict[tuple[str, bool], str] = {
    ("Int8Tensor", False): "int8",
    ("Float8Tensor", False): "fp8-weights",
    ("Float8Tensor", True): "fp8",
}
"""By torchao's class, and whether what a weight is multiplied with is quantized, too."""


def check_quantization(name: str, device: torch.device, dtype: str | torch.dtype) -> str | torch.dtype:
    """Return the type to load weights in that are to be quantized, before any is read.

    Args:
        name: of `QuantizationName`.
        device: that the model shall lie on.
        dtype: asked for; "auto" is bfloat16 for `fp8`, whose products give nothing else, and else as stored.

    Raises:
        InputError: for an unknown name, without torchao, or for `fp8` on a device or in a type that it cannot have.
    """
    if name not in get_args(QuantizationName):
        raise InputError(f"quantization={name!r} is not one of {', '.join(get_args(QuantizationName))}")
    if name == "none":
        return dtype
    _torchao()
    if name != "fp8":
        return dtype
    instead = "use 'fp8-weights', which computes in the weights' own type, or 'int8'"
    if device.type != "cuda":
        raise InputError(f"quantization='fp8' needs a CUDA device, and the model is on {device}: {instead}")
    capability = torch.cuda.get_device_capability(device)
    if capability < _HOPPER:
        raise InputError(
            f"quantization='fp8' needs a GPU of compute capability {'.'.join(map(str, _HOPPER))} or higher (Hopper), "
            f"and {torch.cuda.get_device_name(device)} has {'.'.join(map(str, capability))}: {instead}"
        )
    if dtype not in ("auto", torch.bfloat16):
        raise InputError(
            f"quantization='fp8' computes only in bfloat16, and dtype is {dtype}: leave it out, or {instead}"
        )
    return torch.bfloat16


def quantize(model: Any, name: str) -> None:
    """Quantize the products of the LLM's layers in place, one after the other; the model is not saved any more.

    Args:
        model: a loaded Llava, on its device, with a type that `check_quantization` allows.
        name: of `QuantizationName`.

    Raises:
        UnsupportedModeError: for layers without products, or with one that cannot be quantized.
        InputError: without torchao.
    """
    if name == "none":
        return
    torchao = _torchao()
    layers: nn.Module = llm_of(model).layers  # type: ignore[assignment]
    # Its settings of the compiler would hold for the whole process.
    settings = {"set_inductor_config": False, "version": 2}
    if name == "int8":
        config = torchao.Int8WeightOnlyConfig(**settings)
    elif name == "fp8-weights":
        config = torchao.Float8WeightOnlyConfig(**settings)
    else:
        config = torchao.Float8DynamicActivationFloat8WeightConfig(
            granularity=torchao.PerRow(), activation_value_lb=LEAST, **settings
        )
    torchao.quantize_(layers, config)
    products = [(path, module) for path, module in layers.named_modules() if isinstance(module, nn.Linear)]
    for path, product in products:
        if not is_traceable_wrapper_subclass(product.weight):
            raise UnsupportedModeError(
                f"quantization={name!r} cannot be had for this model: layer {path} is of the sizes "
                f"{tuple(product.weight.shape)}, and torchao takes multiples of 16"
            )
        _mend_rows_of_zeros(product.weight)
    if not products:
        raise UnsupportedModeError(f"quantization={name!r} cannot be had for this model: its layers hold no products")
    # transformers' own would write a config and then break off.
    model.save_pretrained = partial(_refuse_saving, name)


def _mend_rows_of_zeros(weight: Any) -> None:
    """Give rows of zeros a scale: divided by the one that torchao finds in float8 they are not numbers."""
    if weight.qdata.dtype == torch.float8_e4m3fn:
        zeros = weight.scale == 0.0
        weight.qdata.view(torch.uint8).masked_fill_(zeros, 0)
        weight.scale.masked_fill_(zeros, 1.0)


def _refuse_saving(name: str, *_: Any, **__: Any) -> None:
    raise UnsupportedModeError(
        f"a model with quantized weights ({name}) is not saved: they are made of the checkpoint's own whenever it is "
        "loaded. Save the model without quantization"
    )


def quantized_copy(model: Any, name: str) -> Any:
    """Return a quantized model that shares every other weight with one that stays as it is. See `quantize`."""
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    made = copy.deepcopy(model, shared)
    quantize(made, name)
    return made


def quantization_of(model: Any) -> str:
    """Return how the LLM's layers are quantized, by `QuantizationName`, or as torchao calls another way."""
    layers: Any = llm_of(model).layers
    for weight in layers[0].parameters():
        if is_traceable_wrapper_subclass(weight):
            kind = (type(weight).__name__, getattr(weight, "act_quant_kwargs", None) is not None)
            return _NAMES.get(kind, kind[0])
    return "none"


def check_untrained(model: Any, what: str) -> None:
    """Refuse to learn through quantized weights: products in float8 have no gradients, and others would mislead.

    Args:
        model: a loaded Llava.
        what: needs gradients.

    Raises:
        UnsupportedModeError: naming what instead.
    """
    name = quantization_of(model)
    if name != "none":
        raise UnsupportedModeError(
            f"{what} needs gradients, and this model's weights are quantized ({name}): load it without quantization"
        )


def check_unadapted(model: Any) -> None:
    """Refuse what `peft` puts around quantized weights: merged or not, it was learned with others.

    Args:
        model: a loaded Llava.

    Raises:
        UnsupportedModeError: naming what instead.
    """
    name = quantization_of(model)
    if name != "none" and any(type(module).__module__.startswith("peft.") for module in model.modules()):
        raise UnsupportedModeError(
            f"a PeftModel around quantized weights ({name}) is not supported: merge its adapters into the weights in "
            "full precision, save that model, and load it with quantization"
        )


def stored_bytes(module: nn.Module) -> dict[int, int]:
    """Return the bytes of a module's weights as they are stored, by where they lie."""
    return {part.data_ptr(): part.nbytes for tensor in module.parameters() for part in _parts_of(tensor)}


def _parts_of(tensor: Tensor) -> list[Tensor]:
    return [getattr(tensor, name) for name in part_names(tensor)] or [tensor]


def part_names(tensor: Tensor) -> tuple[str, ...]:
    """Return what a quantized weight calls the tensors that it is made of; nothing for any other."""
    return tuple(tensor.__tensor_flatten__()[0]) if is_traceable_wrapper_subclass(tensor) else ()


def is_scaled_by_row(weight: Tensor) -> bool:
    """Return whether a weight is its numbers, times at most a scale a row; see `numbers_and_scales`."""
    names = part_names(weight)
    if not names:
        return True
    scales, zero = getattr(weight, "scale", None), getattr(weight, "zero_point", None)
    by_row = (
        scales is not None and scales.shape == (len(weight), 1) and not set(names) - {"qdata", "scale", "zero_point"}
    )
    return by_row and (zero is None or not bool(zero.any()))


def multiplies_in_fp8(weight: Tensor) -> bool:
    """Return whether what a weight is multiplied with is rounded to float8, each token by its own scale."""
    kind = (type(weight).__name__, getattr(weight, "act_quant_kwargs", None) is not None)
    return _NAMES.get(kind) == "fp8" and is_scaled_by_row(weight)


def numbers_and_scales(weight: Any) -> tuple[Tensor, Tensor | None]:
    """Return a weight's numbers, [N, K], and of a quantized one its scales, [N, 1]; see `is_scaled_by_row`."""
    return (weight.qdata, weight.scale) if hasattr(weight, "qdata") else (weight, None)


def _torchao() -> Any:
    """Return torchao's module of quantizations.

    Raises:
        InputError: if it is not installed.
    """
    try:
        import torchao.quantization as quantization
    except ImportError as error:
        raise InputError(
            "quantized weights need torchao, which is not installed: pip install 'adallava[quantization]'"
        ) from error
    # Said once when such a weight is first compiled, to the authors of its class.
    warnings.filterwarnings("ignore", message=".*does not implement _stable_hash_for_caching")
    return quantization
