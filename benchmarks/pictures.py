"""Makes the README's pictures from a run: `python benchmarks/pictures.py runs/tiny docs/images`."""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from adallava.records.read import read_results
from adallava.report.paper_figures import write_figures
from adallava.tasks.scenes import scene_sample

EXAMPLE = 6


def curve(run_folder: Path, target: Path) -> None:
    """Draw accuracy against vision tokens as for a paper."""
    with tempfile.TemporaryDirectory() as folder:
        write_figures(read_results(run_folder), Path(folder))
        shutil.copy(Path(folder) / "accuracy-layer-tokens.png", target)


def kept(target: Path) -> None:
    """Draw what `question` keeps of one test picture at three budgets."""
    scene, question = scene_sample("test", EXAMPLE)
    picture = target.parent / "scene.png"
    Image.fromarray(scene.image).save(picture)
    command = [str(Path(sys.executable).parent / "adallava"), "generate", "--image", str(picture)]
    command += ["--question", question.text, "--token-budget", "32", "16", "8", "--output-image", str(target)]
    subprocess.run(command, check=True)
    picture.unlink()


if __name__ == "__main__":
    run_folder, folder = map(Path, sys.argv[1:3])
    folder.mkdir(parents=True, exist_ok=True)
    curve(run_folder, folder / "curve.png")
    kept(folder / "kept.png")
