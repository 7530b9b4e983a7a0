"""Makes the README's moving image: one question while the token budget falls.

`python benchmarks/falling_budget.py --output docs/results/falling_budget.json` measures, and
`python benchmarks/falling_budget.py --draw docs/images/falling_budget.webp` draws what that file holds.
"""

import argparse
import json
import time
from functools import partial
from pathlib import Path
from typing import Any

import measured
import torch
from matplotlib.font_manager import FontProperties, findfont
from PIL import Image, ImageDraw, ImageFont

from adallava import AdaLlava
from adallava.costs.counted import count_costs
from adallava.measuring.turns import take_turns
from adallava.model import build_prompt
from adallava.processors.stock_processor import make_inputs
from adallava.report.patches import draw_kept_patches
from adallava.runs.answer_flops import count_flops
from adallava.tasks.scenes import scene_sample

EXAMPLE = 5
METHOD = "question"
BUDGETS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.42, 0.35, 0.3, 0.25, 0.2, 0.16, 0.13, 0.1, 0.08, 0.06, 0.05)
RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results" / "falling_budget.json"

WIDTH, HEIGHT, MARGIN, SIDE = 1080, 512, 32, 448
LEFT = MARGIN + SIDE + 40
INK, SOFT, RAIL, BLUE, GREEN = "#16191d", "#5b6470", "#e3e7ee", "#0072B2", "#00755A"
HELD_MS, ENDS_MS = 320, 2200


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Answer the question at every budget in turns, and count what each answer takes."""
    model = AdaLlava.from_pretrained("tiny", method=METHOD, device=args.device, dtype=measured.dtype_of(args))
    scene, question = scene_sample("test", EXAMPLE)
    photo = Image.fromarray(scene.image)
    costs = count_costs(model.config)
    torch.set_num_threads(1)

    inputs = make_inputs(model.processor, [photo], [build_prompt(model.processor, question.text)])

    def answer(budget: float) -> dict[str, float]:
        """Return processor time: with one thread it is the answer's own, however busy the machine is."""
        start = time.process_time()
        model.generate(**inputs, token_budget=budget, max_new_tokens=8)
        return {"cpu": 1000.0 * (time.process_time() - start)}

    turns = take_turns(
        {budget: partial(answer, budget) for budget in BUDGETS},
        warm_ups=args.warm_ups,
        repeats=args.repeats,
        seconds=args.seconds,
    )
    rows = []
    for budget in BUDGETS:
        output = model.ask(photo, question.text, token_budget=budget, max_new_tokens=8)
        (ran,) = output.records
        rows.append(
            {
                "token_budget": budget,
                "answer": output.text[0],
                "tokens_kept": ran.tokens_kept,
                "num_vision_tokens": ran.num_vision_tokens,
                "kept_indices": ran.kept_indices[0],
                "grid": ran.grids[0],
                "flops": count_flops(model, costs, ran, question.text, ran.answer_length),
                "ms": measured.spreads(turns[budget]),
            }
        )
    return measured.figures(
        example=EXAMPLE,
        method=METHOD,
        question=question.text,
        right_answer=question.answer,
        device=args.device,
        torch_threads=torch.get_num_threads(),
        rows=rows,
    )


def draw(made: dict[str, Any], target: Path) -> None:
    """Write an animated WebP with a frame for each budget."""
    photo = Image.fromarray(scene_sample("test", made["example"])[0].image)
    frames = [_frame(photo, made, row) for row in made["rows"]]
    held = [ENDS_MS, *[HELD_MS] * (len(frames) - 2), ENDS_MS]
    frames[0].save(target, save_all=True, append_images=frames[1:], duration=held, loop=0, quality=82, method=6)


def _frame(photo: Image.Image, made: dict[str, Any], row: dict[str, Any]) -> Image.Image:
    frame = Image.new("RGB", (WIDTH, HEIGHT), "white")
    brush = ImageDraw.Draw(frame)
    frame.paste(draw_kept_patches(photo, row["kept_indices"], tuple(row["grid"])), (MARGIN, MARGIN))
    brush.rounded_rectangle((0, 0, WIDTH - 1, HEIGHT - 1), 10, outline=RAIL, width=2)
    full = made["rows"][0]
    right = row["answer"] == made["right_answer"]
    brush.text((LEFT, 30), made["question"], INK, _font(27, bold=True))
    brush.text(
        (LEFT, 74), row["answer"] + ("  ✓" if right else "  ✗"), GREEN if right else "#C2410C", _font(44, bold=True)
    )
    budget, tokens = row["token_budget"], f"{row['tokens_kept']} of {row['num_vision_tokens']}"
    _dial(brush, 160, f"token budget {budget:.2f}", f"{tokens} vision tokens", budget)
    flops, of = (sum(one["flops"].values()) / 1e9 for one in (row, full))
    _dial(brush, 250, "compute", f"{flops:.2f} GFLOPs", flops / of)
    ms, of = (one["ms"]["cpu"]["median"] for one in (row, full))
    _dial(brush, 340, "CPU time", f"{ms:.0f} ms", ms / of)
    notes = (
        f"Bundled model tiny, method {made['method']}, batch 1, float32.",
        f"CPU time: one thread ({made['hardware']['cpu']}), median of {row['ms']['repeats']}.",
    )
    for number, note in enumerate(notes):
        brush.text((LEFT, 436 + 22 * number), note, SOFT, _font(15))
    return frame


def _dial(brush: ImageDraw.ImageDraw, top: int, name: str, value: str, share: float) -> None:
    """Draw a name, a value, and a bar that is full at the full budget."""
    end = WIDTH - MARGIN
    brush.text((LEFT, top), name, INK, _font(20, bold=True))
    brush.text((end, top), value, SOFT, _font(20), anchor="ra")
    brush.rounded_rectangle((LEFT, top + 34, end, top + 50), 8, fill=RAIL)
    brush.rounded_rectangle((LEFT, top + 34, LEFT + max(16, round(share * (end - LEFT))), top + 50), 8, fill=BLUE)


def _font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(findfont(FontProperties(family="DejaVu Sans", weight="bold" if bold else "normal")), size)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    measured.add_arguments(parser, repeats=30)
    parser.add_argument("--draw", type=Path, metavar="FILE.webp", help=f"from {RESULTS.name}, without measuring anew")
    asked = parser.parse_args()
    if asked.draw is None:
        measured.finish(measure(asked), asked.output)
    else:
        draw(json.loads(RESULTS.read_text()), asked.draw)
