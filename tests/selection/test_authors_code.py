"""Kept tokens beside the authors' own code: the literals below are what that code returned, not ours.

Inputs are `torch.randn` from one CPU generator seeded with 7, in this order: tower states [1, 65, 48] (class token
first), the class token's query [1, 48], keys [1, 65, 48], projected tokens [1, 64, 56], embeddings of 5 words
[1, 5, 56], relevance [1, 64] (its tanh), attention of a middle and of the last layer [2, 1, 4, 65, 65] (its softmax over
the last dimension of three times the draws). 4 heads, a grid of 8 x 8. Each repository's function was run on them as it is
at the commit named, on the CPU in float32, its indices sorted:

- cls-attention: Theia-4869/FasterVLM f5d5f12, llava/model/llava_arch.py, the two lines of `encode_images` that average
  heads and take the top K, on attention of the query with the keys by head.
- tome: facebookresearch/ToMe af95e4b, tome/merge.py, `bipartite_soft_matching` and `merge_wavg`, in rounds that halve
  at most, metric = keys averaged over heads, merged as the tokens are; unmerged tokens sorted between rounds, as that
  function does with a class token.
- visionzip: dvlab-research/VisionZip 3151f6d, visionzip/clip_encoder.py, the body of `forward`; its CLS token left out.
- divprune: vbdi/divprune 799e2d9, LLaVA/llava/model/llava_arch.py, `DivPrune`, ratio K / 64.
- cdpruner: Theia-4869/CDPruner 9541616, llava/model/llava_arch.py, `encode_images`, with image embeddings (r, sqrt(1 -
  r^2)) and the text embedding (1, 0), whose cosine is the relevance r.
- mmtok: Ironieser/MMTok d1522cd, mmtok/core/semantic_selector.py, `mm_coverage_selection`, temperatures 0.02 and 0.2.
- hiprune: Danielement321/HiPrune 6e83a12, LLaVA/llava/model/llava_arch.py, `encode_images`, on the two attentions, its
  literals 24 and 575 read as 8 and N - 1.
- vispruner: Theia-4869/VisPruner aefa01a, llava/model/llava_arch.py, `encode_images`, on the class token's row of the
  last attention.
- scope: kinredon/SCOPE 6bf7306, scope/clip_encoder.py, `SCOPE`, on the same row summed over heads.
- prumerge: 42Shawn/LLaVA-PruMerge 097c041, llava/model/multimodal_encoder/clip_encoder.py,
  `token_prune_merge_advanced` (ratio (K - 1) / 64, and adaptive) and `..._plus` (ratios 1/8 and 1/16, and adaptive),
  its literal 575 read as N - 1, its hooks fed with the query and the keys.
"""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from adallava.selection import build_selector
from adallava.selection.mmtok import MMTokSelector
from adallava.selection.selector_contract import AskedAttention, OwnCountMethod, SelectionInput, TowerLayer, TowerShape

SHAPE = TowerShape(num_vision_tokens=64, vision_width=48, llm_width=56, grid=(8, 8), tower_heads=4)

Literal = tuple[str, int, list[int], list[list[float]] | None]

# Method, K, kept patches, and for merging methods the first three channels of the first and the last merged token.
# fmt: off
# ruff: noqa: E501 (rows of numbers)
AUTHORS: list[Literal] = [
    ("divprune", 32, [1, 2, 6, 7, 10, 14, 16, 18, 19, 20, 21, 29, 30, 31, 34, 35, 37, 41, 42, 44, 45, 46, 48, 52, 53, 54, 55, 56, 59, 60, 62, 63], None),
    ("divprune", 16, [2, 19, 21, 29, 30, 34, 37, 41, 44, 52, 53, 54, 55, 56, 60, 63], None),
    ("divprune", 7, [19, 21, 44, 52, 56, 60, 63], None),
    ("cdpruner", 32, [0, 1, 3, 8, 9, 10, 11, 14, 16, 23, 24, 28, 31, 32, 33, 34, 36, 38, 41, 42, 43, 46, 47, 49, 51, 52, 56, 57, 58, 60, 61, 63], None),
    ("cdpruner", 16, [0, 9, 10, 14, 16, 32, 33, 41, 42, 47, 51, 52, 57, 60, 61, 63], None),
    ("cdpruner", 7, [9, 16, 41, 42, 47, 52, 63], None),
    ("mmtok", 32, [0, 2, 3, 5, 6, 7, 14, 19, 22, 23, 27, 28, 33, 35, 36, 37, 39, 40, 41, 43, 45, 46, 49, 50, 52, 53, 54, 56, 57, 58, 59, 61], None),
    ("mmtok", 16, [6, 14, 19, 33, 35, 36, 37, 39, 41, 45, 49, 52, 53, 54, 56, 59], None),
    ("mmtok", 7, [33, 41, 45, 49, 54, 56, 59], None),
    ("cls-attention", 16, [4, 5, 6, 8, 11, 12, 25, 26, 27, 29, 36, 44, 47, 48, 52, 54], None),
    ("cls-attention", 7, [4, 5, 8, 26, 27, 29, 44], None),
    ("tome", 40, [0, 1, 3, 4, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 24, 25, 27, 28, 29, 31, 32, 33, 35, 37, 39, 41, 43, 45, 47, 49, 51, 52, 53, 55, 57, 59, 60, 61, 62, 63], [[-0.1782, -0.2595, -0.0145], [0.7208, 1.3598, -0.4817]]),
    ("tome", 12, [7, 15, 19, 23, 27, 31, 35, 39, 43, 47, 55, 63], [[-0.0934, -0.5523, 0.2394], [-0.4667, 0.2132, -0.3301]]),
    ("tome", 5, [15, 23, 31, 47, 63], [[-0.246, 0.3228, 0.2185], [0.0446, 0.0358, -0.2814]]),
    ("visionzip", 32, [0, 3, 4, 5, 6, 8, 11, 12, 13, 14, 16, 17, 18, 19, 25, 26, 27, 29, 30, 34, 36, 39, 40, 44, 47, 48, 50, 52, 53, 54, 57, 60], [[0.7481, -0.2652, 0.6804], [-0.7005, -0.6538, 1.0618]]),
    ("visionzip", 16, [0, 4, 5, 6, 8, 11, 22, 26, 27, 29, 36, 43, 44, 47, 52, 54], [[-0.105, 0.1246, 0.5929], [1.0957, 1.0764, 0.696]]),
    ("visionzip", 7, [0, 4, 8, 26, 27, 29, 44], [[-0.2154, -0.1883, -0.0271], [-0.5493, -0.8505, -1.6736]]),
    ("hiprune", 32, [1, 2, 3, 4, 6, 7, 9, 10, 11, 13, 14, 15, 18, 22, 28, 29, 30, 32, 33, 34, 35, 38, 41, 47, 51, 52, 54, 55, 56, 57, 58, 61], None),
    ("hiprune", 16, [2, 4, 7, 10, 11, 18, 29, 30, 33, 35, 38, 51, 52, 54, 56, 57], None),
    ("hiprune", 7, [2, 11, 18, 29, 51, 54, 57], None),
    ("vispruner", 32, [0, 1, 2, 14, 15, 16, 18, 20, 21, 23, 25, 27, 28, 29, 30, 31, 32, 34, 35, 36, 38, 40, 41, 42, 44, 45, 47, 49, 53, 57, 61, 63], None),
    ("vispruner", 16, [2, 14, 19, 20, 22, 25, 29, 30, 32, 34, 35, 38, 44, 49, 54, 61], None),
    ("scope", 32, [0, 1, 2, 5, 10, 15, 16, 18, 21, 25, 26, 29, 30, 32, 33, 35, 36, 37, 38, 40, 41, 43, 44, 45, 46, 48, 51, 53, 57, 59, 61, 62], None),
    ("scope", 16, [1, 2, 10, 15, 16, 18, 21, 25, 29, 30, 32, 35, 36, 38, 40, 44], None),
    ("scope", 7, [2, 25, 30, 32, 35, 38, 44], None),
]
WITH_OPTIONS: list[tuple[str, int, dict[str, float], list[int]]] = [
    ("hiprune", 32, {"alpha": 0.5}, [1, 2, 4, 6, 7, 9, 10, 11, 13, 14, 15, 18, 22, 25, 29, 30, 32, 33, 34, 35, 38, 41, 47, 49, 51, 52, 54, 55, 56, 57, 58, 63]),
    ("vispruner", 24, {"important_ratio": 0.25}, [0, 2, 5, 11, 12, 14, 15, 19, 20, 21, 22, 23, 25, 30, 35, 38, 44, 45, 49, 52, 54, 55, 57, 59]),
    ("scope", 16, {"alpha": 2.0}, [1, 2, 15, 16, 18, 21, 25, 29, 30, 32, 35, 36, 38, 40, 44, 45]),
]
# Method, K: the kept tokens, the code's order of them forgotten, and the first channels of the first of them and of the
# token for the rest, which has no place in the code.
PRUMERGE: dict[int, tuple[list[int], list[list[float]]]] = {
    33: ([0, 3, 4, 5, 6, 8, 11, 12, 16, 17, 23, 24, 25, 26, 27, 28, 29, 34, 40, 44, 46, 47, 48, 50, 51, 52, 53, 54, 56, 57, 58, 60], [[-0.246, -0.3372, 0.1328], [0.0234, 0.0391, -0.012]]),
    17: ([4, 5, 8, 11, 17, 25, 26, 27, 29, 34, 44, 47, 48, 52, 53, 54], [[-0.9348, 0.9403, -0.5719], [0.013, -0.052, -0.0253]]),
    9: ([4, 5, 8, 25, 27, 29, 44, 52], [[-0.9348, 0.9403, -0.5719], [-0.0825, -0.0269, 0.024]]),
}
PRUMERGE_OWN = [4, 27, 29, 44]
PRUMERGE_PLUS_OWN = [0, 4, 5, 10, 15, 20, 25, 27, 29, 30, 35, 40, 44, 45, 50, 55, 60]
# The code keeps a token twice that is in both of its halves: at K - 1 = 16, three of them.
PRUMERGE_PLUS = {17: [4, 5, 8, 12, 20, 25, 27, 28, 29, 36, 44, 52, 60], 9: [4, 8, 24, 27, 29, 40, 44, 56]}
# fmt: on


def drawn(keep_count: int, asked: Sequence[AskedAttention] = ()) -> SelectionInput:
    generator = torch.Generator().manual_seed(7)

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator)

    states, query, keys, projected = normal(1, 65, 48), normal(1, 48), normal(1, 65, 48), normal(1, 64, 56)
    words, relevance = normal(1, 5, 56), normal(1, 64).tanh()
    middle, last = (3 * normal(2, 1, 4, 65, 65)).softmax(dim=-1)
    layer, mask = TowerLayer(keys, query, 4), torch.ones(1, 5, dtype=torch.bool)
    return SelectionInput(
        features=states[:, 1:],
        grid=SHAPE.grid,
        keep_counts=(keep_count,),
        budget_ratios=torch.tensor([keep_count / 64]),
        seeds=torch.zeros(1, dtype=torch.int64),
        question_embeds=words,
        question_mask=mask,
        attention_received=torch.stack([_received(one, middle, last) for one in asked], dim=-1) if asked else None,
        feature_layer=layer,
        last_layer=layer,
        projected=projected,
        word_embeds=words,
        word_mask=mask,
        text_relevance=relevance,
    )


def _received(asked: AskedAttention, middle: Tensor, last: Tensor) -> Tensor:
    by_heads = last if asked.depth == 1 else middle
    return (by_heads[:, :, 0] if asked.of_class_token else by_heads.mean(dim=2)).mean(dim=1)[:, 1:]


def kept_by(name: str, keep_count: int, **options: Any) -> tuple[list[int], Tensor]:
    options |= {"text_tower": "unused"} if name == "cdpruner" else {}
    selector: Any = build_selector(name, SHAPE, **options)
    inputs = drawn(keep_count, getattr(selector, "asked_attention", ()))
    selection = selector.select(inputs)
    return selection.indices[0].tolist(), selection.apply(inputs.features)[0]


@pytest.mark.parametrize(("name", "keep_count", "kept", "merged"), AUTHORS, ids=lambda value: str(value)[:12])
def test_kept_tokens_are_those_of_the_authors_code(
    name: str, keep_count: int, kept: list[int], merged: list[list[float]] | None
) -> None:
    indices, features = kept_by(name, keep_count)
    assert indices == kept
    if merged is not None:
        torch.testing.assert_close(features[[0, -1], :3], torch.tensor(merged), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("name", "keep_count", "options", "kept"), WITH_OPTIONS, ids=lambda value: str(value)[:12])
def test_kept_tokens_are_those_of_the_authors_code_under_its_options(
    name: str, keep_count: int, options: dict[str, float], kept: list[int]
) -> None:
    assert kept_by(name, keep_count, **options)[0] == kept


@pytest.mark.parametrize("keep_count", PRUMERGE)
def test_prumerge_merges_what_the_authors_code_merges(keep_count: int) -> None:
    centres, (first, rest) = PRUMERGE[keep_count]
    indices, features = kept_by("prumerge-k", keep_count)
    (place,) = set(indices) - set(centres)
    assert sorted([*centres, place]) == indices
    torch.testing.assert_close(features[indices.index(centres[0]), :3], torch.tensor(first), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(features[indices.index(place), :3], torch.tensor(rest), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("name", "centres"), [("prumerge", PRUMERGE_OWN), ("prumerge-plus", PRUMERGE_PLUS_OWN)])
def test_prumerge_finds_the_number_that_the_authors_code_finds(name: str, centres: list[int]) -> None:
    selector = build_selector(name, SHAPE)
    assert isinstance(selector, OwnCountMethod)
    (own,) = selector.own_counts(drawn(64)).tolist()
    assert own == len(centres) + 1
    indices, _ = kept_by(name, own)
    assert len(set(indices) - set(centres)) == 1
    assert set(centres) <= set(indices)


@pytest.mark.parametrize("keep_count", PRUMERGE_PLUS)
def test_prumerge_plus_keeps_what_the_authors_code_keeps(keep_count: int) -> None:
    indices, _ = kept_by("prumerge-plus-k", keep_count)
    assert set(PRUMERGE_PLUS[keep_count]) <= set(indices)
    repeated = keep_count - 1 - len(PRUMERGE_PLUS[keep_count])
    assert len(set(indices) - set(PRUMERGE_PLUS[keep_count])) == repeated + 1


# What the code's `extract_keywords_simple` returned (mmtok/core/text_processor.py).
@pytest.mark.parametrize(
    ("question", "words"),
    [
        ("What is the color of the car?", ["color", "of", "car"]),
        (
            "How many dogs are on the left of the tree? Answer the question using a single word or phrase.",
            ["many", "dogs", "on", "left", "of", "tree"],
        ),
        ("Is it?", ["Is", "it?"]),
        ("why?", ["why?"]),
        ("", []),
    ],
)
def test_mmtok_reads_the_words_that_the_authors_code_reads(question: str, words: list[str]) -> None:
    assert MMTokSelector().words(question) == words
