"""LLaVA-NeXT with the real lmms-eval, by the plug-in and by a sweep: pictures of several shapes, so ragged N."""

from io import BytesIO

import pytest

pytest.importorskip("lmms_eval")

from built_in_tasks import write_built_in
from models import tiny_image
from tiny_next import NEXT_SIZES, tiny_next
from vqav2_files import SHORT_PROMPT, vqav2_row

from adallava import AdaLlava
from adallava.cli.main import main
from adallava.integrations.lmms_eval.lmms_model import AdaLlavaLmms
from adallava.model import build_prompt
from adallava.records import SampleRecord

pytestmark = [pytest.mark.lmms, pytest.mark.long]

TASK = "vqav2_shapes"
NUM_SAMPLES = 4


def shape(index):
    return NEXT_SIZES[index % len(NEXT_SIZES)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shapes")
    rows = []
    for index in range(NUM_SAMPLES):
        file = BytesIO()
        tiny_image(index, shape(index)).save(file, "PNG")
        rows.append({**vqav2_row(index), "image": {"bytes": file.getvalue(), "path": None}})
    return write_built_in(folder, "vqav2/vqav2_val.yaml", rows, split="validation", name=TASK)


@pytest.fixture(scope="module")
def next_model(tmp_path_factory):
    return tiny_next(tmp_path_factory.mktemp("next"))


@pytest.fixture(scope="module")
def answered(folder, next_model):
    """By the plug-in, in batches."""
    from lmms_eval.evaluator import simple_evaluate
    from lmms_eval.tasks import TaskManager

    model = AdaLlavaLmms(str(next_model), method="question", token_budget=0.25, batch_size="3", device="cpu")
    known = TaskManager("ERROR", include_path=str(folder), model_name="adallava")
    results = simple_evaluate(model=model, tasks=[TASK], task_manager=known)
    return sorted(results["samples"][TASK], key=lambda sample: sample["doc_id"])


def test_a_batch_of_several_shapes_gives_what_each_gives_alone(answered, next_model):
    model = AdaLlava.from_pretrained(str(next_model), method="question", device="cpu")
    kept = []
    for index, sample in enumerate(answered):
        prompt = build_prompt(model.processor, vqav2_row(index)["question"] + SHORT_PROMPT)
        inputs = model.processor(images=[tiny_image(index, shape(index))], text=[prompt], return_tensors="pt")
        output = model.generate(**inputs, token_budget=0.25, max_new_tokens=16, do_sample=False)
        counts = {"input_tokens": output.prompt_lengths[0], "output_tokens": output.answer_lengths[0]}
        assert sample["filtered_resps"] == [output.text[0].strip()]
        assert sample["filtered_resps"] != [""]
        assert sample["token_counts"] == [counts]
        kept.append(output.records[0].tokens_kept)
    assert len(answered) == NUM_SAMPLES
    assert len(set(kept)) == len(NEXT_SIZES)


def test_a_sweep_gives_what_the_plug_in_gives(answered, folder, next_model, tmp_path):
    grid = ["--method", "question", "--token-budget", "0.25", "--limit", "all", "--batch-size", "3", "--no-report"]
    known = ["--task", f"lmms:{TASK}", "--include-path", str(folder), "--model", str(next_model), "--device", "cpu"]
    assert main(["sweep", *known, *grid, "--output", str(tmp_path)]) == 0
    records = [SampleRecord.model_validate_json(line) for line in (tmp_path / "samples.jsonl").read_text().splitlines()]
    swept = {record.sample_id: record for record in records if record.cell == "question@0.25"}
    for sample in answered:
        record = swept[str(sample["doc_id"])]
        assert sample["filtered_resps"] == [record.response.strip()]
        assert (sample["exact_match"], sample["token_counts"][0]["input_tokens"]) == (
            record.score,
            record.ran.prompt_length,
        )
