"""Tells a folder in the layout that `adallava.conversion` reads from one in Hugging Face's."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adallava.errors import CheckpointError


def check_not_original(folder: Path, config: Mapping[str, Any]) -> None:
    """Refuse a folder that is to be converted first.

    Raises:
        CheckpointError: naming it.
    """
    if "mm_vision_tower" in config:
        raise CheckpointError(
            f"folder {str(folder)!r} is in the layout of the original LLaVA code, not in Hugging Face's: convert it "
            "with `adallava convert`"
        )
