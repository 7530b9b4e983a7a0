"""Further built-in tasks of lmms-eval, by the plug-in and by a sweep, on rows of our own."""

import contextlib
import json

import pytest

pytest.importorskip("lmms_eval")

from built_in_tasks import BUILT_IN, write_several

from adallava import AdaLlava
from adallava.cli.main import main
from adallava.model import build_prompt
from adallava.records import SampleRecord, TaskFigures
from adallava.tasks.images import as_rgb

pytestmark = [pytest.mark.lmms, pytest.mark.long]

METRICS = {
    "textvqa_val": {"exact_match"},
    "gqa": {"exact_match"},
    "pope": {"pope_accuracy", "pope_precision", "pope_recall", "pope_f1_score", "pope_yes_ratio"},
    "mme": {"mme_perception_score", "mme_cognition_score"},
    "vizwiz_vqa_val": {"exact_match"},
    "scienceqa_img": {"exact_match"},
    "scienceqa": {"exact_match"},
    "several_pictures": {"exact_match"},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("built_in")
    write_several(folder, 4)
    return folder


@pytest.fixture(scope="module")
def manager(folder):
    from lmms_eval.tasks import TaskManager

    return TaskManager("ERROR", include_path=str(folder), model_name="adallava")


@pytest.fixture(scope="module")
def results(manager, tmp_path_factory):
    """All tasks in one run of the plug-in."""
    from lmms_eval.evaluator import simple_evaluate

    # TextVQA's metrics write a file to hand in, into the working directory.
    with contextlib.chdir(tmp_path_factory.mktemp("submissions")):
        return simple_evaluate(
            model="adallava",
            model_args="pretrained=tiny,device=cpu,method=uniform,token_budget=0.25",
            tasks=[f"local_{name}" for name in BUILT_IN],
            batch_size="4",
            task_manager=manager,
        )


def samples_of(results, name):
    return sorted(results["samples"][f"local_{name}"], key=lambda sample: sample["doc_id"])


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_task_is_answered_as_the_model_answers_its_question_alone(results, manager, name):
    from lmms_eval.tasks import get_task_dict

    task = get_task_dict([f"local_{name}"], manager, "chat")[f"local_{name}"]
    model = AdaLlava.from_pretrained("tiny", method="uniform", device="cpu")
    samples = samples_of(results, name)
    assert len(samples) == 4
    for sample in samples:
        doc = task.eval_docs[sample["doc_id"]]
        pictures = [as_rgb(picture) for picture in task.doc_to_visual(doc)]
        prompt = build_prompt(model.processor, task.doc_to_text(doc), len(pictures))
        inputs = model.processor(images=pictures or None, text=[prompt], return_tensors="pt")
        output = model.generate(**inputs, token_budget=0.25, max_new_tokens=128, do_sample=False)
        assert output.text[0]
        assert sample["filtered_resps"] == [output.text[0].partition("ASSISTANT:")[0].strip()]
        assert sample["token_counts"][0]["input_tokens"] == output.prompt_lengths[0]
    assert {metric.split(",")[0] for metric in results["results"][f"local_{name}"] if "," in metric} >= METRICS[name]


def test_a_task_may_have_samples_without_a_picture(results):
    with_pictures, without = samples_of(results, "scienceqa_img"), samples_of(results, "scienceqa")
    shorter = [
        one["token_counts"][0]["input_tokens"] - other["token_counts"][0]["input_tokens"]
        for one, other in zip(with_pictures, without, strict=True)
    ]
    assert shorter[1::2] == [0, 0]
    assert shorter[0] == shorter[2] >= 64  # a quarter of 256 vision tokens, and the words around them


@pytest.mark.parametrize("name", ["textvqa_val", "mme"])
def test_a_sweep_answers_and_scores_as_the_plug_in(results, folder, tmp_path, name):
    grid = ["--method", "uniform", "--token-budget", "0.25", "--limit", "all", "--no-report", "--device", "cpu"]
    known = ["--task", f"lmms:local_{name}", "--include-path", str(folder), "--model", "tiny"]
    assert main(["sweep", *known, *grid, "--output", str(tmp_path)]) == 0
    records = [SampleRecord.model_validate_json(line) for line in (tmp_path / "samples.jsonl").read_text().splitlines()]
    swept = {record.sample_id: record for record in records if record.cell == "uniform@0.25"}
    samples = samples_of(results, name)
    assert [swept[str(sample["doc_id"])].response for sample in samples] == [s["filtered_resps"][0] for s in samples]
    for sample in samples:
        values = [sample[metric] for metric in METRICS[name] if metric in sample]
        assert swept[str(sample["doc_id"])].score in [v["score"] if isinstance(v, dict) else v for v in values]
    assert any(record.score for record in swept.values())
    figures = TaskFigures.model_validate_json((tmp_path / "task_figures.json").read_text()).cells["uniform@0.25"]
    own = results["results"][f"local_{name}"]
    assert figures == {metric: pytest.approx(own[f"{metric},none"]) for metric in METRICS[name]}
    assert json.loads((tmp_path / "run.json").read_text())["config"]["max_new_tokens"] == (
        16 if name == "mme" else 1024
    )
