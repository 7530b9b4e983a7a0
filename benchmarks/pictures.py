"""Makes the README's pictures from a run: `python benchmarks/pictures.py runs/tiny docs/images` (needs Chromium)."""

import subprocess
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from adallava.tasks.scenes import scene_sample

FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
EXAMPLE = 6


def curve(report: Path, target: Path) -> None:
    """Photograph the report's plot."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
        page = browser.new_page(viewport={"width": 1100, "height": 900})
        page.goto(report.resolve().as_uri())
        page.wait_for_selector("body[data-plot=ready]", timeout=120_000)
        page.locator("#plot").screenshot(path=target)
        browser.close()


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
    curve(run_folder / "report.html", folder / "curve.png")
    kept(folder / "kept.png")
