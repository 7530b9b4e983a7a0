"""Idefics3 and SmolVLM: the tiles of a picture are one image, whose placeholders lie in several runs of the prompt."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from models import BEFORE_LLM, IN_A_FAMILY, METHOD_OPTIONS, rest_is_long, sample_of, scheduled, tiny_image
from product_counter import ProductCounter
from tiny_idefics3 import TILE_PX, expanded, prompts_with_tiles, tiny_idefics3_base, tiny_idefics3_tokenizer
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from adallava import AdaLlava
from adallava.costs.counted import count_costs
from adallava.errors import InputError, UnsupportedModeError
from adallava.families.capabilities.of_pictures import shown_patches, take_pictures
from adallava.families.needs import check_needs
from adallava.pipeline.read_prompts import IGNORED_LABEL
from adallava.runs.answer_flops import count_flops
from adallava.scheduling.first import FirstScheduler
from adallava.selection import build_selector
from adallava.selection.selector_contract import Need

LACKS = {"budget-token", "downsample", "cls-attention", "visionzip", "prumerge", "prumerge-k"}
LACKS |= {"prumerge-plus", "prumerge-plus-k"}
"""By hand: methods that read a class token, which SigLIP has not, or send something else through the tower."""

SERVED = [name for name in BEFORE_LLM if name not in {*LACKS, "question"}]

GRIDS = ((8, 12), (4, 4), (4, 4), (8, 4), (4, 4), (4, 8), (4, 4))
"""By hand, of the pictures of `prompts_with_tiles`: 2 x 3 tiles of 4 x 4 tokens, and the whole, and so on."""


class _Texts:
    """What `generate` needs of a processor: the real ones ask for torchvision."""

    tokenizer = tiny_idefics3_tokenizer()
    image_token, chat_template = "<image>", None

    def batch_decode(self, *args: Any, **kwargs: Any) -> Any:
        return self.tokenizer.batch_decode(*args, **kwargs)


@pytest.fixture(scope="module", params=["Idefics3", "SmolVLM"])
def full(request: pytest.FixtureRequest) -> AdaLlava:
    return AdaLlava(tiny_idefics3_base(request.param), _Texts())


@pytest.fixture(scope="module")
def inputs() -> dict[str, Any]:
    return prompts_with_tiles(tiny_idefics3_tokenizer())


def columns_of(ids: Tensor, image_token_id: int, cuts: Sequence[tuple[int, int]]) -> list[Tensor]:
    """Return by hand the columns of each image's tokens, row by row: of tiles of 4 x 4, and of wholes."""
    runs = (ids == image_token_id).nonzero().flatten().view(-1, 4, 4)
    images, first = [], 0
    for down, across in cuts:
        if down:
            rows = [
                torch.cat(list(runs[first + row * across : first + (row + 1) * across]), dim=1) for row in range(down)
            ]
            images.append(torch.cat(rows).flatten())
        images.append(runs[first + down * across].flatten())
        first += down * across + 1
    return images


CUTS: list[list[tuple[int, int]]] = [[(2, 3)], [(0, 0), (2, 1)], [(1, 2)]]


def masks(inputs: dict[str, Any], image_token_id: int, kept: Sequence[Sequence[Sequence[int]]]) -> Tensor:
    """Return the attention mask of the full prompts with all but the kept tokens of each image hidden."""
    mask = inputs["attention_mask"].clone()
    for row, (cuts, images) in enumerate(zip(CUTS, kept, strict=True)):
        for columns, indices in zip(columns_of(inputs["input_ids"][row], image_token_id, cuts), images, strict=True):
            mask[row, columns] = 0
            mask[row, columns[list(indices)]] = 1
    return mask


def test_how_pictures_were_cut_is_read_off_the_prompts(full: AdaLlava, inputs: dict[str, Any]) -> None:
    pictures, rest = take_pictures(full.family, inputs)
    assert pictures is not None
    assert full.family.grids(pictures) == GRIDS
    assert full.family.tower_runs(pictures) == (6, 1, 1, 2, 1, 2, 1)
    assert set(rest) == {"attention_mask"}


@pytest.mark.newest
@pytest.mark.parametrize("options", [{}, {"num_beams": 2}], ids=str)
def test_the_full_budget_is_the_stock_model(full: AdaLlava, inputs: dict[str, Any], options: Any) -> None:
    stock = full.base.generate(**inputs, max_new_tokens=4, do_sample=False, **options)
    for model in (full, full.with_method("divprune")):
        ours = model.generate(**inputs, max_new_tokens=4, do_sample=False, **options)
        assert torch.equal(ours.sequences, stock)


@torch.no_grad()
@pytest.mark.parametrize("padded", [False, True])
def test_its_logits_have_the_stock_models_bits(full: AdaLlava, inputs: dict[str, Any], padded: bool) -> None:
    order = inputs["attention_mask"].argsort(dim=1, descending=True, stable=True)
    right = inputs | {name: inputs[name].gather(1, order) for name in ("input_ids", "attention_mask")}
    if padded:  # A tile of which the processor filled some columns up.
        right["pixel_attention_mask"] = right["pixel_attention_mask"].clone()
        right["pixel_attention_mask"][0, 2, :, 30:] = 0
    real = right["attention_mask"].bool()
    stock = full.base(**right, use_cache=False).logits
    assert torch.equal(full.forward(**right).logits[real], stock[real])


@pytest.mark.newest
@pytest.mark.parametrize("method", rest_is_long(SERVED, IN_A_FAMILY))
@torch.no_grad()
def test_dropped_tokens_are_masked_ones(full: AdaLlava, inputs: dict[str, Any], method: str) -> None:
    model = full.with_method(method, **METHOD_OPTIONS.get(method, {}))
    selector: Any = model.selector
    made = model.forward(**inputs, token_budget=[30, 11, 1.0], seed=3)
    ran = model.select(**inputs, token_budget=[30, 11, 1.0], seed=3)
    if not selector.ignores_budget:
        assert [each.tokens_kept for each in ran] == [30, 11, 48]
        assert [tuple(map(len, each.kept_indices)) for each in ran] == [(26, 4), (3, 5, 3), (32, 16)]
    if selector.merges:
        return
    mask = masks(inputs, full.family.image_token_id, [each.kept_indices for each in ran])
    positions = (inputs["attention_mask"].cumsum(1) - 1).clamp_min(0)
    logits = full.base(**inputs | {"attention_mask": mask}, position_ids=positions, use_cache=False).logits
    for row, (of_all, stays) in enumerate(zip(logits, mask.bool(), strict=True)):
        expected = of_all[stays]
        torch.testing.assert_close(made.logits[row, : len(expected)], expected, atol=1e-4, rtol=1e-4)


def test_an_answer_does_not_depend_on_its_batch(full: AdaLlava, inputs: dict[str, Any]) -> None:
    model, budgets = full.with_method("divprune"), [30, 11, 0.5]
    together = model.generate(**inputs, token_budget=budgets, max_new_tokens=4, do_sample=False)
    for row, budget in enumerate(budgets):
        one = sample_of(inputs, row)
        alone = model.generate(**one, token_budget=budget, max_new_tokens=4, do_sample=False)
        assert alone.records[0].kept_indices == together.records[row].kept_indices
        assert alone.text[0] == together.text[row]


def test_labels_and_gradients_are_those_of_masked_tokens(full: AdaLlava, inputs: dict[str, Any]) -> None:
    model = full.with_method("uniform")
    labels = inputs["input_ids"].masked_fill(inputs["input_ids"] == full.family.image_token_id, IGNORED_LABEL)
    labels[:, :-6] = IGNORED_LABEL
    projection = full.base.model.connector.modality_projection.proj.weight
    (ours,) = torch.autograd.grad(model.forward(**inputs, labels=labels, token_budget=9).loss, projection)
    kept = [ran.kept_indices for ran in model.select(**inputs, token_budget=9)]
    mask = masks(inputs, full.family.image_token_id, kept)
    positions = (inputs["attention_mask"].cumsum(1) - 1).clamp_min(0)
    stock = full.base(**inputs | {"attention_mask": mask}, labels=labels, position_ids=positions, use_cache=False)
    torch.testing.assert_close(ours, torch.autograd.grad(stock.loss, projection)[0], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_methods_read_shuffled_features_and_mean_keys(full: AdaLlava, inputs: dict[str, Any]) -> None:
    """Token (5, 6) of the first picture is (1, 2) of its tile (1, 1), the fifth: patches (2, 4) to (3, 5) of 8 x 8."""
    pictures, _ = take_pictures(full.family, inputs)
    assert pictures is not None
    layer, read = full.base.model.vision_model.encoder.layers[-1], []
    hook = layer.register_forward_pre_hook(lambda _, args, kwargs: read.append(args[0]), with_kwargs=True)
    vision = full.family.encode(pictures, needs=(Need.FEATURE_LAYER,))
    hook.remove()
    tower = vision.unprojected
    assert tower is not None
    assert vision.feature_layer is not None
    patches = [20, 21, 28, 29]
    torch.testing.assert_close(vision.features[0, 5 * 12 + 6], tower[4, patches].flatten())
    keys = layer.self_attn.k_proj(layer.layer_norm1(read[0]))[4, patches].mean(dim=0)
    of_image = vision.feature_layer.of_image(0, 96)
    torch.testing.assert_close(of_image.patch_keys[0, 5 * 12 + 6], keys, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(vision.feature_layer.patch_keys[0, 66], keys, atol=1e-5, rtol=1e-5)


def test_what_is_drawn_is_what_the_tokens_look_at(full: AdaLlava, inputs: dict[str, Any]) -> None:
    pictures, _ = take_pictures(full.family, inputs)
    assert pictures is not None
    shown, tiles = shown_patches(full.family, pictures), inputs["pixel_values"]
    assert [tuple(each.shape[1:]) for each in shown[:3]] == [(2 * TILE_PX, 3 * TILE_PX), (56, 56), (56, 56)]
    assert torch.equal(shown[0][:, TILE_PX:, TILE_PX : 2 * TILE_PX], tiles[0, 4])
    assert torch.equal(shown[1], tiles[0, 6])
    assert torch.equal(shown[3][:, TILE_PX:], tiles[1, 2])


@pytest.mark.parametrize("method", sorted(LACKS))
def test_what_its_tower_cannot_serve_is_refused(full: AdaLlava, method: str) -> None:
    with pytest.raises(UnsupportedModeError, match=method):
        check_needs(full.family, build_selector(method, full.shape))


@pytest.mark.parametrize(
    ("method", "budget", "cut"),
    [("divprune", 5, (1, 2)), ("tome", 11, (0, 0)), pytest.param("uniform", 1.0, (2, 1), marks=pytest.mark.long)],
)
def test_its_costs_are_what_pytorch_counts(
    full: AdaLlava, method: str, budget: int | float, cut: tuple[int, int]
) -> None:
    model = full.with_method(method)
    inputs = prompts_with_tiles(tiny_idefics3_tokenizer(), [[cut]])
    with sdpa_kernel(SDPBackend.MATH), ProductCounter() as counter:
        output = model.generate(**inputs, token_budget=budget, max_new_tokens=3, do_sample=False)
    shape = count_costs(model.base.config)
    expected = count_flops(model, shape, output.records[0], "why?", output.answer_lengths[0])
    assert sum(expected.values()) == counter.flops


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"pixel_attention_mask": None}, "need the processor's pixel_attention_mask"),
        (
            {"pixel_attention_mask": torch.zeros(3, 7, 56, 56, dtype=torch.int64)},
            r"ask for \[7, 4, 3\] tiles.*\[0, 0, 0\]",
        ),
        ({"input_ids": slice(None, -40)}, "let the processor expand the prompt|tiles, and the images have"),
    ],
)
def test_pictures_that_do_not_fit_their_prompts_are_told_in_a_line(
    full: AdaLlava, inputs: dict[str, Any], change: dict[str, Any], words: str
) -> None:
    cut = {name: inputs[name][:, part] if isinstance(part, slice) else part for name, part in change.items()}
    with pytest.raises(InputError, match=words):
        full.select(**inputs | {"attention_mask": None} | cut, token_budget=3)


def test_these_prompts_are_those_of_its_processor() -> None:
    """Where it can be had without torchvision: of Idefics3, on newer transformers."""
    import transformers

    tokenizer = tiny_idefics3_tokenizer()
    try:
        made = transformers.Idefics3ImageProcessorPil(size={"longest_edge": 168}, max_image_size={"longest_edge": 56})
    except (ImportError, AttributeError) as error:
        pytest.skip(str(error).strip()[:60])
    processor = transformers.Idefics3Processor(made, tokenizer, image_seq_len=16)
    images = [[tiny_image(0, (90, 60))], [tiny_image(1, (30, 150)), tiny_image(2, (40, 40))]]
    texts = ["a <image> b why?", "<image><image>why?"]
    inputs = processor(images=images, text=texts, return_tensors="pt", padding=True)
    family = AdaLlava(tiny_idefics3_base(), _Texts()).family
    pictures, _ = take_pictures(family, inputs)
    assert pictures is not None
    # 90 x 60 becomes 168 x 112: 3 x 2 tiles; 30 x 150 is 34 x 168; a square is 3 x 3.
    assert family.grids(pictures) == ((8, 12), (4, 4), (12, 4), (4, 4), (12, 12), (4, 4))
    expected = tokenizer(f"a {expanded((2, 3))} b why?")["input_ids"]
    assert inputs["input_ids"][0][inputs["attention_mask"][0].bool()].tolist() == expected


@pytest.mark.parametrize("method", ["fastv", "pyramiddrop"])
@torch.no_grad()
def test_methods_inside_its_llm_drop_what_they_drop_where_tags_stand_between(
    full: AdaLlava, inputs: dict[str, Any], method: str
) -> None:
    """K = N is stock; of fewer, the last layer reads text and K, and each sample's answer is that of it alone."""
    model = full.with_method(method)
    stock = full.base.generate(**inputs, max_new_tokens=3, do_sample=False)
    assert torch.equal(model.generate(**inputs, max_new_tokens=3, do_sample=False).sequences, stock)
    together = model.generate(**inputs, token_budget=[30, 11, 0.5], max_new_tokens=3, do_sample=False)
    assert [ran.tokens_at_end for ran in together.records] == [30, 11, 24]
    for row, budget in enumerate([30, 11, 0.5]):
        one = sample_of(inputs, row)
        alone = model.generate(**one, token_budget=budget, max_new_tokens=3, do_sample=False)
        assert alone.records[0].kept_indices == together.records[row].kept_indices
        assert alone.text[0] == together.text[row]


@torch.no_grad()
def test_what_fastv_drops_is_what_no_layer_behind_sees(full: AdaLlava, inputs: dict[str, Any]) -> None:
    """The stock model's layers by hand, with the dropped tokens hidden from layer 2 on."""
    sample = sample_of(inputs, 1)
    made = full.with_method("fastv").forward(**sample, token_budget=11)
    (ran,) = full.with_method("fastv").select(**sample, token_budget=11)
    base, llm = full.base, full.base.model.text_model
    features = torch.cat(list(base.model.get_image_features(sample["pixel_values"]).pooler_output)).flatten(0, -2)
    (ids,) = sample["input_ids"]
    states = base.get_input_embeddings()(ids)
    states[ids == full.family.image_token_id] = features
    stays = ids != full.family.image_token_id
    for columns, indices in zip(columns_of(ids, full.family.image_token_id, CUTS[1]), ran.kept_indices, strict=True):
        stays[columns[list(indices)]] = True
    causal = torch.ones(len(ids), len(ids), dtype=torch.bool).tril()
    states, tables = states[None], llm.rotary_emb(states[None], torch.arange(len(ids))[None])
    for index, layer in enumerate(llm.layers):
        seen = causal if index < 2 else causal & (stays[None, :] | torch.eye(len(ids), dtype=torch.bool))
        states = layer(states, attention_mask=seen[None, None], position_embeddings=tables)
    expected = base.lm_head(llm.norm(states))[0, stays]
    torch.testing.assert_close(made.logits[0], expected, atol=1e-4, rtol=1e-4)


def test_a_schedule_leaves_layers_of_its_llm_out(full: AdaLlava, inputs: dict[str, Any]) -> None:
    model = full.with_method("uniform").with_scheduler(FirstScheduler(prefix_layers=1))
    output = model.generate(**inputs, token_budget=9, latency=[1.0, 0.5, 0.75], max_new_tokens=3, do_sample=False)
    assert [ran.layer_share for ran in output.records] == [1.0, 0.5, 0.75]
    alone = full.with_method("uniform").generate(**sample_of(inputs, 0), token_budget=9, max_new_tokens=3)
    assert alone.text[0] == output.text[0]


@pytest.mark.parametrize("name", ["layers", "adallava-layers"])
def test_labels_on_tags_between_an_images_tiles_leave_no_place_for_question_or_latency_token(
    full: AdaLlava, inputs: dict[str, Any], name: str
) -> None:
    sample = sample_of(inputs, 0)
    ids, image = sample["input_ids"][0].tolist(), full.family.image_token_id
    # The tag of the second tile: behind the first run of placeholders, and the token that comes before tags.
    tag = next(place for place, token in enumerate(ids) if place and token != image and ids[place - 1] == image) + 1
    labels = torch.full_like(sample["input_ids"], IGNORED_LABEL)
    labels[0, tag] = ids[tag]
    assert full.with_method("uniform").forward(**sample, labels=labels, token_budget=20).loss is not None
    with pytest.raises(InputError, match="sample 0 has no text after image 0 before its first label"):
        full.with_method("fastv").forward(**sample, labels=labels, token_budget=20)
    with pytest.raises(InputError, match="among the placeholders of image 0, where a latency token cannot be placed"):
        scheduled(full, name).forward(**sample, labels=labels, latency=0.5)
