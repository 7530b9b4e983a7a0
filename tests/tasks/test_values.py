"""Typed values of JSON and parquet: as text, or refused with file, row and column."""

import datetime
import decimal
import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adallava.errors import InputError
from adallava.tasks import load_task
from adallava.tasks.values import answers_of, question_of, text_of

CLASSES = {"_type": "ClassLabel", "names": ["circle", "square"]}


def parquet(path: Path, answers, feature=None, **columns) -> str:
    count = len(answers)
    table = pyarrow.table({"image": ["a.png"] * count, "question": ["?"] * count, "answer": answers, **columns})
    if feature is not None:
        features = {"question": {"_type": "Value", "dtype": "string"}, "answer": feature}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pyarrow.parquet.write_table(table, path / "t.parquet")
    return str(path / "t.parquet")


def jsonl(path: Path, *lines: str | bytes) -> str:
    data = [line.encode() if isinstance(line, str) else line for line in lines]
    (path / "t.jsonl").write_bytes(b"\n".join([*data, b""]))
    return str(path / "t.jsonl")


def line(answer: str = '"x"', **columns: str) -> str:
    columns = {"image": '"a.png"', "question": '"?"', "answer": answer} | columns
    return "{" + ", ".join(f'"{name}": {value}' for name, value in columns.items()) + "}"


def answers(file: str) -> list[tuple[str, ...]]:
    return [sample.answers for sample in load_task(file).samples]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("1.0", ("1",)),
        ("-0.0", ("0",)),
        ("3.50", ("3.5",)),
        ("1e2", ("100",)),
        ("0.00001", ("0.00001",)),
        ("1" * 40, ("1" * 40,)),
        ("true", ("yes", "true")),
        ("false", ("no", "false")),
        ('[1.0, "one"]', ("1", "one")),
        ('{"answer": ["yes", "no"], "answer_id": [1, 2]}', ("yes", "no")),
    ],
)
def test_a_value_of_json_becomes_what_people_write(tmp_path, answer, expected):
    assert answers(jsonl(tmp_path, line(answer))) == [expected]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("NaN", "holds NaN"),
        ("[1, -Infinity]", "holds an infinite number"),
        ("1e400", "holds an infinite number"),
        ('[["a"]]', "a list within a list"),
        ('{"text": "a"}', "an object without \"answer\", but with 'text'"),
        ('"is it \\ud83d?"', "half a surrogate pair"),
    ],
)
def test_a_value_of_json_that_is_no_answer_is_refused_by_line_and_column(tmp_path, answer, reason):
    with pytest.raises(InputError) as refused:
        load_task(jsonl(tmp_path, line(), "", line(answer)))
    assert str(refused.value).startswith(f"{tmp_path}/t.jsonl, line 3: column 'answer' holds ")
    assert reason in str(refused.value)


@pytest.mark.parametrize(
    ("second", "reason"),
    [
        (line("[" * 100_000), "nests lists or objects too deeply"),
        (line('{"a":' * 100_000), "nests lists or objects too deeply"),
        (line("1" * 4301), "holds a number of 4301 digits"),
        ('{"image": "a.png", "question": "?", "answer": "a", "answer": "b"}', "gives 'answer' twice"),
        (b'{"image": "a.png", "question": "\xe9", "answer": "a"}', "is not JSON"),
        (line(question='"\\udc41"'), "column 'question' holds text with half a surrogate pair"),
        (line(id="NaN"), "column 'id' holds NaN"),
        (line(id='"b"', kind='["a"]'), "column 'kind' holds a list"),
    ],
    ids=["list", "object", "digits", "twice", "latin-1", "surrogate", "id", "kind"],
)
def test_a_line_that_cannot_be_read_is_named(tmp_path, second, reason):
    with pytest.raises(InputError, match=reason) as refused:
        load_task(jsonl(tmp_path, line(id='"first"', kind="null"), second))
    assert "line 2" in str(refused.value)
    assert len(str(refused.value)) < 400


def test_what_editors_leave_in_a_file_does_not_matter(tmp_path):
    file = jsonl(tmp_path, b"\xef\xbb\xbf\r", line("1") + "\r", " \t\r", line("2"))
    assert answers(file) == [("1",), ("2",)]


def test_a_value_that_nobody_asks_for_may_be_anything(tmp_path):
    assert answers(jsonl(tmp_path, line(other='[NaN, "\\ud83d"]'))) == [("x",)]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pyarrow.array([0.1, 2.0], pyarrow.float32()), [("0.1",), ("2",)]),
        (pyarrow.array([[0.1], [2.0]], pyarrow.list_(pyarrow.float16())), [("0.1",), ("2",)]),
        (
            pyarrow.array([decimal.Decimal("3.50"), decimal.Decimal("100")], pyarrow.decimal128(9, 2)),
            [("3.5",), ("100",)],
        ),
        (pyarrow.array([True, False]), [("yes", "true"), ("no", "false")]),
        (pyarrow.array([b"red", "grün".encode()]), [("red",), ("grün",)]),
        (pyarrow.array(["red", "blue"]).dictionary_encode(), [("red",), ("blue",)]),
        (pyarrow.array([{"answer": 1}, {"answer": 2}]), [("1",), ("2",)]),
    ],
)
def test_a_value_of_parquet_becomes_what_people_write(tmp_path, values, expected):
    assert answers(parquet(tmp_path, values)) == expected


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (pyarrow.array(["a", None]), "holds no answer"),
        (pyarrow.array([1.0, float("nan")]), "holds NaN"),
        (pyarrow.array([b"a", b"\xff"]), "bytes that are not text in UTF-8"),
        (pyarrow.array([datetime.date(2024, 5, 1)] * 2)[:1].take([0, 0]), "holds a date"),
        (pyarrow.array([None, 1], pyarrow.time64("ns")), ""),
        (pyarrow.array([None, 2**62], pyarrow.timestamp("us")), ""),
        (pyarrow.array([None, datetime.timedelta(1)]), ""),
        (pyarrow.array([[("a", "b")]] * 2, pyarrow.map_(pyarrow.string(), pyarrow.string())), "holds a pair of a map"),
    ],
)
def test_a_value_of_parquet_that_is_no_answer_is_refused_by_row_and_column(tmp_path, values, reason):
    with pytest.raises(
        InputError, match=rf"t\.parquet, row \d: column 'answer' holds .*{reason.removeprefix('holds ')}"
    ):
        load_task(parquet(tmp_path, values))


def test_text_that_is_not_utf8_is_named_by_its_row_though_parquet_says_it_is_text(tmp_path):
    raw = pyarrow.array([b"fine", b"\xff\xfe"], pyarrow.binary())
    text = pyarrow.Array.from_buffers(pyarrow.string(), 2, raw.buffers())
    with pytest.raises(InputError, match=r"row 1: column 'answer' holds text that is not UTF-8 \(at byte 0\)"):
        load_task(parquet(tmp_path, text))


@pytest.mark.parametrize(
    ("values", "feature", "expected"),
    [
        ([1, 0], CLASSES, [("square",), ("circle",)]),
        ([1.0, 0.0], CLASSES, [("square",), ("circle",)]),
        ([[1, 0], [0]], {"_type": "Sequence", "feature": CLASSES}, [("square", "circle"), ("circle",)]),
        ([[1], [0]], [CLASSES], [("square",), ("circle",)]),
        ([{"answer": 1}, {"answer": 0}], {"answer": CLASSES}, [("square",), ("circle",)]),
        ([{"answer": [1, 0]}], {"_type": "Sequence", "feature": {"answer": CLASSES}}, [("square", "circle")]),
        ([1, 0], {"_type": "ClassLabel"}, [("1",), ("0",)]),
        (["square", "0"], CLASSES, [("square",), ("circle",)]),
        (["0", "1"], {"_type": "ClassLabel", "names": ["1", "0"]}, [("0",), ("1",)]),
    ],
)
def test_labels_are_the_names_that_the_file_gives_them(tmp_path, values, feature, expected):
    assert answers(parquet(tmp_path, values, feature)) == expected


@pytest.mark.parametrize(
    ("label", "reason"),
    [
        (2, "holds class 2, and the file names 2 classes"),
        (-1, "holds no answer"),
        ("2", "holds class 2, and the file names 2 classes"),
        ("triangle", "holds 'triangle', which is not one of the 2 classes"),
    ],
)
def test_a_label_without_a_name_is_refused(tmp_path, label, reason):
    with pytest.raises(InputError, match=f"row 1: column 'answer' {reason}"):
        load_task(parquet(tmp_path, [type(label)(0), label], CLASSES))


def test_json_in_parquet_is_what_it_says(tmp_path):
    texts = pyarrow.array(['"red"', '["a", 1.0]', "true", "{bad"])
    values = pyarrow.ExtensionArray.from_storage(pyarrow.json_(), texts)
    assert answers(parquet(tmp_path, values[:3])) == [("red",), ("a", "1"), ("yes", "true")]
    structs = pyarrow.StructArray.from_arrays([values], names=["answer"])
    assert answers(parquet(tmp_path, structs[:1])) == [("red",)]
    sampled = load_task(parquet(tmp_path, values[:3], image=values.take([0, 0, 0])), limit=2, sample="random").samples
    assert {sample.answers for sample in sampled} < {("red",), ("a", "1"), ("yes", "true")}
    with pytest.raises(InputError, match="row 1: column 'answer' is not JSON: "):
        load_task(parquet(tmp_path, values.take([0, 3])))


def test_metadata_that_may_name_classes_and_cannot_be_read_is_refused(tmp_path):
    file = parquet(tmp_path, [1])
    table = pyarrow.parquet.read_table(file).replace_schema_metadata({"huggingface": "{"})
    pyarrow.parquet.write_table(table, file)
    with pytest.raises(InputError, match="'huggingface', which names classes, cannot be read"):
        load_task(file)


def test_a_column_that_is_there_twice_is_refused(tmp_path):
    arrays = [pyarrow.array([text]) for text in ("a.png", "?", "x", "y")]
    table = pyarrow.Table.from_arrays(arrays, names=["image", "question", "answer", "answer"])
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(InputError, match="2 columns named 'answer'"):
        load_task(str(tmp_path / "t.parquet"))


def test_a_column_that_only_later_rows_have_is_read(tmp_path):
    rows = [line(), line(kind='"count"'), line(kind="null")]
    assert [sample.kind for sample in load_task(jsonl(tmp_path, *rows)).samples] == [None, "count", None]
    with pytest.raises(InputError, match="line 1: column 'id' is empty; every sample needs an id"):
        load_task(jsonl(tmp_path, line(), line(id='"b"')), limit=1)
    assert len(load_task(jsonl(tmp_path, line(), "{bad"), limit=1).samples) == 1


def test_ids_and_kinds_are_text_by_the_same_rule(tmp_path):
    (one, two) = load_task(jsonl(tmp_path, line(id="1.0", kind="true"), line(id="2.5", kind="null"))).samples
    assert [(one.id, one.kind), (two.id, two.kind)] == [("1", "true"), ("2.5", None)]
    with pytest.raises(InputError, match="id '1' repeats"):
        load_task(jsonl(tmp_path, line(id="1.0"), line(id="1")))


_SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.decimals() | st.text() | st.binary() | st.dates()
)
_VALUES = st.recursive(_SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)


@settings(max_examples=50, deadline=None)
@given(_VALUES | st.text(st.characters(categories=["Cs", "Ll"])))
def test_any_value_is_text_that_a_file_can_hold_or_an_input_error(value):
    for read in (text_of, answers_of, question_of):
        try:
            found = read(value)
        except InputError:
            continue
        for text in [found] if isinstance(found, str) else found:
            assert text.encode().decode() == text
