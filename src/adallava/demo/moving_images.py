"""A clip as the images that a model is asked about: frames at equal distances, of an animation or a video.

    |  .  :  .  |  .  :  .  |  .  :  .  |  .  :  .  |        the middles of as many parts as there are frames to take

A file's content chooses neither the reader (the suffix does) nor how much is decoded.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from adallava.errors import InputError, in_short
from adallava.tasks.images import MAX_IMAGE_BYTES, MAX_IMAGE_PIXELS, as_rgb

_ANIMATIONS = {".gif": "GIF", ".webp": "WEBP", ".png": "PNG", ".apng": "PNG"}
_VIDEOS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".webm": "webm", ".mkv": "matroska"}
"""FFmpeg's demuxers. Left to choose, it would take a list of other files for a video, and read those."""

MAX_MOVING_PIXELS = 2**30
"""Decoded on the way to the last frame of an animation, each of which builds on those before it."""

MAX_DECODED_PIXELS = 2**33
"""Of a video, between key frames and the frames that are looked for: seconds of work."""

_LEAST_FRAME_PIXELS = 2**16
"""What a frame counts for at least: a small one takes time too."""


def is_moving(path: Path) -> bool:
    """Return whether a file is a video by its name, or an image with several frames."""
    if path.suffix.lower() in _VIDEOS:
        return True
    form = _ANIMATIONS.get(path.suffix.lower())
    if form is None or path.stat().st_size > MAX_IMAGE_BYTES:
        return False
    try:
        with Image.open(path, formats=[form]) as image:
            return bool(getattr(image, "is_animated", False))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return False  # Read as an image, it is refused in words.


def frames_of(path: Path, number: int) -> list[Image.Image]:
    """Return frames of a clip in their order, RGB and upright, each from the middle of an equal part of it.

    Args:
        path: of a file that `is_moving`.
        number: of frames, at least 1; there are fewer if the clip has fewer.

    Raises:
        InputError: for a clip that cannot be read, is too large, or of unknown length.
    """
    of_form = _frames_of_video if path.suffix.lower() in _VIDEOS else _frames_of_animation
    return of_form(path, number)


def _frames_of_animation(path: Path, number: int) -> list[Image.Image]:
    with _reported(path), Image.open(path, formats=[_ANIMATIONS[path.suffix.lower()]]) as image:
        count: int = image.n_frames  # type: ignore[attr-defined]
        if image.width * image.height * count > MAX_MOVING_PIXELS:
            raise InputError(
                f"{path.name} has {count} frames of {image.width}x{image.height} pixels, more than {MAX_MOVING_PIXELS} "
                "pixels in all: make it shorter or smaller"
            )
        _check_size(image.width, image.height, min(count, number))
        frames = []
        for place in dict.fromkeys(int(count * (part + 0.5) / number) for part in range(number)):
            image.seek(place)
            frames.append(as_rgb(image.copy()))
    return frames


def _frames_of_video(path: Path, number: int) -> list[Image.Image]:
    try:
        import av
    except ImportError as error:
        raise InputError(f"videos need PyAV ({error}): pip install 'adallava[demo]'") from error
    with _reported(path), av.open(str(path), format=_VIDEOS[path.suffix.lower()]) as container:
        if not container.streams.video:
            raise InputError(f"{path.name} holds no moving images")
        stream = container.streams.video[0]
        _check_size(stream.width, stream.height, number)
        # FFmpeg's microseconds.
        length_s = (container.duration or 0) / 1_000_000
        if length_s <= 0:
            raise InputError(f"{path.name} does not say how long it is: store it again, as MP4 for instance")
        frames: dict[float, Image.Image] = {}
        most = MAX_DECODED_PIXELS // max(stream.width * stream.height, _LEAST_FRAME_PIXELS) // number
        for part in range(number):
            frame = _frame_at(container, stream, length_s * (part + 0.5) / number, most)
            if frame is not None and frame.time not in frames:
                upright = frame.to_image().rotate(frame.rotation, expand=True)
                frames[frame.time] = as_rgb(upright)
    if not frames:
        raise InputError(f"{path.name} holds no frame that can be decoded")
    return list(frames.values())


def _check_size(width: int, height: int, number: int) -> None:
    """Refuse frames that have more pixels together than the images of a question may have, before any is decoded."""
    if width * height * number > MAX_IMAGE_PIXELS:
        raise InputError(f"{number} of its frames, of {width}x{height} pixels, are too large: make them smaller")


def _frame_at(container: Any, stream: Any, seconds: float, most: int) -> Any:
    """Return the first frame at a time or after it; of none, the last one decoded.

    Raises:
        InputError: if more than `most` frames lie before it.
    """
    container.seek(int(seconds / stream.time_base), stream=stream)
    found = None
    for number, frame in enumerate(container.decode(stream)):
        found = frame
        if frame.time is not None and frame.time >= seconds:
            break
        if number >= most:
            raise InputError("it takes too long to decode, with few key frames in it: make it shorter or smaller")
    return found


@contextmanager
def _reported(path: Path) -> Iterator[None]:
    """Turn whatever a decoder raises into an `InputError` that names the file."""
    try:
        yield
    except InputError as error:
        raise error if path.name in str(error) else InputError(f"{path.name}: {error}") from None
    except Exception as error:  # decoders of files by anyone
        # FFmpeg's own words, without the number and the path.
        reason = getattr(error, "strerror", None) or in_short(error)
        raise InputError(
            f"{path.name} cannot be read as a clip ({reason}): store it again, as MP4 for instance"
        ) from error
