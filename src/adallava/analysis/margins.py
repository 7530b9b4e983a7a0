"""Within which accuracies count as the same. No numpy here: the command line reads it."""

from adallava.errors import InputError

MARGIN = 0.02
"""Accuracies no further apart than two points count as the same, unless another margin is asked for."""


def check_margin(margin: float) -> None:
    """Refuse a margin within which all accuracies lie, or none.

    Raises:
        InputError: naming the option and its value.
    """
    if not 0.0 < margin < 1.0:
        raise InputError(f"--equivalence-margin is {margin}: give a share between 0 and 1, such as 0.02 for two points")
