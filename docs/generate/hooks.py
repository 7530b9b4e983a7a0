"""What MkDocs asks while it builds the site: parts of pages that are made from the code, so that they cannot drift.

A page holds `<!-- made: NAME -->` where the part goes.
"""

import json
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "src"), str(Path(__file__).parent)]

from command_pages import command_sections  # noqa: E402
from mkdocs.config.defaults import MkDocsConfig  # noqa: E402
from mkdocs.structure.files import File, Files  # noqa: E402
from pydantic import BaseModel  # noqa: E402
from pydantic.json_schema import JsonSchemaMode  # noqa: E402
from schema_pages import schema_sections  # noqa: E402

from adallava.cli.main import COMMANDS, build_parser  # noqa: E402
from adallava.records import Results, Run, SampleRecord, TimingRecord  # noqa: E402
from adallava.serving.serving_settings import ServingSettings  # noqa: E402
from adallava.training.recipe import Recipe  # noqa: E402

MODELS: dict[str, type[BaseModel]] = {
    "recipe": Recipe,
    "run": Run,
    "sample": SampleRecord,
    "timing": TimingRecord,
    "results": Results,
    "serving": ServingSettings,
}
"""By the name that a page asks for."""

SCHEMAS: dict[str, JsonSchemaMode] = {
    "recipe": "validation",
    "run": "serialization",
    "timing": "serialization",
    "results": "serialization",
    "serving": "validation",
}
"""What has a JSON Schema in `reference/schemas/`: of what a user writes, or of what a file holds. Lines of answers have
none: they are packed."""


def _commands() -> str:
    return command_sections(build_parser(), COMMANDS)


def _changes() -> str:
    """Return the change log without its title, with links that hold from the page's folder."""
    _, _, text = (ROOT / "CHANGELOG.md").read_text().partition("\n")
    return re.sub(r"\]\(docs/", "](../", text)


PARTS: dict[str, Callable[[], str]] = {
    "commands": _commands,
    "changes": _changes,
    **{f"{name} schema": partial(schema_sections, model) for name, model in MODELS.items()},
}
_MADE = re.compile(r"<!-- made: ([\w ]+) -->")


def json_schema(name: str) -> str:
    """Return one of `SCHEMAS` as text."""
    return json.dumps(MODELS[name].model_json_schema(mode=SCHEMAS[name]), indent=1)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the JSON Schemas."""
    for name in SCHEMAS:
        files.append(File.generated(config, f"reference/schemas/{name}.json", content=json_schema(name)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put what is made from the code where the page asks for it."""
    return _MADE.sub(lambda found: PARTS[found[1]](), markdown)
