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


@pytest.mark.demo
def test_frames_of_a_video(tmp_path: Path) -> None:
    av = pytest.importorskip("av", reason="make test-demo installs PyAV")
    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(20):
            container.mux(stream.encode(av.VideoFrame.from_image(gray(10 * number))))
        container.mux(stream.encode())
    assert is_moving(path)
    # Two seconds: a quarter, three quarters, … of the first, then of the second.
    found = levels(frames_of(path, 4))
    assert all(abs(level - expected) <= 12 for level, expected in zip(found, (30, 80, 130, 180), strict=True)), found


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
