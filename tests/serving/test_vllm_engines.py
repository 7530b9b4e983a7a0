"""vLLM's engine with the plug-in beside our own answers, and beside stock vLLM."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

if find_spec("vllm") is None:
    pytest.skip("needs vLLM", allow_module_level=True)

from qwen_for_vllm import qwen_for_vllm
from vllm_server import QUIET

from adallava import AdaLlava
from adallava.checkpoints.bundled import model_folder
from adallava.model import build_prompt
from adallava.tasks.scenes import scene_sample

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.long,
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("default"),
]

SIZES = [(32, 32), (16, 64), (40, 16), (64, 16)]
"""(width, height); the second has fewer columns than rows."""

_Request = dict[str, Any]


def _engine(folder: Path, requests: Sequence[_Request], method: str | None, engine: dict[str, Any]) -> Any:
    """Return the process, once it has ended."""
    asked = {"requests": list(requests), "engine": engine, "rounds": 2}
    (folder / "asked.json").write_text(json.dumps(asked))
    environment = {**os.environ, **QUIET, "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    environment |= {"VLLM_PLUGINS": ""} if method is None else {"ADALLAVA_METHOD": method}
    script = Path(__file__).parent / "engine_answers.py"
    command = [sys.executable, str(script), str(folder / "asked.json"), str(folder / "answers.json")]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def _answers(folder: Path, requests: Sequence[_Request], method: str | None, **engine: Any) -> list[Any]:
    ran = _engine(folder, requests, method, engine)
    assert ran.returncode == 0, ran.stderr[-4000:]
    return json.loads((folder / "answers.json").read_text())


@pytest.mark.parametrize("chunk", [256, 16])
@pytest.mark.parametrize("kind", ["qwen2_5_vl", "qwen3_vl"])
def test_qwen_answers_are_our_own_at_original_positions(kind: str, chunk: int, tmp_path: Path) -> None:
    """One picture and two, whole or in chunks of 16 tokens that cut pictures, and from the prefix cache."""
    model_folder = qwen_for_vllm(kind, tmp_path / "model")
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 255, (h, w, 3), dtype=np.uint8)) for w, h in SIZES]
    for number, picture in enumerate(pictures):
        picture.save(tmp_path / f"{number}.png")
    ours = AdaLlava.from_pretrained(model_folder, method="question")
    requests, expected = [], []
    for images in ([0], [1], [2], [3], [0, 1]):
        marks = "<|vision_start|><|image_pad|><|vision_end|>" * len(images)
        prompt = f"<|im_start|>user\n{marks}what is this?<|im_end|>\n<|im_start|>assistant\n"
        inputs = ours.processor(images=[pictures[i] for i in images], text=[prompt], return_tensors="pt")
        for budget in (3, 0.5, 1.0):
            paths = [str(tmp_path / f"{i}.png") for i in images]
            requests.append({"prompt": prompt, "pictures": paths, "token_budget": budget})
            output = ours.generate(**inputs, token_budget=[budget], max_new_tokens=8, min_new_tokens=8)
            expected.append(output.sequences[0][-8:].tolist())
    limits = {"limit_mm_per_prompt": {"image": 2, "video": 0}, "max_model_len": 256, "max_num_batched_tokens": chunk}
    answers = _answers(tmp_path, requests, "question", model=str(model_folder), **limits)
    assert [answer["ids"] for answer in answers] == 2 * expected


@pytest.mark.parametrize("method", ["visionzip", "random"])
def test_methods_that_read_no_question_keep_our_rows(method: str, tmp_path: Path) -> None:
    """Several questions about one picture, which share its rows, at budgets that do not."""
    ours = AdaLlava.from_pretrained("tiny", method=method)
    scene = scene_sample("test", 6)[0]
    Image.fromarray(scene.image).save(tmp_path / "0.png")
    requests, expected = [], []
    for number in range(6, 10):
        prompt = build_prompt(ours.processor, scene_sample("test", number)[1].text)
        inputs = ours.processor(images=[scene.image], text=[prompt], return_tensors="pt")
        for budget in (9, 0.25, 1.0):
            requests.append({"prompt": prompt, "pictures": [str(tmp_path / "0.png")], "token_budget": budget})
            expected.append(
                ours.generate(**inputs, token_budget=[budget], positions="compact", max_new_tokens=8).text[0]
            )
    engine = {"max_model_len": 512, "limit_mm_per_prompt": {"image": 1}}
    answers = _answers(tmp_path, requests, method, model=str(model_folder("tiny")), **engine)
    assert _texts(ours, answers) == 2 * expected


def _texts(ours: AdaLlava, answers: Sequence[Any]) -> list[str]:
    """Return answers up to their end, which the engine was told to go past."""
    end, tokenizer = ours.base.generation_config.eos_token_id, ours.processor.tokenizer
    return [tokenizer.decode(answer["ids"][: [*answer["ids"], end].index(end)]) for answer in answers]


def _old_names(folder: Path) -> Path:
    """Return the bundled model under the names that stock vLLM reads."""
    folder.mkdir()
    for path in model_folder("tiny").iterdir():
        if path.is_file() and path.name != "model.safetensors":
            (folder / path.name).write_bytes(path.read_bytes())
    tensors = load_file(model_folder("tiny") / "model.safetensors")
    renamed = {name.replace("vision_tower.", "vision_tower.vision_model."): one for name, one in tensors.items()}
    save_file(renamed, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_everything_kept_is_stock_vllm_and_rows_are_taken_from_elsewhere(tmp_path: Path) -> None:
    """Stock vLLM without any plug-in, beside ours at K = N; and stock vLLM on rows that we chose."""
    ours = AdaLlava.from_pretrained("tiny", method="question")
    whole, rows, expected = [], [], []
    for number in range(6, 12):
        scene, question = scene_sample("test", number)
        Image.fromarray(scene.image).save(tmp_path / f"{number}.png")
        prompt = build_prompt(ours.processor, question.text)
        whole.append({"prompt": prompt, "pictures": [str(tmp_path / f"{number}.png")]})
        inputs = ours.processor(images=[scene.image], text=[prompt], return_tensors="pt")
        (chosen,) = ours.select(**inputs, token_budget=16)
        places = torch.tensor(chosen.kept_indices[0])
        with torch.no_grad():
            features = ours.base.get_image_features(inputs["pixel_values"], return_dict=True).pooler_output[0]
        torch.save(features[places][None], tmp_path / f"{number}.pt")
        rows.append({"prompt": prompt, "rows": str(tmp_path / f"{number}.pt")})
        output = ours.generate(**inputs, token_budget=[16], positions="compact", max_new_tokens=8)
        expected.append(output.text[0])
    engine = {"max_model_len": 512, "limit_mm_per_prompt": {"image": 1}}
    stock_model = str(_old_names(tmp_path / "old"))
    stock = _answers(tmp_path, whole + rows, None, model=stock_model, enable_mm_embeds=True, **engine)
    budgeted = [{**one, "token_budget": 1.0} for one in whole]
    plugged = _answers(tmp_path, whole + budgeted, "question", model=str(model_folder("tiny")), **engine)
    count = len(whole)
    assert plugged[:count] == stock[:count]
    assert plugged[count : 2 * count] == stock[:count]
    assert _texts(ours, stock[count : 2 * count]) == expected


def test_a_server_that_could_not_keep_its_word_does_not_start(tmp_path: Path) -> None:
    ran = _engine(tmp_path, [], "fastv", {"model": str(model_folder("tiny"))})
    assert ran.returncode != 0
    assert "drops tokens between layers of the LLM" in ran.stderr.splitlines()[-1]
