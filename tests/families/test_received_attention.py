"""Attention received: what a tower without a class token has in the place of its attention, held to eager matrices."""

from typing import Any, ClassVar

import pytest
import torch
from models import tiny_base, tiny_inputs, tiny_next_base, tiny_next_processor, tiny_processor
from tiny_gemma3 import prompts_with_pictures, tiny_gemma3_base, tiny_gemma3_processor
from tiny_idefics3 import prompts_with_tiles, tiny_idefics3_base, tiny_idefics3_tokenizer
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from adallava import AdaLlava
from adallava.costs.counted import count_costs
from adallava.families import tower_layer, wrap_model
from adallava.families.capabilities import take_pictures
from adallava.runs.answer_flops import count_flops
from adallava.selection.base import Method
from adallava.selection.selector_contract import Need, Selection, SelectionInput, TowerShape, keep_highest

NEEDS = (Need.RECEIVED_ATTENTION,)


class MostSeen(Method):
    """Keeps what receives the most."""

    name: ClassVar[str] = "most-seen"
    needs: ClassVar[frozenset[Need]] = frozenset(NEEDS)

    def select(self, inputs: SelectionInput) -> Selection:
        assert inputs.received_attention is not None
        return keep_highest(inputs.received_attention, inputs.keep_counts)

    def flops(self, shape: TowerShape, num_question_tokens: int, keep_count: int) -> int:
        return 0


def received(family: Any, inputs: dict[str, Any]) -> torch.Tensor:
    pictures, _ = take_pictures(family, inputs)
    found = family.encode(pictures, needs=NEEDS).received_attention
    assert isinstance(found, torch.Tensor)
    return found


@torch.no_grad()
@pytest.mark.parametrize("at_once", [512, 5])
def test_of_clip_it_is_the_mean_of_the_attention_matrix(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Features of layer -2 of two: the first puts them out. In parts of a few queries it is the same."""
    monkeypatch.setattr(tower_layer, "_QUERIES_AT_ONCE", at_once)
    base = tiny_base(attn_implementation="eager")
    inputs = tiny_inputs(tiny_processor(), ["what?", "why?"])
    matrix = base.model.vision_tower(inputs["pixel_values"], output_attentions=True).attentions[0]
    found = received(wrap_model(base), inputs)
    torch.testing.assert_close(found, matrix.mean(dim=(1, 2))[:, 1:], atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_of_gemma_a_token_receives_what_its_patches_do() -> None:
    base = tiny_gemma3_base(attn_implementation="eager")
    inputs = prompts_with_pictures(tiny_gemma3_processor())
    matrix = base.model.vision_tower(inputs["pixel_values"], output_attentions=True).attentions[-1]
    expected = matrix.mean(dim=(1, 2)).view(-1, 4, 2, 4, 2).sum(dim=(2, 4)).flatten(1)
    found = received(wrap_model(base), inputs)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(found.sum(dim=1), torch.ones(len(found)))


@torch.no_grad()
def test_of_a_cut_picture_each_tile_gives_its_own_and_padding_nothing() -> None:
    base = tiny_idefics3_base(attn_implementation="eager")
    inputs = prompts_with_tiles(tiny_idefics3_tokenizer(), [[(1, 2)]])
    inputs["pixel_attention_mask"] = inputs["pixel_attention_mask"].clone()
    inputs["pixel_attention_mask"][0, 1, :, 28:] = 0  # The right half of the second tile: columns 2 and 3 of 4.
    whole = torch.ones(3, 8, 8, dtype=torch.bool)
    whole[1, :, 4:] = False
    tower = base.model.vision_model
    matrix = tower(inputs["pixel_values"][0], patch_attention_mask=whole, output_attentions=True).attentions[-1]
    seen = whole.flatten(1)
    means = torch.stack([matrix[tile].mean(dim=0)[seen[tile]].mean(dim=0) for tile in range(3)])
    of_tiles = means.view(3, 4, 2, 4, 2).sum(dim=(2, 4))
    found = received(wrap_model(base), inputs)
    expected = torch.cat([of_tiles[0], of_tiles[1]], dim=1).flatten()
    torch.testing.assert_close(found[0], expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(found[1, :16], of_tiles[2].flatten(), atol=1e-6, rtol=1e-5)
    assert found[0].view(4, 8)[:, 6:].abs().max() < 1e-6


@torch.no_grad()
def test_a_method_chooses_by_it_and_its_cost_is_counted() -> None:
    for model, inputs in (
        (AdaLlava(tiny_base(), tiny_processor()), tiny_inputs(tiny_processor(), ["why?"])),
        (AdaLlava(tiny_gemma3_base(), tiny_gemma3_processor()), prompts_with_pictures(tiny_gemma3_processor(), [1])),
        (AdaLlava(tiny_next_base(), tiny_next_processor()), tiny_inputs(tiny_next_processor(), ["why?"])),
    ):
        most_seen = AdaLlava(model.base, model.processor, MostSeen())
        counter = FlopCounterMode(display=False)
        with sdpa_kernel(SDPBackend.MATH), counter:
            output = most_seen.generate(**inputs, token_budget=5, max_new_tokens=2, do_sample=False)
        found = received(model.family, inputs)
        ran = output.records[0]
        for row, (kept, (rows, columns)) in enumerate(zip(ran.kept_indices, ran.grids, strict=True)):
            best = found[row, : rows * columns].argsort(descending=True)[: len(kept)]
            assert kept == tuple(sorted(best.tolist()))
        counts = counter.get_flop_counts()
        rotary = sum(sum(of.values()) for name, of in counts.items() if name.endswith("rotary_emb"))
        expected = count_flops(most_seen, count_costs(model.base.config), ran, "why?", output.answer_lengths[0])
        assert sum(expected.values()) == counter.get_total_flops() - rotary


def test_pictures_are_apart() -> None:
    """What one picture receives does not depend on others of its batch, to the bit."""
    base = tiny_gemma3_base()
    family = wrap_model(base)
    inputs = prompts_with_pictures(tiny_gemma3_processor())
    alone = {"pixel_values": inputs["pixel_values"][1:2]}
    with torch.no_grad():
        assert torch.equal(received(family, alone)[0], received(family, {"pixel_values": inputs["pixel_values"]})[1])
