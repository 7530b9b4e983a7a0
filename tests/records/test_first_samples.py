"""A run that fits into no memory: page and doctor take its first samples, whole."""

import pytest
from run_records import run, sample_record

from adallava.records import first_samples as module
from adallava.records.first_samples import first_samples, id_of
from adallava.records.read import read_samples


@pytest.mark.parametrize("name", ["s1", 'with "quotes"', "back\\slash", "é\u2028"])
def test_whose_a_line_is_can_be_told_without_reading_it(name):
    assert id_of(sample_record("full@1.0", name).model_dump_json().encode()) == name


def test_a_line_that_says_it_in_no_such_way_is_left_to_the_reader():
    assert id_of(b"{}\n") is None
    assert id_of(b'{"sample_id":7}\n') is None


@pytest.fixture
def folder(tmp_path):
    """Nine samples through three cells, as a sweep writes them."""
    lines = [
        sample_record(cell, f"s{number}").model_dump_json() + "\n"
        for cell in ("full@1.0", "uniform@0.5", "uniform@0.25")
        for number in range(9)
    ]
    (tmp_path / "samples.jsonl").write_text("".join(lines))
    (tmp_path / "run.json").write_text(
        run({"methods": ["uniform"], "token_budgets": ["0.5", "0.25"], "draws": 1}).model_dump_json()
    )
    return tmp_path


def test_as_many_samples_as_fit_and_each_in_every_cell(folder):
    asked = run({"methods": ["uniform"], "token_budgets": ["0.5", "0.25"], "draws": 1})
    assert first_samples([folder / "samples.jsonl"], asked, most=27) is None, "all fit"
    ids = first_samples([folder / "samples.jsonl"], asked, most=26)
    assert ids == {f"s{number}" for number in range(8)}, "26 answers of three cells are eight samples"
    read = [(record.cell, record.sample_id) for record in read_samples(folder, only=frozenset({"s0", "s8"}))]
    assert read == [(cell, id_) for cell in ("full@1.0", "uniform@0.5", "uniform@0.25") for id_ in ("s0", "s8")]


def test_the_doctor_says_that_it_read_a_part(folder, monkeypatch):
    from adallava.doctor.sources.run_folder import load_run_folder

    monkeypatch.setattr(module, "MOST_ANSWERS", 6)
    monkeypatch.setattr(module.first_samples, "__defaults__", (6,))
    loaded = load_run_folder(folder)
    assert {answer.sample_id for cell in loaded.cells for answer in cell.answers} == {"s0", "s1"}
    assert loaded.notes == (
        "the run has more than 6 answers: those of its first 2 samples were read, and held to no results.json",
    )
