"""Which releases of transformers this package was tested with, and what becomes of another one."""

import warnings
from functools import cache

from adallava.errors import AdallavaError

OLDEST_TESTED = (5, 17)
NEWEST_TESTED = (5, 24)
"""Major and minor number, with every patch of it; `pyproject.toml` asks pip for the same."""

TESTED_RANGE = f">={OLDEST_TESTED[0]}.{OLDEST_TESTED[1]},<{NEWEST_TESTED[0]}.{NEWEST_TESTED[1] + 1}"
"""As pip takes it."""


def check_transformers() -> None:
    """Say once a process if the installed transformers was not tested with, and refuse it if its layers run otherwise.

    Raises:
        AdallavaError: naming the version, what a probe of its layers found, and the versions that are known.
    """
    version = _installed()
    fault = _find_fault(version)
    if fault is not None:
        raise AdallavaError(
            f"{_untested(version)}, and it runs the layers of an LLM in a way that is not known here ({fault}): "
            f"answers would be wrong. {_FIX}"
        )


_FIX = f'Install one that was tested: pip install "transformers{TESTED_RANGE}"'


def _installed() -> str:
    import transformers

    return str(transformers.__version__)


@cache
def _find_fault(version: str) -> str | None:
    """Return what is wrong with a release; of an untested one that passes the probe, say that it is one."""
    if OLDEST_TESTED <= _series(version) <= NEWEST_TESTED:
        return None
    from adallava.families.transformers_probe import find_fault

    fault = find_fault()
    if fault is None:
        warnings.warn(
            f"{_untested(version)}; a probe of its layers gave what it must. {_FIX}, if an answer looks wrong",
            stacklevel=2,
        )
    return fault


def _untested(version: str) -> str:
    return f"transformers {version} is not one of the versions that adallava was tested with ({TESTED_RANGE})"


def _series(version: str) -> tuple[int, int]:
    major, minor, *_ = version.split(".")
    return int(major), int(minor)
