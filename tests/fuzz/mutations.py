"""Strategies that damage something valid a little, so that the first check is not the only one met."""

import copy
import json
import struct
import zlib
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

_EDGES = (0, 1, 2, 7, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)

ODD_TEXTS = (
    "", " ", "\0", "\ud800", "\x1b[31m", "é", "x" * 300, "../x", "/etc/passwd", "nan", "1e999", "None", "{{ 1 }}",
    "a/b", "9" * 5000, "\n", "[/bold]", "%s", "<image>", "true",
)  # fmt: skip

ODD_NUMBERS = (
    0, 1, -1, 2, 3, 7, 255, 2**16, 2**31 - 1, 2**31, 2**53 + 1, 2**63, 10**12, 10**30, -(10**12), 10**4200, 0.0, -0.0,
    0.5, 1.0, 1.5, -1.5, 1e-320, 1e9, 1e308, float("inf"), float("-inf"), float("nan"),
)  # fmt: skip


def _deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


odd_json = st.one_of(
    st.sampled_from(ODD_NUMBERS),
    st.sampled_from(ODD_TEXTS),
    st.sampled_from((None, True, False)),
    st.sampled_from(([], {}, [[]], [None], {"": None}, [1, 2, 3], ["a", 1], [0.5], {"a": {"b": []}}, _deep(90))),
    st.integers(-(2**40), 2**40),
    st.floats(),
    st.text(max_size=8),
).map(copy.deepcopy)  # What is drawn twice is one object, and is changed.


@st.composite
def damaged_json(draw: st.DrawFn, valid: Any, *, most: int = 3, extra_keys: Sequence[str] = ()) -> Any:
    """Return a copy with up to `most` values replaced, taken out, doubled or put in."""
    value = copy.deepcopy(valid)
    for _ in range(draw(st.integers(0, most))):
        places = [(outer, key) for outer in _containers(value) for key in _keys(outer)]
        if not places:
            break
        outer, key = draw(st.sampled_from(places))
        match draw(st.sampled_from(("replace", "replace", "replace", "near", "remove", "wrap", "add"))):
            case "replace":
                outer[key] = draw(odd_json)
            case "near":
                outer[key] = draw(st.sampled_from(_near(outer[key])))
            case "remove":
                del outer[key]
            case "wrap":
                outer[key] = [outer[key]]
            case "add" if isinstance(outer, dict):
                outer[draw(st.sampled_from((*extra_keys, "", "x", "\ud800")))] = draw(odd_json)
            case "add":
                outer.append(draw(odd_json))
    return value


def _containers(value: Any) -> list[Any]:
    found, waiting = [], [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict | list):
            found.append(one)
            waiting.extend(one.values() if isinstance(one, dict) else one)
    return found


def _keys(outer: Any) -> list[Any]:
    return list(outer) if isinstance(outer, dict) else list(range(len(outer)))


def _near(value: Any) -> list[Any]:
    """Return values of the same type, or as somebody may have written it."""
    if isinstance(value, bool):
        return [not value, int(value), str(value)]
    if isinstance(value, int | float) and abs(value) < 2**60:
        return [value + 1, value - 1, value * 2, -value, value * 1000, str(value), float(value), [value]]
    if isinstance(value, str):
        return [value[:-1], value + value, value.upper(), [value], value.encode("utf-8", "surrogatepass").hex()]
    if isinstance(value, list):
        return [value[:-1], value * 2, value[::-1], {str(place): one for place, one in enumerate(value)}]
    return [None, [], {}, ""]


def json_text(value: Any) -> str:
    """Write JSON as a stranger may: an infinite number as one too large."""
    text = json.dumps(value).replace("-Infinity", "-1e999").replace("Infinity", "1e999")
    # More digits than Python would write, or reads.
    return text.replace("0" * 4200, "0" * 4400)


@st.composite
def damaged_bytes(draw: st.DrawFn, valid: bytes, *, most: int = 6) -> bytes:
    """Return bytes with up to `most` places changed, cut out, doubled, put in, or cut off behind."""
    data = bytearray(valid)
    for _ in range(draw(st.integers(0, most))):
        place = draw(st.integers(0, max(len(data) - 1, 0)))
        match draw(st.sampled_from(("byte", "edge", "edge", "bit", "insert", "cut", "double", "end"))):
            case "byte" if data:
                data[place] = draw(st.integers(0, 255))
            case "bit" if data:
                data[place] ^= 1 << draw(st.integers(0, 7))
            case "edge":
                form = draw(st.sampled_from(("<H", ">H", "<I", ">I", "B")))
                number = struct.pack(form, draw(st.sampled_from(_EDGES)) % 256 ** struct.calcsize(form))
                data[place : place + len(number)] = number
            case "insert":
                data[place:place] = draw(st.binary(min_size=1, max_size=8))
            case "cut":
                del data[place : place + draw(st.integers(1, 64))]
            case "double":
                data[place:place] = data[place : place + draw(st.integers(1, 64))]
            case "end":
                del data[place:]
    return bytes(data)


@st.composite
def damaged_png(draw: st.DrawFn, valid: bytes) -> bytes:
    """Return a PNG whose chunks are damaged, and whose checksums are right all the same."""
    place, chunks = 8, []
    while place + 12 <= len(valid):
        length = int.from_bytes(valid[place : place + 4], "big")
        chunks.append((valid[place + 4 : place + 8], valid[place + 8 : place + 8 + length]))
        place += 12 + length
    for _ in range(draw(st.integers(1, 3))):
        number = draw(st.integers(0, len(chunks) - 1))
        kind, data = chunks[number]
        match draw(st.sampled_from(("damage", "inflate", "kind", "double", "remove"))):
            case "damage":
                chunks[number] = kind, draw(damaged_bytes(data, most=2))
            case "inflate":
                more = bytes(draw(st.sampled_from((0, 100, 10**6))))
                chunks[number] = kind, zlib.compress(more)
            case "kind":
                kinds = (
                    b"eXIf",
                    b"tEXt",
                    b"zTXt",
                    b"iTXt",
                    b"iCCP",
                    b"acTL",
                    b"fcTL",
                    b"fdAT",
                    b"tRNS",
                    b"PLTE",
                    b"gAMA",
                )
                chunks[number] = draw(st.sampled_from(kinds)), data
            case "double":
                chunks.insert(number, chunks[number])
            case "remove" if len(chunks) > 1:
                del chunks[number]
    return valid[:8] + b"".join(_png_chunk(*chunk) for chunk in chunks)


def _png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
