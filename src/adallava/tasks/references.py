"""What an image column's value refers to: a file, bytes, or base64 text. Facts come before guesses."""

import base64
import binascii
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

from adallava.errors import InputError

from .values import check_text, describe

_BASE64 = re.compile(r"[A-Za-z0-9+/]{64,}={0,2}")
_HEX = re.compile(r"[0-9A-Fa-f]+")
_MAX_PATH_CHARACTERS = 4096
"""`PATH_MAX`: longer text names no file."""


@dataclass(frozen=True)
class PictureFolder:
    """Where the images are that a data file names by path.

    Attributes:
        file: the data file; paths are relative to its folder, or to that of the file it is a link to.
        allow_outside: whether they may lead out of it: a report shows the images, and a data file may be anyone's.
    """

    file: Path
    allow_outside: bool = False

    def sources(self, value: Any) -> list[Path | bytes]:
        """Read what an image column holds: one picture, or a list of them, each as `source` has it.

        Raises:
            InputError: as `source`, saying which of several it is; and for an empty list.
        """
        if not isinstance(value, list):
            return [self.source(value)]
        if not value:
            raise InputError("the image column holds an empty list: a question needs an image")
        read = []
        for number, item in enumerate(value, 1):
            with of_several(number, len(value)):
                read.append(self.source(item))
        return read

    def source(self, value: Any) -> Path | bytes:
        """Read a value by the Hugging Face convention.

        A value is raw bytes, `{"bytes": ..., "path": ...}` with either set, or text: the path of a file, a `data:` URL,
        or at least 64 base64 characters (line breaks do not matter). Text that names an existing file is that file.

        Raises:
            InputError: for anything else, a URL, base64 that does not decode, or a file outside of the folder.
        """
        if isinstance(value, dict):
            inline = value.get("bytes")
            if isinstance(inline, str) and inline:  # JSON has no bytes
                return _from_base64(inline)
            if not inline and not value.get("path"):
                raise InputError("the image column holds an object with neither bytes nor path")
            if not inline:
                return self._file(_as_path(value["path"]))
            value = inline
        if isinstance(value, bytes):
            return value
        text = _as_path(value)
        if not self.is_inline(text):
            return self._file(text)
        return _from_data_url(text) if text[:5].lower() == "data:" else _from_base64(text)

    def check(self, text: str, real_path: Callable[[str], str] = os.path.realpath) -> None:
        """Refuse a path that leads out of the folder, whether or not a file is there.

        Args:
            text: the path, as the data file has it.
            real_path: of a folder; for many paths one that remembers.

        Raises:
            InputError: naming the path and the flag that allows it.
        """
        if self.allow_outside or not (self._exists(text) or _could_be_path(text)):
            return
        place = self._place(text)
        folder, name = os.path.split(place)
        is_plain = name not in ("", ".", "..") and not os.path.islink(place)
        target = os.path.join(real_path(folder), name) if is_plain else os.path.realpath(place)
        if not any(os.path.commonpath((target, root)) == root for root in self._roots):
            raise InputError(
                f"names {text[:200]!r}, which is outside of the file's folder {self.file.parent}: a report would show "
                "it; if that is meant, give --allow-outside (in Python allow_outside=True)"
            )

    def is_inline(self, text: str) -> bool:
        """Return whether a text is an image rather than the path of one."""
        if not text or self._exists(text):
            return False
        if text[:5].lower() == "data:":
            return True
        return bool(_BASE64.fullmatch("".join(text.split()))) and not _HEX.fullmatch(text)

    def _file(self, text: str) -> Path:
        if not self._exists(text):
            if "\0" in text:
                raise InputError(f"the image path {text[:80]!r} holds a NUL byte, which no file's name has")
            if "://" in text[:16]:
                raise InputError(f"image {text[:80]!r} is a URL: images are read from disk only")
            if len(text) > _MAX_PATH_CHARACTERS:
                raise InputError(f"the image column holds text of {len(text)} characters: no path, and not base64")
        self.check(text)
        place = self._place(text)
        if os.path.exists(place) and not os.path.isfile(place):
            raise InputError(f"image file {place} cannot be read: it is not a file")
        return Path(place)

    @cached_property
    def _folders(self) -> tuple[str, ...]:
        """That of the data file as it is named, and that of the file it is a link to; the first wins."""
        folders = (self.file.parent, Path(os.path.realpath(self.file)).parent)
        return tuple(dict.fromkeys(map(str, folders)))

    @cached_property
    def _roots(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(map(os.path.realpath, self._folders)))

    def _place(self, text: str) -> str:
        places = [os.path.join(folder, text) for folder in self._folders]
        return next((place for place in places if os.path.lexists(place)), places[0])

    def _exists(self, text: str) -> bool:
        if not text or "\0" in text or len(text) > _MAX_PATH_CHARACTERS:
            return False
        return any(os.path.lexists(os.path.join(folder, text)) for folder in self._folders)


@contextmanager
def of_several(number: int, count: int) -> Iterator[None]:
    """Put before what is said of an image which of several it is, counted from 1."""
    try:
        yield
    except InputError as error:
        if count == 1:
            raise
        raise InputError(f"image {number} of {count}: {error}") from None


def named_paths(value: Any) -> tuple[str | None, ...]:
    """Return for each image of a value the text that may be its path; None for one that is bytes, or too long."""
    return tuple(map(_named_path, value)) if isinstance(value, list) else (_named_path(value),)


def _named_path(value: Any) -> str | None:
    if isinstance(value, dict):
        value = None if value.get("bytes") else value.get("path")
    return value if isinstance(value, str) and 0 < len(value) <= _MAX_PATH_CHARACTERS else None


def _could_be_path(text: str) -> bool:
    return "\0" not in text and "://" not in text[:16] and text.isprintable()


def _as_path(value: Any) -> str:
    if not isinstance(value, str) or not value:
        held = "empty text" if value == "" else describe(value)
        raise InputError(f"the image column holds {held}: give a path, bytes or base64 text")
    try:
        return check_text(value)
    except InputError as error:
        raise InputError(f"the image column {error}") from None


def _from_data_url(text: str) -> bytes:
    header, comma, body = text.partition(",")
    if not comma:
        raise InputError(f"image {text[:80]!r} is a data: URL without a comma before its data")
    data = unquote_to_bytes(body)
    return _from_base64(data.decode("latin-1")) if header.lower().endswith(";base64") else data


def _from_base64(text: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputError(f"the image column's base64 text does not decode: {error}") from None
