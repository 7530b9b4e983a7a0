"""Parquet files: odd types, nested ones, empty groups, metadata of `datasets`, damaged bytes."""

import io
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fuzzing import SECONDS_EACH, fuzz, judge
from hypothesis import strategies as st
from mutations import damaged_bytes, damaged_json, json_text
from PIL import Image
from test_fuzz_jsonl import check_task

from adallava.tasks.local import local_task


def _views() -> bytes:
    columns = {name: pa.array(["red.png"] * 5, pa.string_view()) for name in ("image", "question", "answer")}
    file = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), file)
    return file.getvalue().to_pybytes()


def _twice(name: str) -> bytes:
    text = pa.array(["a"])
    file = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_arrays([text] * 4, ["image", "question", "answer", name]), file)
    return file.getvalue().to_pybytes()


FINDINGS = {
    "two columns of pictures": _twice("image"),
    "two columns of questions": _twice("question"),
    "views": _views(),
}
"""Files that broke a rule, by what they are."""

_FLAT = (
    pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary(), pa.binary(4), pa.bool_(),
    pa.int8(),
    pa.int64(), pa.uint64(), pa.float16(), pa.float32(), pa.float64(), pa.decimal128(30, 3), pa.decimal256(60, -2),
    pa.date32(), pa.date64(), pa.time32("ms"), pa.time64("ns"), pa.timestamp("ns"), pa.timestamp("us", "Europe/Berlin"),
    pa.timestamp("s"), pa.duration("ns"), pa.null(), pa.dictionary(pa.int8(), pa.string()),
    pa.dictionary(pa.int32(), pa.int64()),
)  # fmt: skip

_PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])

types = st.recursive(
    st.sampled_from(_FLAT),
    lambda inner: st.one_of(
        st.builds(pa.list_, inner),
        st.builds(pa.large_list, inner),
        st.builds(lambda one: pa.list_(one, 2), inner),
        st.builds(lambda one: pa.struct([("answer", one)]), inner),
        st.builds(lambda one, two: pa.struct([("bytes", one), ("path", two)]), inner, inner),
        st.builds(lambda one: pa.map_(pa.string(), one), inner),
    ),
    max_leaves=3,
)

_FEATURES = {
    "info": {
        "features": {
            "image": {"_type": "Image"},
            "question": {"dtype": "string", "_type": "Value"},
            "answer": {"names": ["red", "blue"], "_type": "ClassLabel"},
            "answers": {"feature": {"names": ["red", "blue"], "_type": "ClassLabel"}, "_type": "Sequence"},
            "id": {"dtype": "int64", "_type": "Value"},
            "kind": [{"names": ["color"], "_type": "ClassLabel"}],
        }
    }
}


def _png() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (2, 2)).save(file, "PNG")
    return file.getvalue()


_USUAL: dict[str, tuple[pa.DataType, list[Any]]] = {
    "image": (
        _PICTURE,
        [{"bytes": _png(), "path": None}, {"bytes": None, "path": "red.png"}, {"bytes": b"", "path": ""}],
    ),
    "question": (pa.string(), ["What is it?", "Is it red?", "é?"]),
    "answer": (pa.int64(), [0, 1, -1, 7]),
    "answers": (pa.list_(pa.string()), [["red"], ["a", None], ["b"] * 10]),
    "id": (pa.int64(), list(range(40))),
    "kind": (pa.string(), ["color", None]),
}


def value_of(kind: pa.DataType, number: int) -> Any:
    """Return some value of a type, a null or an edge now and then."""
    if number % 11 == 10:
        return None
    if pa.types.is_dictionary(kind):
        return value_of(kind.value_type, number)
    if pa.types.is_struct(kind):
        return {field.name: value_of(field.type, number + place) for place, field in enumerate(kind)}
    if pa.types.is_map(kind):
        return [("a", value_of(kind.item_type, number))]
    if pa.types.is_fixed_size_list(kind):
        return [value_of(kind.value_type, number)] * 2
    if pa.types.is_nested(kind):
        return [value_of(kind.value_type, number + place) for place in range(number % 3)]
    if pa.types.is_fixed_size_binary(kind):
        return b"\xff\x00ab"
    if pa.types.is_floating(kind):
        return np.array([0.5, 1.0, float("nan"), float("inf"), -0.0, 0.1])[number % 6].astype(kind.to_pandas_dtype())
    if pa.types.is_boolean(kind) or pa.types.is_null(kind):
        return bool(number % 2) if pa.types.is_boolean(kind) else None
    if "binary" in str(kind):
        return (b"red.png", b"\xff\xfe", _png(), b"")[number % 4]
    if "string" in str(kind):
        return ("red.png", "red", "", "x\0y", "\x1b[1m", "../red.png", "data:,a")[number % 7]
    return number if pa.types.is_integer(kind) or pa.types.is_decimal(kind) else _moment(kind, number)


def _moment(kind: pa.DataType, number: int) -> pa.Scalar:
    whole = pa.int32() if kind.bit_width == 32 else pa.int64()
    edges = (
        (number, 86_399, 0)
        if pa.types.is_time(kind)
        else (number, 1, -(2**31) + 1, 2**31 - 1 if kind.bit_width == 32 else 2**62)
    )
    return pa.scalar(edges[number % len(edges)], whole).cast(kind)


@st.composite
def files(draw: st.DrawFn) -> bytes:
    names = draw(st.sets(st.sampled_from([*_USUAL, "more"])))
    names |= {"image", "question", "answer"} if draw(st.integers(0, 9)) else set()
    num_rows = draw(st.integers(0, 40))
    odd = draw(st.sets(st.sampled_from(sorted(names)), max_size=2)) if names else set()
    columns = {}
    for name in sorted(names):
        kind, usual = _USUAL.get(name, (pa.int8(), [1]))
        if name in odd:
            kind = draw(types)
            start = draw(st.integers(0, 50))
            usual = [value_of(kind, start + number) for number in range(num_rows)]
        try:
            columns[name] = pa.array([usual[number % len(usual)] for number in range(num_rows)], kind)
        except (pa.ArrowException, ValueError, TypeError, OverflowError):  # a value that the type cannot hold
            columns[name] = pa.nulls(num_rows, kind)
    table = pa.table(columns)
    if draw(st.booleans()):
        table = table.replace_schema_metadata({"huggingface": json_text(draw(damaged_json(_FEATURES)))})
    if draw(st.integers(0, 19)) == 0 and names:
        table = table.append_column(draw(st.sampled_from(sorted(names))), pa.nulls(num_rows))
    file = pa.BufferOutputStream()
    options: dict[str, Any] = {
        "compression": draw(st.sampled_from(("none", "snappy", "gzip", "zstd", "lz4", "brotli"))),
        "use_dictionary": draw(st.booleans()),
        "version": draw(st.sampled_from(("1.0", "2.4", "2.6"))),
        "data_page_version": draw(st.sampled_from(("1.0", "2.0"))),
        "write_statistics": draw(st.booleans()),
    }
    try:
        with pq.ParquetWriter(file, table.schema, **options) as writer:
            for _ in range(draw(st.integers(0, 2))):
                writer.write_table(table.slice(0, 0))
            writer.write_table(table, row_group_size=draw(st.integers(1, 50)))
    except (pa.ArrowException, OSError, ValueError, TypeError):  # what parquet itself cannot hold
        return b"PAR1"
    data = file.getvalue().to_pybytes()
    return draw(damaged_bytes(data, most=draw(st.sampled_from((0, 0, 0, 2)))))


def check(folder: Path, data: bytes) -> None:
    """Read a file by first and by random rows, show each picture, and score an answer to each question."""
    (folder / "questions.parquet").write_bytes(data)
    check_task(local_task(folder / "questions.parquet"))
    check_task(local_task(folder / "questions.parquet", limit=3, sample="random", seed=3))


@pytest.mark.parametrize("name", FINDINGS)
def test_files_that_failed_once(name: str, folder: Path) -> None:
    judge(partial(check, folder), FINDINGS[name], folder)


def test_a_valid_file_is_a_task(folder: Path) -> None:
    table = pa.table({name: pa.array(_USUAL[name][1][:2], _USUAL[name][0]) for name in ("image", "question", "answer")})
    file = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(_FEATURES)}), file)
    assert judge(partial(check, folder), file.getvalue().to_pybytes(), folder) is None
    assert [sample.answers for sample in local_task(folder / "questions.parquet").samples] == [("red",), ("blue",)]


@pytest.mark.long
@pytest.mark.timeout(SECONDS_EACH + 120)
def test_fuzz_parquet(folder: Path) -> None:
    tally = fuzz("parquet files", files(), partial(check, folder), folder, findings=len(FINDINGS))
    assert tally.answered
    assert tally.refused
