"""lmms-eval's own `--model vllm` with the plug-in: the figures of `--model adallava` at the same K and positions."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

if find_spec("vllm") is None:
    pytest.skip("needs vLLM", allow_module_level=True)
if find_spec("lmms_eval") is None:
    pytest.skip("needs lmms-eval", allow_module_level=True)

from vllm_server import QUIET
from vqav2_files import TASK, write_task

from adallava.checkpoints.bundled import model_folder

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.long,
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("default"),
]


def _evaluated(folder: Path, model: str, model_args: str, **environment: str) -> tuple[list[str], float]:
    """Return the answers by document, and the task's figure."""
    output = folder / model
    arguments = ["--tasks", TASK, "--include_path", str(folder / "tasks"), "--batch_size", "4", "--log_samples"]
    command = [sys.executable, "-m", "lmms_eval", "--model", model, "--model_args", model_args, *arguments]
    offline = {"HF_DATASETS_OFFLINE": "1", "LMMS_EVAL_DATASETS_CACHE": str(folder / "datasets")}
    ran = subprocess.run(
        [*command, "--output_path", str(output)],
        env={**os.environ, **QUIET, **offline, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    (samples,) = output.rglob(f"*_samples_{TASK}.jsonl") or [None]
    assert samples is not None, ran.stdout[-2000:] + ran.stderr[-4000:]
    lines = sorted((json.loads(line) for line in samples.read_text().splitlines()), key=lambda line: line["doc_id"])
    answers = [line["filtered_resps"] for line in lines]
    return [one if isinstance(one, str) else one[0] for one in answers], sum(line["exact_match"] for line in lines)


def test_figures_are_those_of_our_own_plug_in(tmp_path: Path) -> None:
    (tmp_path / "tasks").mkdir()
    write_task(tmp_path / "tasks", 9)
    engine = "gpu_memory_utilization=0.1,dtype=float32,enforce_eager=True,max_model_len=512,max_num_seqs=4"
    own = "pretrained=tiny,method=question,token_budget=16,positions=compact"
    expected = _evaluated(tmp_path, "adallava", own)
    budget = {"ADALLAVA_METHOD": "question", "ADALLAVA_TOKEN_BUDGET": "16", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    found = _evaluated(tmp_path, "vllm", f"model={model_folder('tiny')},{engine}", **budget)
    assert found == expected
    assert len(found[0]) == 9
    assert found[1] > 0
