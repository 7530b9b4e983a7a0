"""What the README and docs/how_to/ray.md say of Ray, done as written; and the files that start it elsewhere, linted."""

import gzip
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

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


@pytest.mark.ray
@pytest.mark.timeout(1200)
def test_three_lines_of_the_readme_and_the_recipe_for_ray_data_as_written(ray_environment, tmp_path):
    """On one cluster, which takes longer to start than either to run."""
    pytest.importorskip("ray")
    (block,) = (block for block in blocks("README.md", "sh") if "--executor ray" in block)
    install, start, sweep = block.splitlines()
    assert install == "pip install '.[ray]'"
    run(["bash", "-c", start], ray_environment, tmp_path)
    run(["bash", "-c", sweep], ray_environment, tmp_path)
    assert len((tmp_path / "runs/ray/samples.jsonl").read_text().splitlines()) == 60, "three cells of 20 samples"
    assert json.loads((tmp_path / "runs/ray/results.json").read_text())["cells"][0]["cell"] == "full@1.0"

    pytest.importorskip("pandas")
    (recipe,) = (block for block in blocks("docs/how_to/ray.md", "python") if "map_batches" in block)
    expected = write_questions(tmp_path, 3)
    run([sys.executable, "-c", recipe], {**ray_environment, "RAY_ADDRESS": "auto"}, tmp_path)
    rows = [json.loads(line) for part in (tmp_path / "answers").glob("*") for line in part.read_text().splitlines()]
    assert {row["tokens_kept"] for row in rows} == {64}
    assert {row["image"]: row["response"] for row in rows} == expected


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
