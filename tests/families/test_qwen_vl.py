"""Qwen-VL: what is its own. The contracts of generation cross it in `tests/pipeline`.

Facts of the published files: config.json of Qwen/Qwen2.5-VL-3B-Instruct and of Qwen/Qwen3-VL-4B-Instruct,
preprocessor_config.json and chat templates from copies in public repositories; key names of the weights from
transformers' own conversions and from a listing of the 3B's modules. Widths, depths and the vocabulary are tiny here.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from models import sample_of, tiny_image, tiny_inputs, tiny_processor
from native_size_checks import check_commands, check_turns
from product_counter import ProductCounter
from safetensors.torch import load_file, save_file
from stock_reference import adding, as_read, projector_of, stock_levels, stock_positions
from tiny_qwen import QWEN_GRIDS, QWEN_LACKS, QWEN_SIZES, QWENS, tiny_qwen, tiny_qwen_base, tiny_qwen_processor
from torch.nn.attention import SDPBackend, sdpa_kernel

from adallava import AdaLlava
from adallava.costs.counted import count_costs
from adallava.doctor.live.probe import padded_on_the_right
from adallava.errors import InputError, UnsupportedModeError
from adallava.families.capabilities.of_pictures import take_pictures
from adallava.model import build_prompt
from adallava.processors.picture_cuts import with_pixel_limits
from adallava.runs.answer_flops import count_flops
from adallava.selection.grid_cells import grid_cells

TEMPLATE_2_5 = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}<|im_start|>system\n"
    "You are a helpful assistant.<|im_end|>\n{% endif %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}<|im_end|>\n{% else %}"
    "{% for content in message['content'] %}{% if content['type'] == 'image' or 'image' in content %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% elif 'text' in content %}{{ content['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Of the published one, without videos and numbered pictures."""

PREPROCESSOR = {
    "min_pixels": 64,
    "max_pixels": 4096,
    "patch_size": 4,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "image_processor_type": "Qwen2VLImageProcessor",
}


@pytest.fixture(scope="module", params=QWENS)
def model(request: pytest.FixtureRequest) -> AdaLlava:
    return AdaLlava(tiny_qwen_base(request.param), tiny_qwen_processor(request.param))


@pytest.fixture(scope="module")
def deep() -> AdaLlava:
    return AdaLlava(tiny_qwen_base("qwen3_vl"), tiny_qwen_processor("qwen3_vl"))


def _published(kind: str, folder: Path) -> Path:
    """Write a tiny checkpoint with published names: of the 2 and 2.5, a flat config and keys without the LLM's name."""
    tiny_qwen(kind, folder)
    config = json.loads((folder / "config.json").read_text())
    text, vision = config.pop("text_config"), config["vision_config"]
    weights = load_file(folder / "model.safetensors")
    rope = {"mrope_section": [2, 2, 2]}
    kept = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    kept += ("num_key_value_heads", "rms_norm_eps", "max_position_embeddings", "bos_token_id", "eos_token_id")
    fields = {name: text[name] for name in kept} | {"rope_theta": 1000000.0, "tie_word_embeddings": False}
    ids = {name: config[name] for name in config if name.endswith("token_id")}
    processor = dict(PREPROCESSOR, processor_class="Qwen3VLProcessor")
    if kind == "qwen3_vl":
        rope |= {"mrope_interleaved": True, "rope_type": "default"}
        text = fields | {"model_type": "qwen3_vl_text", "head_dim": 12, "rope_scaling": rope}
        del vision["rope_parameters"]
        made = {"text_config": text, "vision_config": vision | {"model_type": "qwen3_vl"}, "tie_word_embeddings": False}
        processor["image_processor_type"] = "Qwen2VLImageProcessorFast"
    else:
        made = fields | {"rope_scaling": rope | {"type": "mrope"}, "use_sliding_window": False, "sliding_window": 32768}
        made |= {"max_window_layers": 70, "torch_dtype": "float32", "vision_config": vision}
        for name in ("model_type", "rope_parameters", "dtype", "initializer_range"):
            vision.pop(name, None)
        vision |= {"in_chans": vision.pop("in_channels"), "spatial_patch_size": vision["patch_size"]}
        processor["processor_class"] = {"qwen2_vl": "Qwen2VLProcessor"}.get(kind, "Qwen2_5_VLProcessor")
        old = {"model.visual.": "visual.", "model.language_model.": "model."}
        weights = {_renamed(name, old): tensor for name, tensor in weights.items()}
    architecture = config["architectures"]
    (folder / "config.json").write_text(json.dumps(made | ids | {"model_type": kind, "architectures": architecture}))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "processor_config.json").unlink()
    (folder / "chat_template.jinja").unlink()
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": TEMPLATE_2_5}))
    return folder


def _renamed(name: str, prefixes: dict[str, str]) -> str:
    for new, old in prefixes.items():
        if name.startswith(new):
            return old + name.removeprefix(new)
    return name


@pytest.mark.parametrize("kind", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def test_a_folder_with_published_names_loads(kind: str, tmp_path: Path) -> None:
    model = AdaLlava.from_pretrained(str(_published(kind, tmp_path)), method="uniform", device="cpu")
    ours, made = model.base.state_dict(), tiny_qwen_base(kind).state_dict()
    assert all(torch.equal(ours[name], made[name]) for name in made)
    pictures = [tiny_image(number, size) for number, size in enumerate(QWEN_SIZES)]
    inputs = check_turns(model, pictures, QWEN_GRIDS)
    fewer = model.generate(**inputs, token_budget=12, max_new_tokens=2)
    assert [len(kept) for kept in fewer.records[0].kept_indices] == [5, 4, 3]


def test_the_full_budget_is_the_stock_model_with_several_pictures(model: AdaLlava) -> None:
    inputs = tiny_inputs(model.processor, ["what is it?", "is the colour red or blue?"], images_each=3)
    stock = model.base.generate(**inputs, max_new_tokens=3, do_sample=False)
    assert torch.equal(model.generate(**inputs, max_new_tokens=3, do_sample=False).sequences, stock)
    right = padded_on_the_right(inputs)
    logits, real = model.forward(**inputs).logits, right["attention_mask"].bool()
    assert torch.equal(logits[real], model.base(**right, use_cache=False).logits[real])


def test_methods_that_its_tower_cannot_serve_are_refused(model: AdaLlava) -> None:
    for method in ("cls-attention", "prumerge", "tome"):
        assert method in QWEN_LACKS
        with pytest.raises(UnsupportedModeError, match=f"method '{method}' needs"):
            model.with_method(method)


def test_a_smaller_picture_is_what_the_stock_model_is_given(model: AdaLlava) -> None:
    # Positions counted anew are those of the smaller grids: 4 x 4 tokens become 2 x 2, 8 x 2 become 6 x 1, 2 x 5 three.
    chosen, grids = model.with_method("downsample"), [(2, 2), (6, 1), (1, 3)]
    settings = model.processor.image_processor
    inputs = tiny_inputs(model.processor, ["what is it?", "why?", "is it red?"])
    given, _ = take_pictures(model.family, inputs)
    assert given is not None
    resized = [
        torch.nn.functional.interpolate(seen[None], [8 * side for side in grid], mode="bicubic", antialias=True)[0]
        for seen, grid in zip(model.family.pictures(given), grids, strict=True)
    ]
    as_it_is = dict.fromkeys(("do_resize", "do_rescale", "do_normalize", "do_convert_rgb"), False)
    made = settings(images=[picture.numpy() for picture in resized], return_tensors="pt", **as_it_is)
    assert [(down // 2, across // 2) for _, down, across in made["image_grid_thw"].tolist()] == grids
    output = chosen.generate(
        **inputs, token_budget=[0.25, 6, 4], positions="compact", max_new_tokens=4, min_new_tokens=4
    )
    assert [(ran.tokens_asked, ran.tokens_kept) for ran in output.records] == [(4, 4), (6, 6), (4, 3)]
    first = 0
    for row, (down, across) in enumerate(grids):
        count = 4 * down * across
        ids = inputs["input_ids"][row][inputs["attention_mask"][row].bool()]
        places = (ids == model.family.image_token_id).nonzero().flatten()
        shorter = torch.cat([ids[: places[0] + down * across], ids[places[-1] + 1 :]])[None]
        stock = model.base.generate(
            input_ids=shorter,
            attention_mask=torch.ones_like(shorter),
            pixel_values=made["pixel_values"][first : first + count],
            image_grid_thw=made["image_grid_thw"][row : row + 1],
            mm_token_type_ids=(shorter == model.family.image_token_id).int(),
            max_new_tokens=4,
            min_new_tokens=4,
            do_sample=False,
        )
        first += count
        assert output.answer_ids[row] == stock[0, shorter.shape[1] :].tolist()


@pytest.mark.parametrize(
    "method",
    ["full", "pool", "downsample", *(pytest.param(each, marks=pytest.mark.long) for each in ("divprune", "fastv"))],
)
def test_an_answer_costs_what_pytorch_counts(model: AdaLlava, method: str) -> None:
    costs, chosen = count_costs(model.base.config), model.with_method(method)
    for number in (0, 2):
        sample = sample_of(tiny_inputs(model.processor, ["what is it?", "why?", "is it red?"]), number)
        with sdpa_kernel(SDPBackend.MATH), ProductCounter() as counter:
            output = chosen.generate(
                **sample, token_budget=1.0 if method == "full" else 5, max_new_tokens=3, min_new_tokens=3
            )
        assert sum(count_flops(chosen, costs, output.records[0], "why?", 3).values()) == counter.flops


def test_the_costs_of_windows_follow_a_pictures_size(model: AdaLlava) -> None:
    tower = count_costs(model.base.config).vision.of_grid((5, 3))
    assert tower.num_vision_tokens == 4 * 5 * 3
    # By hand: rows of 2, 2 and 1 tokens, columns of 2 and 1, and 4 patches a token.
    windows = 16 * (4 + 4 + 1) * (4 + 1) if model.family.name == "qwen2_5_vl" else 0
    assert tower.window_pairs == windows
    assert (tower.per_window_pair > 0) == (windows > 0)


def test_pictures_are_drawn_at_their_own_size(model: AdaLlava) -> None:
    picture = tiny_image(3, (40, 24))
    made = model.processor(images=[picture], text=[build_prompt(model.processor, "why?")], return_tensors="pt")
    given, _ = take_pictures(model.family, dict(made))
    assert given is not None
    (seen,) = model.family.pictures(given)
    settings = model.processor.image_processor
    pixels = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).view(24, 40, 3).permute(2, 0, 1) / 255
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (settings.image_mean, settings.image_std))
    torch.testing.assert_close(seen, (pixels - mean) / std, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_merged_tokens_are_means_of_patches_and_so_is_what_is_added(deep: AdaLlava) -> None:
    model, (rows, columns) = deep.with_method("pool"), QWEN_GRIDS[1]
    sample, visual = sample_of(tiny_inputs(deep.processor, ["what?", "why?"]), 1), deep.base.model.visual
    read: list[Any] = []
    mergers = [visual.merger, *visual.deepstack_merger_list]
    hooks = [merger.register_forward_pre_hook(lambda _, args: read.append(args[0].clone())) for merger in mergers]
    visual(sample["pixel_values"], grid_thw=sample["image_grid_thw"])
    for hook in hooks:
        hook.remove()
    *levels, last = (states.view(rows * columns, -1) for states in read)
    cells = [cell.members(columns) for cell in grid_cells((rows, columns), 4)]
    averaged = [torch.stack([states[list(cell)].mean(dim=0) for cell in cells]) for states in (last, *levels)]
    merged = [merger(states.view(-1, 32)) for merger, states in zip(mergers, averaged, strict=True)]
    output = model.forward(**sample, token_budget=4)
    is_vision = output.layout.vision_slots[0] >= 0
    torch.testing.assert_close(output.batch.inputs_embeds[0, is_vision], merged[0], atol=1e-5, rtol=1e-5)
    with adding(deep.base, merged[1:], is_vision.nonzero().flatten()):
        hidden = deep.base.model.language_model(
            inputs_embeds=output.batch.inputs_embeds, position_ids=output.batch.position_ids, use_cache=False
        ).last_hidden_state
    torch.testing.assert_close(output.logits, deep.base.lm_head(hidden), atol=1e-4, rtol=1e-4)
    assert len(stock_levels(deep.base, sample)) == len(levels) == 2
    assert as_read(stock_positions(deep.base, sample)).shape[0] == len(output.batch.position_ids) == 4
    assert projector_of(deep.base) is visual.merger


def test_bad_input_is_one_clear_line(deep: AdaLlava) -> None:
    inputs = tiny_inputs(deep.processor, ["which?"], images_each=2)
    image = deep.family.image_token_id
    ids = inputs["input_ids"]
    beside = {name: inputs[name] for name in ("pixel_values", "image_grid_thw")}
    places = (ids[0] == image).nonzero().flatten()
    cut = ids[:, : int(places[20])]
    joined = torch.cat([ids[:, :5], torch.full((1, len(places)), image), ids[:, -5:]], dim=1)
    video = ids.clone()
    video[0, 0] = deep.base.config.video_token_id
    grid = inputs["image_grid_thw"]
    for given, words in (
        ({"input_ids": ids, "pixel_values": beside["pixel_values"]}, "needs the images' grids"),
        ({"input_ids": ids, **beside, "image_grid_thw": grid[:1]}, "image_grid_thw says 64 patches"),
        ({"input_ids": ids, **beside, "image_grid_thw": grid + torch.tensor([0, 1, 0])}, "that 2 divides"),
        ({"input_ids": cut, **beside}, "sample 0 has 20 image placeholders, which its images do not fill"),
        ({"input_ids": joined, **beside}, "placeholders are in 1 runs, and there are 2 images"),
        ({"input_ids": video, **beside}, "placeholders of a video"),
        ({"input_ids": ids, **beside, "image_sizes": grid}, "take no image_sizes"),
        ({"input_ids": ids, "image_grid_thw": grid}, "image_grid_thw without pixel_values"),
    ):
        with pytest.raises(InputError, match=words):
            deep.generate(**given, max_new_tokens=1)


def test_limits_of_pixels_are_the_processors_own(model: AdaLlava) -> None:
    picture, text = tiny_image(1, (64, 32)), [build_prompt(model.processor, "why?")]
    for least, most, grid in ((None, None, (4, 8)), (None, 512, (2, 4)), (8192, 10000, (8, 16))):
        limited = with_pixel_limits(model.processor, least, most)
        made = limited(images=[picture], text=text, return_tensors="pt")
        given, _ = take_pictures(model.family, dict(made))
        assert given is not None
        assert model.family.grids(given) == (grid,)
    assert model.processor.image_processor.size["longest_edge"] == 4096
    with pytest.raises(InputError, match="at least 5000 pixels and at most 4096"):
        with_pixel_limits(model.processor, 5000, None)
    with pytest.raises(UnsupportedModeError, match=r"CLIPImageProcessor(Pil)? brings all to sizes of its own"):
        with_pixel_limits(tiny_processor(), None, 64)


@pytest.mark.long
@pytest.mark.parametrize("kind", QWENS)
def test_the_commands_run(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tiny_qwen(kind, tmp_path / "model")
    check_commands(folder, QWEN_SIZES, capsys)
