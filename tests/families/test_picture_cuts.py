"""The frame, held against what transformers' processors really do to a picture whose colors say where they were."""

from types import SimpleNamespace

import numpy as np
import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from adallava import AdaLlavaProcessor
from adallava.errors import InputError, UnsupportedModeError
from adallava.processors.picture_cuts import find_frames, pad_to_square
from adallava.processors.stock_processor import prepare_picture
from adallava.records.picture_frames import WHOLE, is_cut, seen_share


def image_processor(name: str, **changes: object) -> object:
    cls = getattr(transformers, f"{name}Pil", None) or getattr(transformers, name)
    plain = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 2}
    return cls(**(plain | changes))


def processor_of(settings_: object, patch_size: int = 14) -> SimpleNamespace:
    return SimpleNamespace(image_processor=settings_, patch_size=patch_size)


CLIP = {"size": {"shortest_edge": 224}, "crop_size": {"height": 224, "width": 224}}


def clip(**changes: object) -> SimpleNamespace:
    return processor_of(image_processor("CLIPImageProcessor", **(CLIP | changes)))


def map_of_places(width: int, height: int) -> Image.Image:
    """Return a picture whose red is 50 on the left and 250 on the right, and whose green is so from top to bottom."""
    across = np.broadcast_to(50 + 200 * (np.arange(width) + 0.5) / width, (height, width))
    down = np.broadcast_to((50 + 200 * (np.arange(height) + 0.5) / height)[:, None], (height, width))
    return Image.fromarray(np.stack([across, down, np.full((height, width), 255)], axis=2).round().astype(np.uint8))


def shown_edges(processor: SimpleNamespace, image: Image.Image) -> tuple[float, float, float, float]:
    """Return between which places of a picture the processor's output lies, where it is the picture's own."""
    pixels = np.asarray(processor.image_processor(images=image, return_tensors="np")["pixel_values"])
    pixels = pixels.reshape(-1, *pixels.shape[-3:])[0] * 127.5 + 127.5
    own = pixels[2] > 240  # The map's blue: padding has another.
    across, down = ((pixels[channel][own] - 50) / 200 for channel in (0, 1))
    return across.min(), down.min(), across.max(), down.max()


@settings(max_examples=25, deadline=None)
@given(width=st.integers(30, 500), height=st.integers(30, 500), pad=st.booleans())
def test_the_frame_is_what_the_processor_shows(width, height, pad):
    processor = pad_to_square(clip()) if pad else clip()
    left, top, right, bottom = find_frames(processor, [(width, height)])[0]
    expected = (max(left, 0), max(top, 0), min(right, 1), min(bottom, 1))
    # Half an output pixel, a rounded one, and the map's 8 bits.
    tolerance = 0.02 + 2 * max(right - left, bottom - top) / 224
    assert np.abs(np.array(shown_edges(processor, map_of_places(width, height))) - expected).max() < tolerance


@pytest.mark.parametrize(
    ("processor", "size", "frame"),
    [
        (clip(), (400, 100), (0.375, 0, 0.625, 1)),
        (clip(), (100, 400), (0, 0.375, 1, 0.625)),
        (clip(), (300, 300), WHOLE),
        (clip(size={"shortest_edge": 448}), (300, 300), (0.25, 0.25, 0.75, 0.75)),
        (clip(size={"height": 224, "width": 224}), (400, 100), WHOLE),
        (clip(do_center_crop=False), (300, 300), WHOLE),
        # A crop larger than what is there is filled up.
        (clip(size={"shortest_edge": 112}), (300, 300), (-0.5, -0.5, 1.5, 1.5)),
        # 13 patches of 17 pixels: 3 pixels on the right and below belong to none.
        (processor_of(image_processor("CLIPImageProcessor", **CLIP), 17), (224, 224), (0, 0, 0.986607, 0.986607)),
        (pad_to_square(clip()), (400, 100), (0, -1.5, 1, 2.5)),
        (pad_to_square(clip()), (300, 300), WHOLE),
        (processor_of(image_processor("SiglipImageProcessor", size={"height": 224, "width": 224})), (400, 100), WHOLE),
        (processor_of(image_processor("LlavaNextImageProcessor", **CLIP)), (400, 100), WHOLE),
    ],
)  # fmt: skip
def test_frames(processor, size, frame):
    assert find_frames(processor, [size])[0] == frame


def test_shares():
    assert seen_share((0.375, 0.0, 0.625, 1.0)) == 0.25
    assert seen_share((0.0, -1.5, 1.0, 2.5)) == 1.0
    assert seen_share((0.25, 0.25, 0.75, 0.75)) == 0.25
    assert is_cut((0.03, 0.0, 0.97, 1.0))
    assert not is_cut((0.02, 0.0, 0.98, 1.0))


def test_an_unknown_processor_has_no_frame_and_cannot_pad():
    class OtherImageProcessor:
        pass

    other = processor_of(OtherImageProcessor())
    assert find_frames(other, [(400, 100)]) is None
    with pytest.raises(UnsupportedModeError, match="OtherImageProcessor"):
        pad_to_square(other)


def test_tiles_are_padded_already():
    with pytest.raises(UnsupportedModeError, match="LLaVA-NeXT"):
        pad_to_square(processor_of(image_processor("LlavaNextImageProcessor", **CLIP)))


def test_padding_has_the_mean_color_and_a_square_is_as_before():
    plain = AdaLlavaProcessor.from_pretrained("tiny")
    padded = AdaLlavaProcessor.from_pretrained("tiny", pad_to_square=True)
    wide, square = map_of_places(400, 100), map_of_places(300, 300)
    pixels = padded.image_processor(images=wide, return_tensors="np")["pixel_values"][0]
    assert np.abs(pixels[:, :80]).max() < 0.01, "0 is the mean"
    assert pixels[2, 90:130].min() > 0.9
    before, after = (one.image_processor(images=square, return_tensors="np") for one in (plain, padded))
    assert (before["pixel_values"] == after["pixel_values"]).all()
    assert plain.image_processor(images=wide, return_tensors="np")["pixel_values"].shape == (1, 3, 224, 224)


def test_a_panorama_is_refused_before_it_is_padded_to_gigabytes():
    panorama = Image.new("RGB", (9000, 100))
    assert prepare_picture(clip(), panorama) is panorama
    with pytest.raises(InputError, match="9000x100 padded to a square is over the limit"):
        prepare_picture(pad_to_square(clip()), panorama)
