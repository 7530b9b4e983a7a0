"""Tables of what a file holds, from the pydantic models that read it.

Types, bounds and defaults come from the JSON Schema, and what a field means from the docstrings beside it, which
griffe reads without importing anything.
"""

import inspect
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, cast

import griffe
from pydantic import BaseModel
from pydantic.fields import FieldInfo

SOURCE = Path(__file__).parents[2] / "src"
_MOST_DEFAULT_CHARACTERS = 60


def schema_sections(model: type[BaseModel]) -> str:
    """Return a section for the model, and one for each model inside it, with a table of fields."""
    lines: list[str] = []
    for part in _models(model):
        lines += _section(part)
    return "\n".join(lines) + "\n"


def _models(model: type[BaseModel]) -> list[type[BaseModel]]:
    """Return the model and those that it refers to, each once, in the order of their first mention."""
    found = {model: None}
    waiting = [model]
    while waiting:
        for field in waiting.pop(0).model_fields.values():
            for part in _parts(field.annotation):
                if part not in found:
                    found[part] = None
                    waiting.append(part)
    return list(found)


def _parts(annotation: Any) -> Iterator[type[BaseModel]]:
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in getattr(annotation, "__args__", ()):
        yield from _parts(inner)


def _section(model: type[BaseModel]) -> Iterator[str]:
    about, meanings = _documented(model)
    properties = model.model_json_schema().get("properties", {})
    inside = {part.__name__ for part in _models(model)}
    yield from (f"### `{model.__name__}`", "", about, "")
    yield from ("| field | type | default | meaning |", "| --- | --- | --- | --- |")
    for name, field in model.model_fields.items():
        kind = _type(properties.get(field.alias or name, {}), inside)
        yield f"| `{name}` | {kind} | {_default(field)} | {_cell(meanings.get(name, ''))} |"
    yield ""


def _type(schema: dict[str, Any], inside: set[str]) -> str:
    """Return a JSON Schema in words, with a link to the section of a model inside."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[`{name}`](#{name.lower()})" if name in inside else f"`{name}`"
    if several := schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf"):
        return " or ".join(dict.fromkeys(_type(one, inside) for one in several))
    if "const" in schema or "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    kind = schema.get("type", "anything")
    if kind == "array":
        items = [schema["items"]] if isinstance(schema.get("items"), dict) else schema.get("prefixItems", [{}])
        return f"list of {', '.join(dict.fromkeys(_type(one, inside) for one in items))}"
    if kind == "object":
        values = schema.get("additionalProperties")
        return f"table of {_type(values, inside)}" if isinstance(values, dict) and values else "table"
    return " ".join([{"null": "none"}.get(kind, kind), *_bounds(schema)])


def _bounds(schema: dict[str, Any]) -> Iterator[str]:
    for key, sign in (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<")):
        if key in schema:
            yield f"{sign} {schema[key]}"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return "its own"
    shown = json.dumps(value, default=str)
    return f"`{shown}`" if len(shown) <= _MOST_DEFAULT_CHARACTERS else "see the code"


def _documented(model: type[BaseModel]) -> tuple[str, dict[str, str]]:
    """Return what the class's docstring says, and what is said of each field, of its bases too."""
    meanings: dict[str, str] = {}
    about = ""
    for base in reversed(model.__mro__):
        if base.__module__.partition(".")[0] != "adallava":
            continue
        known = cast(griffe.Class, _package()[f"{base.__module__}.{base.__qualname__}".partition(".")[2]])
        about = _read_class(known, meanings)
        for name, attribute in known.attributes.items():
            if attribute.docstring is not None:
                meanings[name] = attribute.docstring.value
    return about, meanings


def _read_class(known: griffe.Class, meanings: dict[str, str]) -> str:
    """Return the prose of a class's docstring, and add what its `Attributes:` say."""
    if known.docstring is None:
        return ""
    prose = []
    for section in known.docstring.parse("google", warnings=False):
        if section.kind is griffe.DocstringSectionKind.attributes:
            for one in section.value:
                meanings |= dict.fromkeys((name.strip() for name in one.name.split(",")), one.description)
        elif section.kind is griffe.DocstringSectionKind.text:
            prose.append(section.value)
    return "\n\n".join(prose)


@cache
def _package() -> griffe.Module:
    return cast(griffe.Module, griffe.load("adallava", search_paths=[str(SOURCE)]))


def _cell(text: str) -> str:
    text = " ".join(text.split()).replace("|", "\\|")
    return text[:1].upper() + text[1:]
