"""Names that belong to one room: a model's family, classes, towers and modules are known in `families/` alone."""

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest

import adallava

SRC = Path(adallava.__file__).parent

OWN = re.compile(r"ada-?llava", re.IGNORECASE)
"""The package's own name, and AdaLLaVA's, whose schedulers are methods here."""

OF_A_MODEL = re.compile(
    r"(?i:llava|llama|mistral|vicuna|siglip|qwen|vision_tower|language_model|multi_modal_projector|image_newline)"
    r"|(?<!l)lm_head|CLIP|Clip(?=[A-Z])|clip_(?!norm)"
)
"""Families and LLMs, towers, and the modules on the way to their layers; `clip` and `clip_norm` are verbs."""

MAY_NAME = {
    "families": "what families are for",
    "conversion": "reads one other layout",
    "cli/convert.py": "its command",
    "checkpoints/original_layout.py": "by what its folders are told",
    "registry/built_in.py": "a family's one line",
    "bench/shapes.py": "published shapes by their names",
    "serving/plugin.py": "vLLM's architectures by their names",
    "serving/not_served.py": "says which are served",
    "serving/key_names.py": "vLLM's names of weights",
    "serving/vllm_llava.py": "vLLM's class",
    "serving/vllm_qwen.py": "vLLM's classes",
}


def names_of_models(code: str, *, prose: bool = False) -> list[tuple[int, str]]:
    """Return (line, name) of each identifier and literal that names a model's parts.

    Docstrings and comments explain by examples, and do not count; with `prose`, neither do literals of several words.
    """
    if OF_A_MODEL.search(OWN.sub("", code)) is None:
        return []
    docstrings = {
        (node.value.lineno, node.value.col_offset)
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    found = []
    for token in tokenize.generate_tokens(io.StringIO(code).readline):
        if token.type not in LITERALS or token.start in docstrings:
            continue
        if prose and " " in token.string and token.type != tokenize.NAME:
            continue
        match = OF_A_MODEL.search(OWN.sub("", token.string))
        if match is not None:
            found.append((token.start[0], match.group()))
    return found


LITERALS = {tokenize.NAME, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}
"""From Python 3.12 on, an f-string is several tokens."""


def test_only_families_name_a_model():
    found = []
    for path in sorted(SRC.rglob("*.py")):
        place = path.relative_to(SRC).as_posix()
        if place.partition("/")[0] in MAY_NAME or place in MAY_NAME:
            continue
        # What a command prints as its help may show a model by name.
        names = names_of_models(path.read_text(encoding="utf-8"), prose=place.startswith("cli/"))
        found += [f"{place}:{line}: {name}" for line, name in names]
    assert found == [], "ask the family instead (families/family_contract.py, families/capabilities)"


@pytest.mark.parametrize(
    ("code", "names"),
    [
        ('if kind == "LlavaImageProcessor": pass', ["Llava"]),
        ("from transformers import CLIPVisionConfig", ["CLIP"]),
        ("model.model.language_model(x)", ["language_model"]),
        ('TOWERS = ("siglip_vision_model",)', ["siglip"]),
        ('raise ValueError(f"no {x} of a Llama")', ["Llama"]),
        ('"""LLaVA reads this so."""\n# a Llama\nx = np.clip(y, 0, 1)\nclip_norm = 1.0', []),
        ('import adallava\nmodel = AdaLlava()\nname = "adallava-heads"\nllm_heads = 3', []),
    ],
)
def test_what_counts_as_a_name(code: str, names: list[str]):
    assert [name for _, name in names_of_models(code)] == names


def test_the_latency_token_is_a_token_of_text_to_the_stages():
    """One file knows it, and what puts a run together and records it; to the others it is an inserted token."""
    told = {"latency_token.py", "program.py", "forward.py", "skips.py", "result.py"}
    of_the_token = re.compile(r"latency_?(token|place|column|hidden|embeds)", re.IGNORECASE)
    stages = {path.name: path.read_text(encoding="utf-8") for path in (SRC / "pipeline").glob("*.py")}
    assert {name for name, code in stages.items() if of_the_token.search(code)} <= told


def test_no_two_modules_have_one_basename():
    names = [path.name for path in sorted(SRC.rglob("*.py")) if path.name not in ("__init__.py", "__main__.py")]
    assert sorted({name for name in names if names.count(name) > 1}) == []
