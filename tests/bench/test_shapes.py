"""Named shapes are the published ones, and prompts are what they say."""

import pytest
import torch
from PIL import Image
from published_llava import config_fields
from tiny_idefics3 import tiny_idefics3_base, tiny_idefics3_processor
from tiny_qwen import tiny_qwen_base, tiny_qwen_processor

from adallava import AdaLlava
from adallava.bench.made_up_prompts import BEFORE_PICTURE_TOKENS, make_prompts
from adallava.bench.shapes import NoText, config_of, random_model
from adallava.errors import InputError
from adallava.families.capabilities.of_pictures import take_pictures


@pytest.mark.parametrize("size", ["7b", "13b"])
def test_shapes_are_those_of_the_published_config(size):
    published, ours = config_fields(size, tiny=False), config_of(f"llava-1.5-{size}")
    vision = {name: value for name, value in published["vision_config"].items() if name != "vocab_size"}
    assert vision == {name: getattr(ours.vision_config, name) for name in vision}
    llama_7b = {"hidden_size": 4096, "intermediate_size": 11008, "num_attention_heads": 32, "num_hidden_layers": 32}
    text = llama_7b | {"num_key_value_heads": 32} | published["text_config"]
    for name in (*llama_7b, "num_key_value_heads", "vocab_size", "max_position_embeddings", "rms_norm_eps"):
        assert getattr(ours.text_config, name) == text[name], name
    assert ours.image_token_id == published["image_token_index"]
    assert ours.vision_feature_layer == published["vision_feature_layer"]
    assert (ours.image_seq_length, ours.projector_hidden_act) == (576, published["projector_hidden_act"])


def test_a_prompt_has_its_text_around_one_picture_and_is_the_same_each_time():
    model = random_model("toy", "cpu", torch.float32)
    made, again = make_prompts(model, 2, 9), make_prompts(model, 2, 9)
    pictures = made["input_ids"] == model.base.config.image_token_id
    assert made["input_ids"].shape == (2, 9 + 64)
    assert pictures.sum(dim=1).tolist() == [64, 64]
    assert not pictures[:, :BEFORE_PICTURE_TOKENS].any()
    assert not pictures[:, -4:].any()
    assert all(torch.equal(made[name], again[name]) for name in made)
    with pytest.raises(InputError, match="--text-tokens is 5"):
        make_prompts(model, 1, 5)


def test_a_made_up_picture_in_tiles_stands_in_its_prompt_with_their_tags():
    model = AdaLlava(tiny_idefics3_base(), tiny_idefics3_processor())
    made = make_prompts(model, 2, 9)
    given, _ = take_pictures(model.family, made)
    # The picture is a square, so that its tiles are 3 x 3, of 4 x 4 tokens each.
    assert model.family.grids(given) == ((12, 12), (4, 4)) * 2
    output = model.with_method("uniform").generate(**made, token_budget=40, max_new_tokens=1)
    assert [ran.tokens_kept for ran in output.records] == [40, 40]


def test_a_shape_in_tiles_has_its_tiles_and_the_whole():
    shape = NoText(picture_px=(56, 56), tiles=(13,))
    model = AdaLlava(tiny_idefics3_base(), shape)
    given, _ = take_pictures(model.family, make_prompts(model, 1, 9))
    side = model.family.shape.grid[0]
    assert model.family.grids(given) == ((3 * side, 4 * side), (side, side))


def test_an_image_of_ones_own_stands_in_every_prompt_at_its_own_size(tmp_path):
    Image.new("RGB", (48, 32), "green").save(tmp_path / "own.png")
    model = AdaLlava(tiny_qwen_base("qwen2_5_vl"), tiny_qwen_processor("qwen2_5_vl"))
    made = make_prompts(model, 2, 10, tmp_path / "own.png")
    # 32 x 48 pixels in patches of 4, four of which are one token.
    assert made["image_grid_thw"].tolist() == [[1, 8, 12]] * 2
    assert (made["input_ids"] == model.family.image_token_id).sum(dim=1).tolist() == [24, 24]


def test_an_image_where_all_are_cut_to_one_size_is_refused(tmp_path):
    with pytest.raises(InputError, match="leave it out"):
        make_prompts(random_model("toy", "cpu", torch.float32), 1, 10, tmp_path / "own.png")
