"""Whose answer a line is, and readers that take some of a run's lines alone."""

import pytest
from run_records import sample_record

from adallava.records.lines import id_of
from adallava.records.read import read_samples


@pytest.mark.parametrize("name", ["s1", 'with "quotes"', "back\\slash", "é\u2028"])
def test_whose_a_line_is_can_be_told_without_reading_it(name):
    assert id_of(sample_record("full@1.0", name).model_dump_json().encode()) == name


def test_a_line_that_says_it_in_no_such_way_is_left_to_the_reader():
    assert id_of(b"{}\n") is None
    assert id_of(b'{"sample_id":7}\n') is None


def test_some_samples_are_read_in_every_cell(tmp_path):
    cells = ("full@1.0", "uniform@0.5", "uniform@0.25")
    lines = [sample_record(cell, f"s{number}").model_dump_json() + "\n" for cell in cells for number in range(9)]
    (tmp_path / "samples.jsonl").write_text("".join(lines))
    read = [(record.cell, record.sample_id) for record in read_samples(tmp_path, only=frozenset({"s0", "s8"}))]
    assert read == [(cell, id_) for cell in cells for id_ in ("s0", "s8")]
