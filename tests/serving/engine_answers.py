"""Answers of one vLLM engine, in a process of its own: reads what to ask from a file, writes the answers to another.

python engine_answers.py ASKED.json ANSWERS.json
"""

import json
import sys
from pathlib import Path
from typing import Any

from PIL import Image


def main(asked: dict[str, Any]) -> list[dict[str, Any]]:
    """Return prompt tokens, ids and log-probabilities of each answer, round by round."""
    import torch
    from vllm import LLM, SamplingParams

    llm = LLM(dtype="float32", enforce_eager=True, gpu_memory_utilization=0.1, max_num_seqs=8, **asked["engine"])
    sampling = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True, logprobs=1)
    answers = []
    for _ in range(asked["rounds"]):
        for output in llm.generate([_request(one, torch) for one in asked["requests"]], sampling, use_tqdm=False):
            first = output.outputs[0]
            chances = [step[token].logprob for step, token in zip(first.logprobs, first.token_ids, strict=True)]
            answers.append({"prompt": len(output.prompt_token_ids), "ids": list(first.token_ids), "logprobs": chances})
    return answers


def _request(one: dict[str, Any], torch: Any) -> dict[str, Any]:
    if "rows" in one:
        image: Any = torch.load(one["rows"], weights_only=True)
    else:
        image = [Image.open(path).convert("RGB") for path in one["pictures"]]
    request = {"prompt": one["prompt"], "multi_modal_data": {"image": image}}
    if "token_budget" in one:
        request["mm_processor_kwargs"] = {"token_budget": one["token_budget"]}
    return request


if __name__ == "__main__":
    answers = main(json.loads(Path(sys.argv[1]).read_text()))
    Path(sys.argv[2]).write_text(json.dumps(answers))
