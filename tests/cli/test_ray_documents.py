"""What the README and docs/how_to/ray.md say of Ray, done as written; and the files that start it elsewhere, linted."""

import gzip
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from PIL import Image

from adallava.cli.main import build_parser
from adallava.tasks.scenes import scene_sample

ROOT = Path(__file__).parents[2]
START = ROOT / "docs" / "start"


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE)


def run(command, environment, folder):
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=560, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def recipe():
    """The page's Python for Ray Data."""
    (code,) = (block for block in blocks("docs/how_to/ray.md", "python") if "map_batches" in block)
    return code


@pytest.mark.ray
@pytest.mark.timeout(1200)
def test_three_lines_of_the_readme_as_written(ray_environment, tmp_path):
    pytest.importorskip("ray")
    _readme_lines(ray_environment, tmp_path)


def _readme_lines(environment, folder):
    (block,) = (block for block in blocks("README.md", "sh") if "--executor ray" in block)
    install, start, sweep = block.splitlines()
    assert install == "pip install '.[ray]'"
    run(["bash", "-c", start], environment, folder)
    run(["bash", "-c", sweep], environment, folder)
    assert len((folder / "runs/ray/samples.jsonl").read_text().splitlines()) == 60, "three cells of 20 samples"
    assert json.loads((folder / "runs/ray/results.json").read_text())["cells"][0]["cell"] == "full@1.0"


@pytest.mark.ray
@pytest.mark.long
@pytest.mark.timeout(1200)
def test_the_recipe_for_ray_data_works_as_written_on_the_readmes_cluster(ray_environment, recipe, tmp_path):
    pytest.importorskip("ray")
    pytest.importorskip("pandas")
    _readme_lines(ray_environment, tmp_path)
    expected = write_questions(tmp_path, 3)
    run([sys.executable, "-c", recipe], {**ray_environment, "RAY_ADDRESS": "auto"}, tmp_path)
    rows = [json.loads(line) for part in (tmp_path / "answers").glob("*") for line in part.read_text().splitlines()]
    assert {row["tokens_kept"] for row in rows} == {64}
    assert {row["image"]: row["response"] for row in rows} == expected


def test_the_recipe_for_ray_data_answers_without_its_cluster(recipe, tmp_path, monkeypatch):
    """Ray Data stands aside: one actor, made once, is given every column of all rows at once."""
    written = {}

    class Rows(list):
        def map_batches(self, actor, *, batch_size, concurrency, num_gpus):
            assert (len(self) <= batch_size, concurrency, num_gpus) == (True, 1, 0)
            columns = actor()({name: [row[name] for row in self] for name in self[0]})
            return Rows(dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))

        def write_json(self, folder):
            written[folder] = self

    stand_in = SimpleNamespace(init=lambda: None, data=SimpleNamespace(from_items=Rows), cluster_resources=dict)
    monkeypatch.setitem(sys.modules, "ray", stand_in)
    monkeypatch.chdir(tmp_path)
    expected = write_questions(tmp_path, 3)
    exec(recipe, {"__name__": "__main__"})
    assert {row["tokens_kept"] for row in written["answers"]} == {64}
    assert {row["image"]: row["response"] for row in written["answers"]} == expected


def write_questions(folder, number):
    """Write what the recipe reads, and return the right answers by the pictures' paths."""
    expected = {}
    with (folder / "questions.jsonl").open("w") as file:
        for one in range(number):
            scene, question = scene_sample("test", one)
            picture = folder / f"{one}.png"
            Image.fromarray(scene.image).save(picture)
            expected[str(picture)] = question.answer
            file.write(json.dumps({"image": str(picture), "question": question.text}) + "\n")
    return expected


def test_the_file_for_kubernetes_is_what_kuberay_takes():
    """By the schema of its own resource definition, in which an unknown field is an error here."""
    jsonschema, yamllint = pytest.importorskip("jsonschema"), pytest.importorskip("yamllint.linter")
    from yamllint.config import YamlLintConfig

    path = START / "rayjob.yaml"
    rules = "{extends: default, rules: {line-length: {max: 120}, document-start: disable}}"
    assert list(yamllint.run(path.read_text(), YamlLintConfig(rules))) == []
    schema = json.loads(gzip.decompress((Path(__file__).parent / "rayjob_v1.schema.json.gz").read_bytes()))
    job = yaml.safe_load(path.read_text())
    jsonschema.Draft7Validator(schema).validate(job)
    with pytest.raises(jsonschema.ValidationError, match="entrypont"):
        jsonschema.Draft7Validator(schema).validate({**job, "spec": {**job["spec"], "entrypont": "?"}})
    words = job["spec"]["entrypoint"].split()
    assert words[0] == "adallava"
    assert build_parser(words[1:2]).parse_args(words[1:]).address == "auto"


def test_the_file_for_slurm_passes_shellcheck():
    shellcheck = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if shellcheck is None:
        pytest.skip("shellcheck is not installed")
    done = subprocess.run([shellcheck, START / "ray_slurm.sh"], capture_output=True, text=True, check=False)
    assert done.stdout + done.stderr == ""
    assert done.returncode == 0
