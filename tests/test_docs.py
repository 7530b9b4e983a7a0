"""What the README says, done as written."""

import importlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from adallava.cli.main import build_parser, main
from adallava.errors import InputError
from adallava.registry.built_in import SELECTORS
from adallava.selection.selector_contract import SelectionInput
from adallava.tasks.scenes import make_questions, make_scene

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


COMMANDS = [line for block in blocks("bash") for line in block.splitlines() if line.startswith("adallava ")]


def run(command, folder):
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.run(
        command, shell=True, cwd=folder, env=environment, capture_output=True, text=True, timeout=280, check=False
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("new-user")


def test_the_readme_has_commands_and_the_two_of_the_makefile():
    assert len(COMMANDS) >= 4
    makefile = (ROOT / "Makefile").read_text()
    two = [line for line in blocks("bash")[0].splitlines() if line]
    assert two == ["make sweep", "make test"]
    assert all(re.search(rf"^{line.split()[1]}:", makefile, re.MULTILINE) for line in two)


def _work(commands, folder, monkeypatch, capsys):
    """In this process, one after the other: later ones read what earlier ones wrote."""
    monkeypatch.chdir(folder)
    for command in commands:
        program, *words = shlex.split(command, comments=True)
        assert program == "adallava"
        done = main(words)
        said = capsys.readouterr()
        assert done == 0, command + said.out + said.err


def test_commands_of_the_readme_work(tmp_path, monkeypatch, capsys):
    """On two samples, and without those that draw, train and diagnose a model, which take longer than all else."""
    slow = (" --figures ", " train ", " doctor --model ")
    quick = [command for command in COMMANDS if not any(part in command for part in slow)]
    fewer = [re.sub(r"--limit \d+", "--limit 2", command) for command in quick]
    assert any("--limit 2" in command for command in fewer)
    _work(fewer, tmp_path, monkeypatch, capsys)
    for command in COMMANDS:
        words = shlex.split(command, comments=True)[1:]
        assert build_parser(words[:1]).parse_args(words), command


@pytest.mark.long
def test_commands_of_the_readme_work_as_written(tmp_path, monkeypatch, capsys):
    _work(COMMANDS, tmp_path, monkeypatch, capsys)


def test_the_installed_command_is_the_one_that_the_readme_calls(folder):
    done = run("adallava generate --help", folder)
    assert done.returncode == 0, done.stderr
    assert "usage: adallava generate" in done.stdout


def _check_answers(stdout, stderr):
    full, cheap = stdout.strip().splitlines()
    color = make_questions(make_scene("test", 0), ("attribute",))[0].answer
    assert full == f"{color} (256 of 256 vision tokens)"
    assert cheap == f"{color} (16 of 256 vision tokens)"
    said = [line for line in stderr.splitlines() if line.strip() and "Loading weights" not in line]
    assert said == [], "a first-time user's first lines warn of nothing"


def test_the_python_of_the_readme_works_as_written(monkeypatch, capfd):
    (code,) = blocks("python")
    monkeypatch.chdir(ROOT)
    exec(code, {"__name__": "__main__"})
    _check_answers(*capfd.readouterr())


@pytest.mark.long
def test_a_new_users_python_warns_of_nothing(folder):
    (code,) = blocks("python")
    shutil.copytree(ROOT / "docs/images", folder / "docs/images")
    done = run(f"{sys.executable} - <<'EOF'\n{code}EOF", folder)
    assert done.returncode == 0, done.stderr
    _check_answers(done.stdout, done.stderr)


def test_tables_are_those_of_the_measured_figures(monkeypatch, capsys):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    show = importlib.import_module("show")
    assert show.main(check=True) == 0, capsys.readouterr().out


def test_the_readme_is_short_and_names_every_method_once():
    assert len(README.splitlines()) < 150
    table = README.split("| chooses by | methods |")[1].split("\n\n")[0]
    assert sorted(re.findall(r"`([a-z-]+)`", table)) == sorted(SELECTORS)


def test_the_page_of_methods_has_every_method_once():
    page = (ROOT / "docs/reference/methods.md").read_text()
    table = page.split("| method | paper |")[1].split("\n\n")[0]
    ours = sorted(SELECTORS)
    assert sorted(re.findall(r"^\| `([a-z-]+)` \|", table, re.MULTILINE)) == ours


def test_the_method_of_the_contributors_page_keeps_the_contract():
    (code,) = re.findall(
        r"^```python\n(.*?)^```", (ROOT / "docs/how_to/add_a_method.md").read_text(), re.DOTALL | re.MULTILINE
    )
    namespace = {}
    exec(code, namespace)
    features = torch.tensor([[[3.0, 4.0], [1.0, 0.0], [0.0, 5.5], [2.0, 2.0]]])
    inputs = SelectionInput(features, (2, 2), (2,), *(torch.ones(1),) * 4)
    assert namespace["BrightestSelector"]().select(inputs).indices.tolist() == [[0, 2]]
    with pytest.raises(InputError, match="above 0, not -1"):
        namespace["BrightestSelector"](power=-1)


def test_files_that_readme_and_docs_point_to_exist():
    for page in (ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")):
        for target in re.findall(r"\]\((?!http|#|schemas/)([^)\s]+)\)", page.read_text()):  # schemas are made
            assert (page.parent / target.partition("#")[0]).exists(), (page, target)


def anchors(page):
    """Return the anchors of a page's headings, as the site and GitHub make them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.M), re.M)
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in headings}


def test_headings_that_readme_and_docs_point_to_exist():
    for page in (ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")):
        for target, anchor in re.findall(r"\]\((?!http)([^)\s#]*)#([^)\s]+)\)", page.read_text()):
            other = page.parent / target if target else page
            if "<!-- made" not in other.read_text():
                assert anchor in anchors(other), (page.name, target, anchor)


def test_pages_that_the_code_names_exist():
    """Messages, help and docstrings say where to read on."""
    named = {
        (file.name, page)
        for folder in ("src", "benchmarks", "tests")
        for file in (ROOT / folder).rglob("*.py")
        for page in re.findall(r"docs/[\w/]+\.md", file.read_text())
    }
    assert len({page for _, page in named}) > 10
    assert [(file, page) for file, page in named if not (ROOT / page).exists()] == []


@pytest.mark.parametrize("command", ["", "sweep", "compare", "report", "generate", "bench", "doctor", "train"])
def test_every_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main([*command.split(), "--help"])
    said = capsys.readouterr().out
    assert ended.value.code == 0
    assert "usage: adallava" in said
    assert "example" in said or not command
