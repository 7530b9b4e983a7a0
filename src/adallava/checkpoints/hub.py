"""Where a checkpoint's files are on this machine: in a folder, or in the hub's local cache."""

from collections.abc import Sequence
from pathlib import Path

from adallava.errors import CheckpointError, in_short

CONFIG_FILES = ("config.json", "adapter_config.json")
PROCESSOR_FILES = ("*.json", "*.jinja", "*.txt", "tokenizer.model")
MODEL_FILES = (*PROCESSOR_FILES, "*.safetensors")
"""Patterns of file names, in folders of the repository too. Pickles are never fetched."""


def find_folder(folder_or_id: str, patterns: Sequence[str], *, download: bool = True) -> Path:
    """Return a folder itself, or that of a hub id's newest snapshot, once its files are there.

    Without a network, or with `HF_HUB_OFFLINE=1`, the snapshot is the one that was fetched last, whole or not.

    Args:
        folder_or_id: a folder, or a hub id.
        patterns: of the files that are needed.
        download: ask the hub; False for what is here alone.

    Raises:
        CheckpointError: if it is neither a folder nor a hub id, or the hub does not give it.
    """
    if folder_or_id and Path(folder_or_id).is_dir():
        return Path(folder_or_id)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        return Path(snapshot_download(folder_or_id, allow_patterns=list(patterns), local_files_only=not download))
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        # Of a download that was cut off there is a folder, and whoever reads it names what it lacks.
        partial = getattr(error, "snapshot_path", None)
        if partial is not None:
            return Path(partial)
        raise CheckpointError(
            f"no model {folder_or_id!r}: not a bundled name, not a folder, and not a hub id in the local cache; the "
            "hub cannot be reached (no network, or HF_HUB_OFFLINE is set)"
        ) from error
    except HFValidationError as error:
        raise CheckpointError(
            f"no model {folder_or_id!r}: not a bundled name, not a folder, not a hub id (OWNER/NAME): check the path"
        ) from error
    except Exception as error:  # whatever a hub or a network raises, and names that no hub has
        raise CheckpointError(
            f"no model {folder_or_id!r}: not a bundled name, not a folder, not a readable hub id ({in_short(error)})"
        ) from error
