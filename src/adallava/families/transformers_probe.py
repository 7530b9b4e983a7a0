"""Tries, on a tiny random model, whether a release of transformers runs its LLM's layers as this package knows it.

    two prompts    . . . t t t        layer 0 reads and caches six columns,
                   . . t t t t        layer 1 four: without the two that hold nothing but padding

Padding left out of a layer changes no answer, so that stock `generate` says what must come out, prompt and steps. It
does so only if the view sees every layer, the layer's own mask and cache have its own lengths, and beams find both.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from adallava.families.decoder import StockDecoder
from adallava.families.family_contract import RunLayer
from adallava.families.layer_inputs import LayerInputs
from adallava.families.transformers_internals import errors_alone

_PADDING = torch.tensor([[0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 1, 1]])
_IDS = torch.tensor([[1, 1, 1, 3, 4, 5], [1, 1, 6, 7, 8, 9]])
_LEFT_OUT = 2
_NEW_TOKENS = 3
_ROUNDING = 1e-4


def find_fault() -> str | None:
    """Return what does not come out as it must, or None. Takes a few tenths of a second, and no random number."""
    with torch.random.fork_rng(devices=[]), torch.device("cpu"), torch.no_grad(), errors_alone():
        torch.manual_seed(0)
        try:
            return _fault_of(_tiny_model())
        except Exception as error:  # whatever a module that moved or an argument with another name raises
            return f"{type(error).__name__}: {error}"


def _tiny_model() -> Any:
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    ids = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": 1}
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**sizes, image_size=8, patch_size=4),
        text_config=LlamaConfig(**sizes, **ids, vocab_size=16, num_key_value_heads=2),
        image_token_id=2,
    )
    model = LlavaForConditionalGeneration(config).float().eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.5)  # as wide as logits need to differ by more than rounding
    return model


def _fault_of(model: Any) -> str | None:
    watch = _Watch(StockDecoder(model))
    stock, ours = _logits(model), _logits(watch.decoder.view(watch.around))
    columns = _PADDING.shape[1]
    expected = [(layer, columns + step, columns + step - _LEFT_OUT * layer) for step in range(3) for layer in range(2)]
    if watch.lengths != expected:
        return f"layers, tokens in their first and own cache were {watch.lengths}, not {expected}"
    if not watch.groups_add_up:
        return "all groups of a layer's heads do not add up to the layer"
    if (stock - ours).abs().max() > _ROUNDING:
        return "leaving padding out of a layer changed an answer"
    reordered: list[int] = []

    def reorder(cache: Any, beam_idx: Tensor) -> Any:
        """Note how many rows go on, and reorder the cache."""
        reordered.append(len(beam_idx))
        cache.reorder_cache(beam_idx)
        return cache

    _generate(StockDecoder(model).view(_Watch(watch.decoder).around, reorder), num_beams=2)
    rows = 2 * len(_IDS)
    return None if set(reordered) == {rows} else f"beams of {rows} rows were reordered as {reordered}"


def _generate(model: Any, **options: Any) -> Any:
    return model.generate(
        input_ids=_IDS,
        attention_mask=_PADDING,
        max_new_tokens=_NEW_TOKENS,
        do_sample=False,
        return_dict_in_generate=True,
        output_logits=True,
        **options,
    )


def _logits(model: Any) -> Tensor:
    """Return [steps, B, V]."""
    return torch.stack(_generate(model).logits)


class _Watch:
    """Leaves padding out of layer 1, and writes down how long everything is."""

    def __init__(self, decoder: StockDecoder) -> None:
        self.decoder = decoder
        self.lengths: list[tuple[int, int, int]] = []
        """Of each call of a layer: its index, the keys in the cache's first layer, and those that its mask is for."""
        self.groups_add_up = True

    def around(self, index: int, layer: RunLayer, hidden: Tensor, inputs: LayerInputs) -> Tensor:
        """Run a layer. See `AroundLayer`."""
        if index == 1 and hidden.shape[1] > 1:
            hidden, inputs = hidden[:, _LEFT_OUT:], _without_padding(inputs)
        padding = _PADDING[:, index * _LEFT_OUT :].repeat_interleave(len(hidden) // len(_PADDING), dim=0)
        mask = self.decoder.mask(index, hidden, padding, inputs.cache)
        inputs = replace(inputs, attention_mask=mask)
        if hidden.shape[1] > 1:
            self._check_groups(index, layer, hidden, replace(inputs, cache=None))
        left = layer(hidden, inputs)
        own = 0 if mask is None else mask.shape[-1]
        self.lengths.append((index, inputs.cache.get_seq_length(), own))
        return left

    def _check_groups(self, index: int, layer: RunLayer, hidden: Tensor, inputs: LayerInputs) -> None:
        everyone = torch.arange(len(hidden))
        in_groups = self.decoder.run_groups(index, hidden, inputs, (everyone, everyone))
        self.groups_add_up &= bool((in_groups - layer(hidden, inputs)).abs().max() < _ROUNDING)


def _without_padding(inputs: LayerInputs) -> LayerInputs:
    cosines, sines = (table[:, _LEFT_OUT:] for table in inputs.position_embeddings)
    return replace(inputs, position_embeddings=(cosines, sines), position_ids=inputs.position_ids[:, _LEFT_OUT:])
