"""Random inputs for methods inside the LLM, without a model."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from adallava.selection.layer_contract import DropInput, DropStates, PromptInput


def drawn(seed: int, *shape: int) -> Tensor:
    """Return normal numbers of NumPy's legacy generator, whose streams never change."""
    return torch.from_numpy(np.random.RandomState(seed).standard_normal(shape)).float()


def drop_input(token_counts: Sequence[int], keep_counts: Sequence[int], *, width: int = 6, seed: int = 0) -> DropInput:
    """Return attention and hidden states of images that still have `token_counts` tokens; garbage behind them."""
    rows, most = len(token_counts), max(token_counts)
    attention = drawn(seed, rows, most).softmax(dim=1)
    past = torch.arange(most) >= torch.tensor(token_counts)[:, None]
    return DropInput(
        attention.masked_fill(past, 9.0),
        drawn(seed + 1, rows, most, width).masked_fill(past.unsqueeze(-1), 9.0),
        tuple(token_counts),
        tuple(keep_counts),
        DropStates(
            normed=drawn(seed + 2, rows, most, width).masked_fill(past.unsqueeze(-1), 9.0),
            key_norms=drawn(seed + 3, rows, most).abs().masked_fill(past, 9.0),
            text_normed=drawn(seed + 4, rows, 7, width),
            text_key_norms=drawn(seed + 5, rows, 7).abs(),
            text_mask=torch.arange(7) < 7 - torch.arange(rows)[:, None],
        ),
    )


def row_of(inputs: DropInput, row: int) -> DropInput:
    """Return one image alone, without room for more tokens than it has."""
    count, part = inputs.token_counts[row], slice(row, row + 1)
    states = inputs.states
    assert states is not None
    num_text = int(states.text_mask[row].sum())
    return replace(
        inputs,
        attention=inputs.attention[row : row + 1, :count],
        hidden=inputs.hidden[row : row + 1, :count],
        token_counts=(count,),
        keep_counts=(inputs.keep_counts[row],),
        states=DropStates(
            normed=states.normed[part, :count],
            key_norms=states.key_norms[part, :count],
            text_normed=states.text_normed[part, :num_text],
            text_key_norms=states.text_key_norms[part, :num_text],
            text_mask=states.text_mask[part, :num_text],
        ),
    )


def prompt_input(num_vision: int, num_text: Sequence[int], *, width: int = 6, seed: int = 0) -> PromptInput:
    """Return embeddings of prompts with `num_text` text tokens each."""
    mask = torch.arange(max(num_text)) < torch.tensor(num_text)[:, None]
    return PromptInput(
        drawn(seed, len(num_text), num_vision, width),
        drawn(seed + 1, len(num_text), max(num_text), width),
        mask,
        (num_vision,) * len(num_text),
    )
