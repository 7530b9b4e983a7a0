"""What families of pictures at their own size are all asked, with three pictures of different sizes."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from models import tiny_image

from adallava import AdaLlava
from adallava.cli.main import main

TURNS: list[dict[str, Any]] = [
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": [{"type": "image"}, {"type": "image"}, {"type": "text", "text": "which?"}]},
    {"role": "assistant", "content": [{"type": "text", "text": "the first"}]},
    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "and this?"}]},
]


def check_turns(model: AdaLlava, pictures: Any, grids: Sequence[tuple[int, int]]) -> dict[str, Any]:
    """Hold a talk over three pictures to the stock model's answer, and return it as the processor makes it.

    Args:
        model: with its processor.
        pictures: as its processor takes them.
        grids: of each picture's tokens.
    """
    text = model.processor.apply_chat_template(TURNS, add_generation_prompt=True)
    inputs = dict(model.processor(images=pictures, text=[text], return_tensors="pt"))
    output = model.generate(**inputs, max_new_tokens=4, do_sample=False)
    assert output.records[0].grids == tuple(grids)
    assert torch.equal(output.sequences, model.base.generate(**inputs, max_new_tokens=4, do_sample=False))
    return inputs


def check_commands(folder: Path, sizes: Sequence[tuple[int, int]], capsys: pytest.CaptureFixture[str]) -> None:
    """Run the commands over a model's folder; the first two pictures have 32 tokens together.

    Args:
        folder: of the model; what is written goes beside it.
        sizes: (width, height) of pictures.
        capsys: of the test.
    """
    beside = folder.parent
    for number, size in enumerate(sizes):
        tiny_image(number, size).save(beside / f"{number}.png")
    common = ["--model", str(folder), "--method", "question", "--device", "cpu", "--token-budget", "1.0", "0.25"]
    ask = ["--image", str(beside / "0.png"), str(beside / "1.png"), "--question", "why?", "--json"]
    assert main(["generate", *common, *ask, "--max-new-tokens", "2", "--output-image", str(beside / "k.png")]) == 0
    assert [each["tokens_kept"] for each in json.loads(capsys.readouterr().out)["results"]] == [32, 8]
    assert (beside / "k.png").exists()
    assert main(["sweep", *common, "--limit", "3", "--max-new-tokens", "2", "--output", str(beside / "run")]) == 0
    lines = [json.loads(line) for line in (beside / "run" / "samples.jsonl").read_text().splitlines()]
    assert all(line["flops"]["vision"] > 0 and not line.get("error") for line in lines)
    assert main(["doctor", "--model", str(folder), "--method", "question", "--device", "cpu"]) == 0
    assert main(["report", str(beside / "run")]) == 0
