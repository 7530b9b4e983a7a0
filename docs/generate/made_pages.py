"""Writes what the site makes from the code into a folder, for the linter of words: `made_pages.py FOLDER`."""

import sys
from pathlib import Path

from hooks import PARTS


def main(folder: Path) -> None:
    """Write each part as a page; the change log is linted as it is."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, make in PARTS.items():
        if name != "changes":
            (folder / f"{name.replace(' ', '_')}.md").write_text(make())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
