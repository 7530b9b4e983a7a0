import io

from adallava.records.jsonl import Line, read_lines


def read(data: bytes) -> list[Line]:
    return list(read_lines(io.BytesIO(data)))


def test_lines_are_told_with_their_places_whatever_bytes_they_are_of():
    lines = read(b"\xc3\xa9\n\n \r\n\xff\nb")
    assert [(line.place, line.number, line.data) for line in lines] == [
        (0, 1, b"\xc3\xa9\n"),
        (3, 2, b"\n"),
        (4, 3, b" \r\n"),
        (7, 4, b"\xff\n"),
        (9, 5, b"b"),
    ]
    assert [line.blank for line in lines] == [False, True, True, False, False]
    assert not read(b"")


def test_only_a_line_without_its_end_is_torn():
    assert [line.torn for line in read(b"a\nb\r\nc")] == [False, False, True]
