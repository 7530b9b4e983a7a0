"""Images whose placeholders stand apart, and rows added behind layers: LLaVA stands for families that do so."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from masked_reference import MaskedInside
from models import sample_of, scheduled, six_layers, tiny_base, tiny_inputs, tiny_processor
from stock_reference import greedy, pruned_prompt
from torch import Tensor

from adallava import AdaLlava
from adallava.budget import TokenBudget
from adallava.errors import InputError
from adallava.families.family_contract import VisionFeatures
from adallava.families.llava import LlavaFamily
from adallava.families.picture_inputs import PictureInputs
from adallava.pipeline.companions import arranged, kept_columns
from adallava.pipeline.layout import plan_layout
from adallava.selection import build_selector
from adallava.selection.selector_contract import Need

ORDER = torch.tensor([0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15])
"""Two tiles of 4 x 2 side by side: the first eight placeholders are the left one's."""

LEVELS = (0, 2)
"""Layers behind which rows are added."""


class Apart(LlavaFamily):
    """A LLaVA whose prompts show a picture in two runs of placeholders, of its left and its right half."""

    def placeholder_orders(self, pictures: PictureInputs) -> tuple[Tensor | None, ...]:
        return (ORDER.argsort(),) * len(pictures.pixel_values)

    def encode(self, pictures: PictureInputs, *, needs: Collection[Need] = ()) -> VisionFeatures:
        vision = super().encode(pictures, needs=needs)
        return replace(vision, features=vision.features[:, ORDER.argsort()])

    def project_all(self, vision: VisionFeatures) -> Tensor:
        return super().project_all(vision)[:, ORDER.argsort()]


class Deep(Apart):
    """The same with rows added behind two layers: each level's features times a number, projected."""

    def encode(self, pictures: PictureInputs, *, needs: Collection[Need] = ()) -> VisionFeatures:
        vision = super().encode(pictures, needs=needs)
        return replace(vision, levels={layer: vision.features * (layer + 2) for layer in LEVELS})

    def side_rows(self, level: int, features: Tensor) -> Tensor:
        return self.project(features)

    def all_side_rows(self, vision: VisionFeatures) -> Mapping[int, Tensor]:
        return {layer: self.project(features) for layer, features in vision.levels.items()}


def _model(cls: type[LlavaFamily], monkeypatch: pytest.MonkeyPatch, base: Any = None, method: str = "uniform") -> Any:
    monkeypatch.setattr("adallava.model.wrap_model", cls)
    full = AdaLlava(tiny_base() if base is None else base, tiny_processor())
    return full.with_selector(build_selector(method, full.shape) if method != "full" else None)


def _apart(images_each: int = 1) -> dict[str, Any]:
    """Return prompts with two tokens of text between the halves of each picture, padded on the left."""
    made = tiny_inputs(tiny_processor(), ["what is it?", "why is it red?"], images_each=images_each)
    ids, mask, rows = made["input_ids"], made["attention_mask"], []
    image = int(ids[ids >= 256].mode().values)
    for row, seen in zip(ids, mask, strict=True):
        places = (row == image).nonzero().flatten().view(images_each, 16)[:, 7] + 1
        pieces = [*torch.tensor_split(row, places.tolist())]
        rows.append(torch.cat([pieces[0], *[torch.cat([torch.tensor([65, 66]), piece]) for piece in pieces[1:]]]))
        assert int(seen.sum()) + 2 * images_each <= len(rows[-1])
    longer = torch.nn.functional.pad(mask, (0, 2 * images_each), value=1)
    return made | {"input_ids": torch.stack(rows), "attention_mask": longer}


def test_where_text_comes_to_stand_between_what_is_kept() -> None:
    ids = torch.tensor([[1, 9, 9, 2, 9, 9, 3, 4], [5, 6, 9, 9, 9, 9, 7, 0]])
    layout = plan_layout(
        ids,
        torch.tensor([[1] * 8, [1] * 7 + [0]]),
        tokens_per_image=[4, 4],
        image_token_id=9,
        budgets=[TokenBudget(count=2), TokenBudget(count=1)],
        side="left",
        orders=[torch.tensor([0, 2, 1, 3]), None],
    )
    # Token 1 of the first image stands at its third placeholder.
    assert layout.image_columns.tolist() == [[1, 4, 2, 5], [2, 3, 4, 5]]
    assert layout.text_columns.tolist() == [[0, 1, 1, 3, 6, 7], [0, 0, 0, 1, 2, 6]]
    kept = torch.tensor([[1, 2], [3, 0]])
    placed = arranged(layout, kept)
    assert kept_columns(placed, kept).tolist() == [[0, 2, 3, 4, 6, 7], [0, 0, 0, 1, 5, 6]]
    # The first slot is token 1, at column 4; the second token 2, at column 2.
    assert placed.vision_slots.tolist() == [[-1, 1, -1, 0, -1, -1], [-1, -1, -1, -1, 2, -1]]


def test_placeholders_apart_are_refused_where_a_family_has_them_in_one_run(llava: AdaLlava) -> None:
    with pytest.raises(InputError, match="sample 0, image 0: its 16 placeholders are not in one run"):
        llava.generate(**_apart(), max_new_tokens=1)


@pytest.mark.parametrize("images_each", [1, 2])
def test_all_of_them_are_the_stock_model(monkeypatch: pytest.MonkeyPatch, images_each: int) -> None:
    model, inputs = _model(Apart, monkeypatch), _apart(images_each)
    stock = model.base.generate(**inputs, max_new_tokens=4, do_sample=False)
    assert torch.equal(model.generate(**inputs, max_new_tokens=4, do_sample=False).sequences, stock)


@pytest.mark.parametrize("method", ["random", "fastv", "pyramiddrop"])
def test_a_sample_alone_in_a_batch_and_with_labels_is_one_thing(monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    base = tiny_base(attn_implementation="eager", num_hidden_layers=6)
    model, inputs = _model(Apart, monkeypatch, base, method), _apart()
    both = model.generate(**inputs, token_budget=[3, 6], seed=[4, 5], max_new_tokens=3, do_sample=False)
    for number, (budget, seed) in enumerate([(3, 4), (6, 5)]):
        one = sample_of(inputs, number)
        alone = model.generate(**one, token_budget=budget, seed=seed, max_new_tokens=3, do_sample=False)
        assert both.records[number].kept_indices == alone.records[0].kept_indices
        assert both.answer_ids[number] == alone.answer_ids[0]
        logits = model.forward(**one, token_budget=budget, seed=seed).logits[0]
        if method == "random":
            placeholders = ORDER.argsort()[torch.tensor(alone.records[0].kept_indices[0])].tolist()
            embeds, positions = pruned_prompt(base, one, [placeholders], [16])
            reference = base(inputs_embeds=embeds, position_ids=positions).logits[0].detach()
            tokens, _ = greedy(base, embeds, positions, 3)
            assert tokens == alone.answer_ids[0]
        else:
            every, stays = MaskedInside(base, model.selector, budget).logits(one)
            reference = every[stays]
        torch.testing.assert_close(logits, reference, atol=2e-5, rtol=1e-4)


def _with_rows(base: Any, rows: dict[int, Tensor], places: Tensor) -> list[Any]:
    """Have a stock model add rows to some places behind its layers, as hooks do it; return the hooks."""

    def behind(added: Tensor) -> Any:
        def hook(_: Any, __: Any, states: Tensor) -> Tensor:
            return states.index_add(1, places, added[None]) if states.shape[1] > 1 else states

        return hook

    return [base.model.language_model.layers[layer].register_forward_hook(behind(own)) for layer, own in rows.items()]


def _removed(hooks: list[Any]) -> None:
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize("method", ["full", "random"])
def test_added_rows_are_those_of_kept_tokens(monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    model, inputs = _model(Deep, monkeypatch, method=method), _apart()
    budgets = [1.0, 1.0] if method == "full" else [3, 6]
    both = model.generate(**inputs, token_budget=budgets, seed=3, max_new_tokens=4, do_sample=False)
    for number, budget in enumerate(budgets):
        one = sample_of(inputs, number)
        logits = model.forward(**one, token_budget=budget, seed=3).logits[0]
        kept = torch.tensor(both.records[number].kept_indices[0])
        placeholders = ORDER.argsort()[kept]
        embeds, positions = pruned_prompt(model.base, one, [placeholders.tolist()], [16])
        features = model.family.encode(PictureInputs(one["pixel_values"])).levels
        in_order = kept[placeholders.argsort()]
        rows = {layer: model.family.project(of[:, in_order])[0] for layer, of in features.items()}
        ids = one["input_ids"][0, positions[0]]
        hooks = _with_rows(model.base, rows, (ids == model.family.image_token_id).nonzero().flatten())
        reference = model.base(inputs_embeds=embeds, position_ids=positions).logits[0]
        _removed(hooks)
        torch.testing.assert_close(logits, reference, atol=2e-5, rtol=1e-4)
        assert both.answer_ids[number][0] == int(reference[-1].argmax())


@pytest.mark.parametrize("method", ["fastv", "pyramiddrop"])
def test_rows_are_added_around_drops_and_skips(monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    """Drops before, between and behind the layers; a layer that is left out adds its rows all the same."""
    base = tiny_base(attn_implementation="eager", num_hidden_layers=6)
    model, one = _model(Deep, monkeypatch, base, method), sample_of(_apart(), 0)
    rows = {
        layer: base.model.multi_modal_projector(features)[0][ORDER]
        for layer, features in model.family.encode(PictureInputs(one["pixel_values"])).levels.items()
    }
    places = (one["input_ids"][0] == model.family.image_token_id).nonzero().flatten()
    ours = model.forward(**one, token_budget=5).logits[0]
    hooks = _with_rows(base, rows, places)
    every, stays = MaskedInside(base, model.selector, 5).logits(one)
    _removed(hooks)
    torch.testing.assert_close(ours, every[stays], atol=2e-5, rtol=1e-4)


def test_a_layer_that_is_left_out_adds_its_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    model = _model(Deep, monkeypatch, six_layers(AdaLlava(tiny_base(), tiny_processor())).base, "full")
    monkeypatch.setattr("models.SCHEDULER_OPTIONS", {"fixed": {"plans": "5/1+3+4+5", "prefix_layers": 1}})
    skipping, one = scheduled(model, "fixed"), sample_of(_apart(), 0)
    ours = skipping.forward(**one, latency=5 / 6).logits[0]
    features = model.family.encode(PictureInputs(one["pixel_values"])).levels
    rows = {layer: model.base.model.multi_modal_projector(of)[0][ORDER] for layer, of in features.items()}
    layers, places = model.base.model.language_model.layers, one["input_ids"][0] == model.family.image_token_id
    rows[1] = rows.pop(2)  # Behind the layer before it, once layer 2 is out.
    hooks = _with_rows(model.base, rows, places.nonzero().flatten())
    model.base.model.language_model.layers = torch.nn.ModuleList([*layers[:2], *layers[3:]])
    reference = model.base(**one, use_cache=False).logits[0]
    _removed(hooks)
    torch.testing.assert_close(ours, reference, atol=2e-5, rtol=1e-4)
