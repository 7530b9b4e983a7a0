"""Makes the README's still images from published figures: `python benchmarks/pictures.py docs/images`."""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from matplotlib import pyplot as plt
from PIL import Image

from adallava.demo.example_scenes import example_scenes
from adallava.records import Results
from adallava.report.paper_figures import write_figures
from adallava.tasks.scenes import scene_sample

EXAMPLE = 6
RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results"
SPEEDS = (
    ("LLaVA-1.5-7B", "speed.json", "visionzip@64", "64 of 576 tokens by visionzip"),
    ("Qwen2.5-VL-7B", "speed_qwen2.5-vl-7b.json", "uniform@0.25", "a quarter of 414 tokens by uniform"),
    ("Qwen3-VL-8B", "speed_qwen3-vl-8b.json", "uniform@0.25", "a quarter of 300 tokens by uniform"),
)
"""Each model's shapes, where its times are, and which cell is drawn: those of the README's table."""


def curve(target: Path) -> None:
    """Draw accuracy against vision tokens as for a paper."""
    published = json.loads((RESULTS / "tiny.json").read_text())
    results = Results.model_validate({name: published[name] for name in Results.model_fields if name in published})
    with tempfile.TemporaryDirectory() as folder:
        write_figures(results, Path(folder))
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


def speed(target: Path) -> None:
    """Draw the time to the first token and of the whole answer: stock, and ours by engine."""
    figure, axes = plt.subplots(len(SPEEDS), 1, figsize=(8, 4.2), sharex=True, constrained_layout=True)
    for axis, (title, file, cell, budget) in zip(axes, SPEEDS, strict=True):
        bars = (("transformers", "full@1.0", "transformers, all tokens"), ("graphs", cell, f"adallava, {budget}"))
        bars += (("compiled", cell, "the same, compiled"),)
        published = json.loads((RESULTS / file).read_text())
        found = {(c["engine"], c["cell"]): c["ms"] for c in published["cells"] if c["batch_size"] == 1}
        for row, (engine, name, _) in enumerate(bars):
            first, whole = (found[engine, name][key]["median"] for key in ("time_to_first_token", "total"))
            axis.barh(row, whole, color="#c9d3e3" if row == 0 else "#8fb3e8")
            axis.barh(row, first, color="#5b6470" if row == 0 else "#1f5fc0")
            axis.text(whole, row, f" {whole:.0f} ms, first token {first:.0f}", va="center", fontsize=8)
        axis.set_title(f"{title}, an answer of {published['new_tokens']} tokens", loc="left", fontsize=9)
        axis.invert_yaxis()
        axis.margins(x=0.36)
        axis.set_yticks(range(len(bars)), [label for _, _, label in bars])
        axis.spines[["top", "right", "left"]].set_visible(False)
        axis.tick_params(labelsize=8, left=False)
    axes[-1].set_xlabel(
        "ms on one H200, batch 1, bfloat16, random weights in these shapes; dark: to the first token", fontsize=8
    )
    figure.savefig(target, dpi=160)


def shapes(target: Path) -> None:
    """Save the picture that the README's first lines ask about."""
    picture, _ = example_scenes()[0]
    picture.save(target, optimize=True)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    curve(folder / "curve.png")
    kept(folder / "kept.png")
    speed(folder / "speed.png")
    shapes(folder / "shapes.png")
