"""What a command does before it loads a model."""

from pathlib import Path


def quiet_loading(model: str) -> None:
    """Turn transformers' progress bars off for a model that is here already; a download keeps its bars."""
    from transformers.utils.logging import disable_progress_bar

    from adallava.adapters.bundled import is_bundled

    if is_bundled(model) or Path(model).is_dir():
        disable_progress_bar()
