"""The docs' commands, done as written, and what the site makes from the code."""

import json
import re
import shlex
import sys
from pathlib import Path

import pytest
from PIL import Image
from tiny_qwen import tiny_qwen

import adallava
from adallava.cli.main import COMMANDS, build_parser, main
from adallava.errors import InputError
from adallava.tasks.local import ROLES
from adallava.tasks.scenes import scene_sample

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
TUTORIALS = sorted((DOCS / "tutorials").glob("*.md"))
NEEDS = "# needs weights"


def fenced(page, language):
    return re.findall(rf"^ *```{language}\n(.*?)^ *```", page.read_text(), re.DOTALL | re.MULTILINE)


def commands_of(block):
    """Return the commands for `adallava`, each in one line."""
    lines = block.replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.strip().startswith("adallava ")]


def shell_commands(page):
    blocks = re.findall(r"^```(?:\w*)\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    indented = "\n".join(line for line in page.read_text().splitlines() if line.startswith("    "))
    return [command for block in [*blocks, indented] for command in commands_of(block)]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A reader's folder: a photo of their own, and the files that the pages tell them to write."""
    scene, _ = scene_sample("test", 6)
    photo = Image.fromarray(scene.image)
    photo.save(tmp_path / "photo.jpg")
    (tmp_path / "docs/images").mkdir(parents=True)
    photo.save(tmp_path / "docs/images/shapes.png")
    (rows,) = fenced(DOCS / "tutorials/bring_your_data.md", "jsonl")
    for row in map(json.loads, rows.splitlines()):
        for name in [row["image"]] if isinstance(row["image"], str) else row["image"]:
            photo.save(tmp_path / name)
    (tmp_path / "mine.jsonl").write_text(rows)
    (recipe,) = fenced(DOCS / "tutorials/train_a_controller.md", "toml")
    (tmp_path / "try.toml").write_text(recipe)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def work(command, capsys):
    code = main(shlex.split(command, comments=True)[1:])
    said = capsys.readouterr()
    assert code == 0, command + said.out + said.err


def shorter(command):
    """Return a command with two samples, one method and one budget."""
    command = re.sub(r"--limit \d+", "--limit 2", command)
    command = re.sub(r"(--method [\w-]+),[\w,-]+", r"\1", command)
    return re.sub(r"(--token-budget) [\w.,]+,([\w.]+)", r"\1 \2", command)


@pytest.mark.parametrize("page", [DOCS / "index.md", *TUTORIALS], ids=lambda page: page.stem)
def test_commands_that_need_nothing_work(page, folder, capsys):
    """All but drawing figures, which takes longer than the rest."""
    for block in fenced(page, "bash"):
        for command in commands_of(block):
            if " --figures " not in command:
                work(shorter(command), capsys)


@pytest.mark.long
@pytest.mark.parametrize("page", [DOCS / "index.md", *TUTORIALS], ids=lambda page: page.stem)
def test_commands_that_need_nothing_work_as_written(page, folder, capsys):
    for block in fenced(page, "bash"):
        for command in commands_of(block):
            work(command, capsys)


def test_what_needs_weights_says_so_and_everything_else_is_run():
    """A block of a tutorial is either run by a test, or says in its first line what it needs."""
    for page in TUTORIALS:
        for language in ("sh", "python"):
            assert all(block.startswith(NEEDS) for block in fenced(page, language)), page
        assert NEEDS not in "".join(fenced(page, "bash")), page


def test_the_page_of_qwen_works_with_a_small_qwen(folder, capsys):
    """Its commands and its Python, with a random model of a few layers in place of the weights."""
    page = DOCS / "tutorials/prune_qwen2_5_vl.md"
    small = tiny_qwen("qwen2_5_vl", folder / "small")
    rows = (folder / "mine.jsonl").read_text().splitlines()
    (folder / "mine.jsonl").write_text("\n".join(rows[:1]))
    commands = [command for block in fenced(page, "sh") for command in commands_of(block)]
    for command in commands:
        assert " --model Qwen/Qwen2.5-VL-7B-Instruct " in command
        code = main(shlex.split(shorter(command).replace("Qwen/Qwen2.5-VL-7B-Instruct", str(small)), comments=True)[1:])
        assert code in (0, 1), capsys.readouterr().err  # 1: a random model says nothing, or nonsense, and is told of
    (code,) = fenced(page, "python")
    capsys.readouterr()
    exec(code.replace("Qwen/Qwen2.5-VL-7B-Instruct", str(small)), {"__name__": "__main__"})
    kept, of, patches = capsys.readouterr().out.split()[-3:]
    assert of == "of"
    assert int(kept) == round(int(patches) / 4)


def mistake_in(command):
    """Return what the parser complains of; a page may leave out what a command requires, or end in dots."""
    words = shlex.split(re.split(r" [|>]|\.\.\.$|…", command)[0], comments=True)[1:]
    if "COMMAND" in words or (len(words) > 1 and words[-1].startswith("--")):
        return ""
    try:
        build_parser(words[:1]).parse_args(words)
    except InputError as error:
        return "" if "arguments are required" in str(error) else f"{command}: {error}"
    return ""


def test_every_command_of_a_page_can_be_parsed():
    commands = [command for page in (ROOT / "README.md", *PAGES) for command in shell_commands(page)]
    assert len(commands) > 30
    said = "adallava generate: unrecognized arguments: --modle tiny: did you mean --model? (adallava generate --help"
    assert said in mistake_in("adallava generate --modle tiny --image a.png --question a")
    assert [mistake for mistake in map(mistake_in, commands) if mistake] == []


def test_the_page_of_python_has_every_public_name():
    page = (DOCS / "reference/python.md").read_text()
    shown = set(re.findall(r"^::: [\w.]+\.(\w+)$", page, re.MULTILINE))
    for members in re.findall(r"members: \[(.*)\]", page):
        shown |= set(members.split(", "))
    assert set(adallava.__all__) - {"__version__"} <= shown


@pytest.fixture
def hooks(monkeypatch):
    pytest.importorskip("mkdocs")
    pytest.importorskip("griffe")
    monkeypatch.setattr(sys, "path", [str(DOCS / "generate"), *sys.path])
    import hooks

    return hooks


def test_parts_of_pages_are_made_from_the_code(hooks):
    commands = hooks.on_page_markdown("<!-- made: commands -->")
    assert re.findall(r"^## (\w+)$", commands, re.MULTILINE) == list(COMMANDS)
    assert "`--token-budget BUDGET [BUDGET ...]`\n:   shares" in commands
    assert commands.count("separate the values of a list by commas or spaces") == 5
    recipe = hooks.on_page_markdown("<!-- made: recipe schema -->")
    assert "| `stage` | `align`, `base`, `question`," in recipe
    assert "| `r` | integer > 0 ≤ 65536 | `16` | Rank. |" in recipe
    assert "[`Search`](#search)" in recipe
    assert "| `seed` |" in hooks.on_page_markdown("<!-- made: run schema -->")


def test_help_says_the_default_of_every_option_that_takes_a_value():
    commands = build_parser()._subparsers._group_actions[0].choices
    optional = [
        (name, action)
        for name, parser in commands.items()
        for action in parser._actions
        if action.option_strings and action.nargs != 0 and not action.required
    ]
    assert [(name, action.dest) for name, action in optional if "default: " not in action.help] == []
    for name, parser in commands.items():
        columns = {action.dest: action.help for action in parser._actions if action.dest.endswith("_column")}
        for role, usual in ROLES.items() if columns else ():
            assert all(word in columns[f"{role}_column"].partition("default: ")[2] for word in usual), (name, role)


def test_every_field_of_the_files_is_explained_or_speaks_for_itself(hooks):
    """The generated tables take what is said of a field in the code: most have something."""
    for part in ("run schema", "sample schema", "results schema", "serving schema"):
        rows = re.findall(r"^\| `(\w+)` \|.*\| (.*) \|$", hooks.PARTS[part](), re.MULTILINE)
        assert len(rows) > 5
        assert sum(bool(meaning.strip()) for _, meaning in rows) > len(rows) / 2, part


def test_json_schemas_take_real_files_and_refuse_others(hooks, tiny_folder, folder, capsys):
    jsonschema = pytest.importorskip("jsonschema")
    options = "--method uniform --token-budget 4 --limit 2 --max-new-tokens 2 --timing-batch-sizes 1 --no-report"
    work(f"adallava sweep --model {tiny_folder} {options} --output run", capsys)
    for name in ("run", "results"):
        jsonschema.validate(json.loads((folder / f"run/{name}.json").read_text()), json.loads(hooks.json_schema(name)))
    line = (folder / "run/timings.jsonl").read_text().splitlines()[0]
    jsonschema.validate(json.loads(line), json.loads(hooks.json_schema("timing")))
    import tomllib

    from adallava.training.recipe import RECIPES

    schema = json.loads(hooks.json_schema("recipe"))
    for recipe in RECIPES.rglob("*.toml"):
        jsonschema.validate(tomllib.loads(recipe.read_text()), schema)
    with pytest.raises(jsonschema.ValidationError, match="Additional properties"):
        jsonschema.validate({"stage": "base", "stepps": 1}, schema)
