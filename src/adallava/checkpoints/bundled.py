"""The models that come with the package, as package data."""

from importlib import resources
from pathlib import Path

from adallava.errors import UnknownNameError


def bundled_names() -> tuple[str, ...]:
    """Return the names of the bundled models, sorted."""
    root = _bundled_root()
    if not root.is_dir():
        return ()
    return tuple(sorted(folder.name for folder in root.iterdir() if (folder / "config.json").is_file()))


def is_bundled(name: str) -> bool:
    """Return True if `name` is a bundled model. A folder of that name is written `./name`."""
    return name in bundled_names()


def model_folder(name: str) -> Path:
    """Return the folder of a bundled model.

    Raises:
        UnknownNameError: for a name that is not bundled, with those that are.
    """
    if not is_bundled(name):
        known = ", ".join(bundled_names()) or "none in this installation"
        raise UnknownNameError(f"no bundled model {name!r}; bundled are: {known}")
    return _bundled_root() / name


def _bundled_root() -> Path:
    return Path(str(resources.files("adallava"))) / "bundled"
