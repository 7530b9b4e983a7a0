"""A clip is asked about as frames at equal distances."""

from pathlib import Path

import pytest
from models import tiny_image
from PIL import Image

from adallava.demo import moving_images
from adallava.demo.moving_images import frames_of, is_moving
from adallava.demo.uploads import MAX_PICTURES, open_uploads
from adallava.errors import InputError


def gray(level: int) -> Image.Image:
    return Image.new("RGB", (64, 48), (level, level, level))


def levels(frames: list[Image.Image]) -> list[int]:
    assert all(frame.mode == "RGB" and frame.size == (64, 48) for frame in frames)
    return [frame.getpixel((30, 20))[0] for frame in frames]  # type: ignore[index]


@pytest.fixture(params=["gif", "webp", "png"])
def animation(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Ten frames, each lighter than the one before."""
    path = tmp_path / f"clip.{request.param}"
    first, *others = [gray(20 * number) for number in range(10)]
    first.save(path, save_all=True, append_images=others, lossless=True)
    return path


def test_frames_are_from_the_middles_of_equal_parts(animation: Path) -> None:
    assert is_moving(animation)
    assert levels(frames_of(animation, 4)) == [20, 60, 120, 160]
    assert levels(frames_of(animation, 1)) == [100]
    assert len(frames_of(animation, 25)) == 10


def test_a_clip_takes_what_images_leave(animation: Path, tmp_path: Path) -> None:
    still = tmp_path / "still.png"
    tiny_image().save(still)
    assert not is_moving(still)
    assert len(open_uploads([str(animation)])) == MAX_PICTURES
    assert levels(open_uploads([str(animation), str(still)])[:3]) == [20, 100, 160]
    assert len(open_uploads([str(animation)] * 2)) == MAX_PICTURES
    assert len(open_uploads([str(animation)] * MAX_PICTURES)) == MAX_PICTURES


def test_a_clip_of_too_many_pixels_is_refused(animation: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moving_images, "MAX_MOVING_PIXELS", 64 * 48 * 9)
    with pytest.raises(InputError, match="10 frames of 64x48 pixels"):
        frames_of(animation, 2)


def write_video(path: Path, frames: list[Image.Image], codec: str = "mpeg4", key_frame_every: int = 12) -> Path:
    av = pytest.importorskip("av", reason="make test-demo installs PyAV")

    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10)
        if codec == "libx264":
            stream.options = {"sc_threshold": "0"}  # no key frames but those asked for
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 64, 48, "yuv420p", key_frame_every
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_image(frame)))
        container.mux(stream.encode())
    return path


@pytest.mark.demo
def test_frames_of_a_video(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4", [gray(10 * number) for number in range(20)])
    assert is_moving(path)
    # Two seconds: a quarter, three quarters, … of the first, then of the second.
    found = levels(frames_of(path, 4))
    assert all(abs(level - expected) <= 12 for level, expected in zip(found, (30, 80, 130, 180), strict=True)), found


@pytest.mark.demo
def test_a_video_with_one_key_frame_is_read_to_its_end_or_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rising = [gray(number // 8) for number in range(1500)]
    path = write_video(tmp_path / "long.mp4", rising, "libx264", key_frame_every=1500)
    found = levels(frames_of(path, 2))
    assert all(abs(level - expected) <= 12 for level, expected in zip(found, (375 / 8, 1125 / 8), strict=True)), found
    monkeypatch.setattr(moving_images, "MAX_DECODED_PIXELS", 2 * 1000 * 2**16)
    with pytest.raises(InputError, match=r"^long.mp4: it takes too long to decode.*make it shorter or smaller$"):
        frames_of(path, 2)


@pytest.mark.demo
@pytest.mark.parametrize("suffix", sorted(moving_images._VIDEOS))
def test_other_files_are_no_videos(tmp_path: Path, suffix: str) -> None:
    pytest.importorskip("av", reason="make test-demo installs PyAV")
    secret, path = tmp_path / "secret.ts", tmp_path / f"list{suffix}"
    secret.write_bytes(b"G" * 188 * 4)
    for content in (f"ffconcat version 1.0\nfile {secret}\n", f"#EXTM3U\n#EXTINF:1,\n{secret}\n#EXT-X-ENDLIST\n", ""):
        path.write_text(content)
        with pytest.raises(InputError, match=f"list{suffix} cannot be read as a clip") as refused:
            open_uploads([str(path)])
        assert str(tmp_path) not in str(refused.value)
