"""JSON of a data file, a line of JSONL or a cell of parquet: decoded strictly, or refused with the reason.

A message begins with a verb, as in `values`.
"""

import json
import sys
from typing import Any

from adallava.errors import InputError


def decode_json(text: bytes | str) -> Any:
    """Return what a JSON text holds.

    Args:
        text: bytes are UTF-8.

    Raises:
        InputError: if it is not JSON, nests too deeply, names a key twice, or holds a number of too many digits.
    """
    try:
        return _DECODER.decode(text.decode() if isinstance(text, bytes) else text)
    except RecursionError:
        raise InputError("nests lists or objects too deeply to be read") from None
    except InputError:
        raise
    except ValueError as error:  # of JSON's form, and of UTF-8
        raise InputError(f"is not JSON: {error}") from None


def _whole_number(text: str) -> int:
    if len(text) > sys.int_info.default_max_str_digits:
        raise InputError(f"holds a number of {len(text)} digits: write it as text")
    return int(text)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"gives {twice!r} twice in one object")
    return found


_DECODER = json.JSONDecoder(parse_int=_whole_number, object_pairs_hook=_object)
