import subprocess

import pytest

import adallava
from adallava.measuring.provenance import collect_provenance, git_state


def git(folder, *arguments):
    name = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
    done = subprocess.run(["git", "-C", str(folder), *name, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path):
    package = tmp_path / "src" / "package"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "first")
    return tmp_path


def test_a_checkout_has_a_commit_and_may_be_dirty(checkout):
    package = checkout / "src" / "package"
    assert git_state(package) == (git(checkout, "rev-parse", "HEAD"), False)
    (checkout / "notes.txt").write_text("beside the package")
    assert git_state(package)[1] is False
    (package / "__init__.py").write_text("changed = True")
    assert git_state(package)[1] is True


def test_a_new_file_in_the_package_is_dirty(checkout):
    (checkout / "src" / "package" / "new.py").write_text("")
    assert git_state(checkout / "src" / "package")[1] is True


def test_a_hooks_variables_do_not_mislead(checkout, monkeypatch, tmp_path_factory):
    monkeypatch.setenv("GIT_DIR", str(tmp_path_factory.mktemp("other")))
    assert git_state(checkout / "src" / "package")[0] is not None


def test_an_environment_inside_somebodys_repository_is_no_checkout(checkout):
    (checkout / ".gitignore").write_text(".venv\n")
    installed = checkout / ".venv" / "package"
    installed.mkdir(parents=True)
    (installed / "__init__.py").write_text("")
    assert git_state(installed) == (None, None)


def test_without_git_nothing_is_claimed(checkout, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert git_state(checkout / "src" / "package") == (None, None)


def test_everything_is_recorded():
    provenance = collect_provenance(
        weights_sha256="a",
        adapter_sha256={"question": "b"},
        scheduler_sha256={"layers": "c"},
        weight_counts={"layers": 7},
        task_sha256=None,
        command="adallava sweep",
    )
    assert provenance.scheduler_sha256 == {"layers": "c"}
    assert provenance.weight_counts == {"layers": 7}
    assert provenance.adallava_version == adallava.__version__
    assert {"python", "torch", "transformers"} <= set(provenance.versions)
    assert provenance.hardware["cpu_cores"] >= 1
    assert provenance.hardware["cpu"]
