"""transformers' internals are met in one module."""

import ast
from collections.abc import Iterator
from pathlib import Path

import adallava
from adallava.families import transformers_internals

SOURCE = Path(adallava.__file__).parent
INTERNALS = Path(transformers_internals.__file__)
THEIR_NAMES = {
    "past_key_values",
    "position_embeddings",
    "get_mask_sizes",
    "layer_idx",
    "_reorder_cache",
    "_attn_implementation",
}
OUR_NAMES = {"position_embeddings"}
"""A field of `LayerInputs` too, and a method of `DecoderLayers`."""


def _uses(tree: ast.Module) -> Iterator[str]:
    """Yield what a module takes of transformers beside public classes, or reads by transformers' own names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("transformers."))
        elif isinstance(node, ast.ImportFrom) and node.module == "transformers":
            yield from (alias.name for alias in node.names if not alias.name[0].isupper())
        elif isinstance(node, ast.ImportFrom) and str(node.module).startswith("transformers."):
            yield str(node.module)
        elif isinstance(node, ast.Constant) and node.value in {*THEIR_NAMES, "cache"}:
            yield str(node.value)
        elif isinstance(node, ast.Attribute) and node.attr in THEIR_NAMES - OUR_NAMES:
            yield node.attr


def test_one_module_alone_knows_them() -> None:
    assert set(_uses(ast.parse(INTERNALS.read_text()))) >= {*THEIR_NAMES, "masking_utils", "cache"}
    others = [path for path in SOURCE.rglob("*.py") if path != INTERNALS]
    found = {str(path.relative_to(SOURCE)): set(_uses(ast.parse(path.read_text()))) for path in others}
    assert {name: uses for name, uses in found.items() if uses} == {}
