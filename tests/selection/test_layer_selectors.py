"""Methods inside the LLM against their authors' code, run once on the same inputs; the results are written here.

Inputs: `drawn(seed, …)`, normal numbers of `numpy.random.RandomState(seed)`.
"""

import pytest
import torch
from drop_inputs import drawn
from torch import Tensor

from adallava.errors import AdallavaError, InputError
from adallava.families.layer_attention import asked_attention
from adallava.selection.dart import DartSelector
from adallava.selection.fastv import FastVSelector
from adallava.selection.layer_contract import DropInput, DropStates, PromptInput
from adallava.selection.pyramiddrop import PyramidDropSelector
from adallava.selection.sparsevlm import SparseVLMSelector, recycling

N, TEXT, BEFORE = 24, 7, 5
"""Vision tokens, text tokens behind them and in front of them."""


def _drop_input(attention: Tensor, hidden: Tensor, keep_count: int) -> DropInput:
    return DropInput(attention, hidden, (attention.shape[1],), (keep_count,))


def test_fastv_keeps_what_the_authors_code_keeps() -> None:
    # pkunlp-icler/FastV, commit d165972, src/transformers/src/transformers/models/llama/modeling_llama.py, lines
    # 736-754, with SYS_LENGTH 5, IMAGE_TOKEN_LENGTH 24, ATTENTION_RANK 7 on this attention of 4 heads.
    length = BEFORE + N + TEXT
    matrix = drawn(0, 1, 4, length, length).softmax(dim=-1)
    attention = matrix.mean(dim=1)[:, -1, BEFORE : BEFORE + N]
    selection = FastVSelector().choose(_drop_input(attention, torch.zeros(1, N, 2), 7))
    assert selection.indices.tolist() == [[1, 2, 4, 5, 8, 9, 11]]


def test_fastv_drops_after_its_layer() -> None:
    assert [(d.layer, d.scored_by, d.keep_count) for d in FastVSelector().schedule(32, 576, 288)] == [(2, 1, 288)]
    assert FastVSelector(layer=3).schedule(32, 576, 288)[0].layer == 3
    with pytest.raises(AdallavaError, match="layer is 0"):
        FastVSelector(layer=0)


@pytest.mark.parametrize(
    ("before", "num_vision", "num_text", "keep_count", "kept"),
    [
        (5, 20, 6, 12, [0, 1, 3, 4, 5, 6, 11, 12, 14, 16, 17, 18]),
        (
            5,
            60,
            9,
            36,
            [
                0,
                2,
                3,
                6,
                7,
                9,
                12,
                16,
                18,
                19,
                21,
                22,
                23,
                25,
                26,
                28,
                29,
                31,
                32,
                33,
                34,
                35,
                36,
                38,
                39,
                42,
                43,
                44,
                45,
                47,
                48,
                51,
                52,
                55,
                56,
                58,
            ],
        ),
    ],
)
def test_dart_keeps_what_the_authors_code_keeps(
    before: int, num_vision: int, num_text: int, keep_count: int, kept: list[int]
) -> None:
    # xqy1111111/DART (a copy of the authors' repository), commit d6a5af6, modeling_llama_self.py,
    # `get_retained_image_token`, with 4 + 4 pivots and max_num_trunction 8 and 32, on these states and keys of 4 heads.
    # The first as it is, the second with its set of pivots read in ascending order, which below 32 it is by itself.
    length = before + num_vision + num_text
    states, norms = drawn(6, 1, length, 16), drawn(7, 1, 4, length, 4).abs().sum(dim=(1, 3))
    vision, text = slice(before, before + num_vision), slice(before + num_vision, length)
    there = torch.ones(1, num_text, dtype=torch.bool)
    read = DropStates(states[:, vision], norms[:, vision], states[:, text], norms[:, text], there)
    inputs = DropInput(torch.zeros(1, num_vision), states[:, vision], (num_vision,), (keep_count,), read)
    assert DartSelector().choose(inputs).indices[0].tolist() == kept


def test_dart_shares_what_does_not_divide_and_goes_by_the_pivots_that_there_are() -> None:
    # Of 5 orthogonal pairs, tokens 2i and 2i + 1; the pivots are tokens 0 and 2. Each takes the token least like it.
    states = torch.eye(5).repeat_interleave(2, dim=0)[None] * torch.tensor([1.0, -1.0]).repeat(5)[:, None]
    norms = torch.tensor([[9.0, 0, 8, 0, 0, 0, 0, 0, 0, 0]])
    no_text = torch.tensor([[True, False, False]])
    read = DropStates(states, norms, torch.zeros(1, 3, 5), torch.zeros(1, 3), no_text)
    for keep_count, kept in [(1, [0]), (2, [0, 2]), (3, [0, 1, 2]), (4, [0, 1, 2, 3])]:
        inputs = DropInput(torch.zeros(1, 10), states, (10,), (keep_count,), read)
        selection = DartSelector(image_pivots=2, text_pivots=0).choose(inputs)
        assert selection.indices[0].tolist() == kept
    with pytest.raises(InputError, match="image_pivots is 0"):
        DartSelector(image_pivots=0)


@torch.no_grad()
def test_pyramiddrop_keeps_what_the_authors_code_keeps() -> None:
    # Cooperx521/PyramidDrop, commit 6444f30, llava/model/modeling_llama_pdrop.py, `pdrop_rank_drop`, run on a layer
    # with these weights (4 heads of 8, no grouping) and these hidden states, keeping 7 of 24.
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRotaryEmbedding

    config = LlamaConfig(
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        vocab_size=8,
    )
    layer = LlamaDecoderLayer(config, 1).eval()
    for number, parameter in enumerate(layer.parameters()):
        if parameter.ndim > 1:
            parameter.copy_(drawn(100 + number, *parameter.shape) * 0.5)
    length = BEFORE + N + TEXT
    hidden = drawn(1, 1, length, 32)
    tables = LlamaRotaryEmbedding(config)(hidden, torch.arange(length)[None])
    visible = torch.ones(1, 1, length, dtype=torch.bool)
    asked = asked_attention(layer, hidden, tables, torch.tensor([0]), torch.tensor([[length - 1]]), visible)
    attention = asked.mean(dim=2)[:, 0, BEFORE : BEFORE + N]
    selection = PyramidDropSelector().choose(_drop_input(attention, hidden[:, BEFORE : BEFORE + N], 7))
    assert selection.indices.tolist() == [[6, 7, 11, 12, 15, 16, 17]]


def test_pyramiddrop_at_an_eighth_is_the_papers_ratio_of_a_half() -> None:
    # The authors' `--layer_list [8,16,24] --image_token_ratio_list [0.5,0.25,0.125]`.
    drops = PyramidDropSelector().schedule(32, 576, 72)
    assert [(d.layer, d.scored_by, d.keep_count) for d in drops] == [(8, 8, 288), (16, 16, 144), (24, 24, 72)]


@pytest.mark.parametrize(
    ("keep_count", "kept"),
    # Gumpest/SparseVLMs, commit 26a5f48, llava/model/language_model/score.py, lists of version 1.0.
    [(113, (300, 200, 110)), (39, (303, 110, 36)), (27, (238, 48, 26)), (18, (66, 30, 17))],
)
def test_sparsevlm_reproduces_the_authors_lists(keep_count: int, kept: tuple[int, ...]) -> None:
    drops = SparseVLMSelector().schedule(32, 576, keep_count)
    # `pruning_loc=[2, 6, 15]`: these layers rank, the ones behind them read fewer tokens.
    assert [(drop.scored_by, drop.layer) for drop in drops] == [(2, 3), (6, 7), (15, 16)]
    before = 576
    for drop, by_attention in zip(drops, kept, strict=True):
        dropped = before - by_attention
        merged = int(dropped * 0.3) + 1
        parts = recycling(before, drop.keep_count)
        assert (parts.kept, parts.merged, parts.clusters) == (by_attention, merged, int(merged / 10) + 1)
        before = by_attention + parts.clusters
        assert drop.keep_count == before
    assert before == keep_count


def test_every_count_is_made_up_of_kept_and_recycled_tokens() -> None:
    for num_tokens in (1, 2, 16, 90, 576):
        for keep_count in range(num_tokens + 1):
            parts = recycling(num_tokens, keep_count)
            assert parts.kept + parts.clusters == keep_count
            assert parts.clusters <= parts.merged <= num_tokens - parts.kept


def test_sparsevlm_rates_keeps_and_recycles_as_the_authors_code() -> None:
    # Gumpest/SparseVLMs, commit 26a5f48: the raters of modelling_sparse_llama.py (lines 199-204),
    # `attn_postprocess_topk` keeping 20 of 60, and `cluster_and_merge` of the best 13 others into 2, its noise
    # replaced by one that falls with the rank.
    num_vision, num_text = 60, 9
    length = BEFORE + num_vision + num_text
    embeds = drawn(3, 1, length, 16) * 0.6
    matrix, hidden = drawn(4, 1, 4, length, length).softmax(dim=-1), drawn(5, 1, length, 16)
    vision = slice(BEFORE, BEFORE + num_vision)
    text = slice(BEFORE + num_vision, length)
    selector = SparseVLMSelector()
    mask = torch.ones(1, num_text, dtype=torch.bool)
    raters = selector.raters(PromptInput(embeds[:, vision], embeds[:, text], mask, (num_vision,)))
    assert raters.weights[0].tolist() == [0, 0.25, 0.25, 0, 0, 0, 0, 0.25, 0.25]
    attention = (matrix.mean(dim=1)[:, text, vision] * raters.weights.unsqueeze(-1)).sum(dim=1)
    selection = selector.choose(_drop_input(attention, hidden[:, vision], 22))
    kept = [2, 3, 14, 16, 19, 22, 23, 25, 29, 34, 37, 40, 44, 45, 48, 50, 51, 55, 56, 58]
    recycled = [24, 41]
    assert selection.indices[0].tolist() == sorted(kept + recycled)
    left = selection.apply(hidden[:, vision])[0]
    rows = {index: left[place] for place, index in enumerate(selection.indices[0].tolist())}
    for index in kept:
        assert torch.equal(rows[index], hidden[0, BEFORE + index])
    expected = torch.tensor([[-0.1198, -1.1196, 0.6993], [0.3102, 0.0052, -0.3598]])
    torch.testing.assert_close(torch.stack([rows[index][:3] for index in recycled]), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("num_layers", "layers"), [(4, [0, 1, 2]), (6, [0, 1, 3]), (8, [1, 2, 4]), (32, [2, 6, 15]), (40, [3, 8, 19])]
)
def test_sparsevlm_scales_its_layers_to_the_depth(num_layers: int, layers: list[int]) -> None:
    assert [drop.scored_by for drop in SparseVLMSelector().schedule(num_layers, 576, 100)] == layers
