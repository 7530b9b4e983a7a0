"""Sets of patches as text, and lines of both forms."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from run_records import sample_record

from adallava.records import SampleRecord
from adallava.records.index_sets import MOST, pack, unpack


def test_bits_stand_from_the_lowest_of_the_first_byte():
    # Bits 0, 1 and 9: bytes 0b00000011 and 0b00000010, in base64 AwI=. Longer than the list, it stays one.
    assert unpack("bits:AwI=") == (0, 1, 9)
    assert pack([0, 1, 9]) == [0, 1, 9]
    assert pack(range(24)) == "bits:////"


@pytest.mark.parametrize("listed", [[], [5], [3, 2, 1], [4, 4], [-1, 2], [0, 10_000]])
def test_what_is_no_ascending_set_or_shorter_as_it_is_stays_a_list(listed):
    assert pack(listed) == listed


@settings(deadline=None)
@given(st.sets(st.integers(0, 3000), max_size=700))
def test_any_set_comes_back(indices):
    packed = pack(sorted(indices))
    assert unpack(packed if isinstance(packed, str) else tuple(packed)) == tuple(sorted(indices))
    assert len(json.dumps(packed, separators=(",", ":"))) <= len(json.dumps(sorted(indices), separators=(",", ":")))


@pytest.mark.parametrize("text", ["AwI=", "bits:A", "bits:A_I=", "", "bits:" + "A" * 200_000])
def test_other_text_is_refused(text):
    with pytest.raises(ValueError, match=r"packed|base64|padding|Base64|characters"):
        unpack(text)


def test_the_longest_set_comes_back_and_a_longer_one_stays_a_list():
    longest = [*range(10), MOST - 1, MOST]
    assert pack(longest) == longest
    assert unpack(pack(range(MOST))) == tuple(range(MOST))


def test_a_line_is_packed_and_both_forms_are_read():
    record = sample_record("uniform@0.5", "one", kept_indices=[list(range(0, 576, 2))])
    line = json.loads(record.model_dump_json())
    assert isinstance(line["kept_indices"][0], str)
    assert len(line["kept_indices"][0]) < 110, "576 bits are 72 bytes"
    older = {**line, "kept_indices": [list(range(0, 576, 2))]}
    assert SampleRecord.model_validate_json(json.dumps(line)) == record
    assert SampleRecord.model_validate_json(json.dumps(older)) == record
