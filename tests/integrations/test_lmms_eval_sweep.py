"""`adallava sweep --task lmms:<name>`, with the real lmms-eval and its real `vqav2_val` task over local data."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("lmms_eval")

from vqav2_files import SHORT_PROMPT, TASK, break_second_picture, vqav2_row, write_task

from adallava.cli.main import main
from adallava.doctor import diagnose_run
from adallava.integrations.lmms_eval.lmms_task import load_lmms_task
from adallava.records import Results, SampleRecord, TaskFigures
from adallava.records.read import read_run, read_samples
from adallava.tasks.vqa_accuracy import lmms_vqa_accuracy

pytestmark = pytest.mark.lmms


def command(task_folder, output, task=TASK):
    grid = ["--method", "random,uniform", "--token-budget", "0.25", "--draws", "1", "--batch-size", "4"]
    known = ["--task", f"lmms:{task}", "--include-path", str(task_folder), "--limit", "all"]
    return ["sweep", "--model", "tiny", "--device", "cpu", *known, *grid, "--output", str(output)]


def sweep(task_folder, output, *options, task=TASK):
    return main([*command(task_folder, output, task), *options])


BOTH_DIALS = ("--scheduler", "spaced", "--latency", "1.0,0.5")


def records_of(folder: Path) -> list[SampleRecord]:
    return [SampleRecord.model_validate_json(line) for line in (folder / "samples.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def finished(task_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    assert sweep(task_folder, folder, *BOTH_DIALS) == 0
    return folder


def test_questions_scores_and_lengths_are_the_tasks(finished):
    run = read_run(finished)
    assert (run.config.task, run.config.metric, run.config.split) == (f"lmms:{TASK}", "exact_match", "validation")
    assert run.config.max_new_tokens == 16
    assert run.provenance.versions["lmms-eval"] == "0.7.3"
    records = records_of(finished)
    assert len(records) == 6 * 9
    for record in records:
        row = vqav2_row(int(record.sample_id))
        people = [person["answer"] for person in row["answers"]]
        assert record.question == row["question"] + SHORT_PROMPT
        assert (record.answers, record.kind) == (people, "other")
        assert record.score == pytest.approx(lmms_vqa_accuracy(record.response, people))
    assert {record.score for record in records} == {0.0, 1.0}


def test_lmms_evals_own_figures_are_the_means_of_the_report(finished):
    figures = TaskFigures.model_validate_json((finished / "task_figures.json").read_text())
    results = Results.model_validate_json((finished / "results.json").read_text())
    assert [cell.cell for cell in results.cells] == list(figures.cells)
    for cell in results.cells:
        assert figures.cells[cell.cell] == {"exact_match": pytest.approx(cell.accuracy.mean)}
    assert (finished / "report.html").exists()


@pytest.mark.long
def test_a_report_written_anew_has_the_sweeps_pictures(finished, task_folder, tmp_path, capsys):
    def pictures(page):
        assert "Every sample has its image here." in page.read_text()
        return re.findall(r'"(data:image/jpeg;[^"]+)"', page.read_text())

    anew = ["report", str(finished), "--output", str(tmp_path / "anew.html")]
    assert main([*anew, "--include-path", str(task_folder)]) == 0
    assert pictures(tmp_path / "anew.html") == pictures(finished / "report.html")
    assert len(pictures(tmp_path / "anew.html")) == 9
    assert main(anew) == 0  # the task lies in no place that lmms-eval knows
    assert "has no images: lmms-eval has no task 'vqav2_scenes': " in (said := capsys.readouterr().out)
    assert "--include-path DIR adds your own" in said
    assert "0 of 9 samples have their image here" in (tmp_path / "anew.html").read_text()


@pytest.mark.long
@pytest.mark.parametrize("folder", ["/nowhere", "{tmp}"])
def test_a_folder_without_the_task_leaves_the_page_as_it_is(finished, tmp_path, capsys, folder):
    before = (finished / "report.html").read_bytes()
    assert main(["report", str(finished), "--include-path", folder.format(tmp=tmp_path)]) == 2
    # A caution of the run comes before it.
    assert capsys.readouterr().err.splitlines()[-1].startswith("adallava report: ")
    assert (finished / "report.html").read_bytes() == before


@pytest.mark.long
def test_a_task_that_has_changed_gives_a_report_no_pictures_and_says_so(finished, tmp_path, capsys):
    write_task(tmp_path, 9, lines='lmms_eval_specific_kwargs: {default: {pre_prompt: "Look: "}}\n')
    anew = ["report", str(finished), "--output", str(tmp_path / "anew.html"), "--include-path", str(tmp_path)]
    assert main(anew) == 0
    assert f"lmms:{TASK} has other questions or answers than in the run" in capsys.readouterr().out


def test_the_plug_in_answers_the_same_at_every_budget(finished, task_folder):
    from lmms_eval.evaluator import simple_evaluate
    from lmms_eval.tasks import TaskManager

    known = TaskManager("WARNING", include_path=str(task_folder), model_name="adallava")
    swept = {(record.cell, record.sample_id): record for record in records_of(finished)}
    for method, budget, latency in (("full", "1.0", ""), ("random", "0.25", ""), ("uniform", "0.25", "/spaced@0.5")):
        scheduled = ",scheduler=spaced,latency=0.5" if latency else ""
        results = simple_evaluate(
            model="adallava",
            model_args=f"pretrained=tiny,device=cpu,method={method},token_budget={budget}{scheduled}",
            tasks=[TASK],
            batch_size="3",
            task_manager=known,
        )
        for sample in results["samples"][TASK]:
            record = swept[f"{method}@{budget}{latency}", str(sample["doc_id"])]
            assert sample["filtered_resps"] == [record.response]
            assert sample["exact_match"] == record.score
            assert sample["token_counts"] == [
                {"input_tokens": record.ran.prompt_length, "output_tokens": record.ran.answer_length}
            ]


def test_the_doctor_finds_nothing(finished):
    assert diagnose_run(finished).healthy, diagnose_run(finished).findings


@pytest.mark.long
def test_cut_it_goes_on_and_another_metric_or_prompt_is_another_run(finished, task_folder, tmp_path, capsys):
    def said(folder):
        return [(r.cell, r.sample_id, r.response, r.score) for r in records_of(folder)]

    for file in ("run.json", "samples.jsonl"):
        (tmp_path / file).write_bytes((finished / file).read_bytes())
    whole = (tmp_path / "samples.jsonl").read_bytes()
    (tmp_path / "samples.jsonl").write_bytes(whole[: 2 * len(whole) // 3])
    assert sweep(task_folder, tmp_path, *BOTH_DIALS, "--no-report") == 0
    assert said(tmp_path) == said(finished)
    assert (tmp_path / "task_figures.json").read_text() == (finished / "task_figures.json").read_text()
    write_task(tmp_path / "other", 9, lines='lmms_eval_specific_kwargs: {default: {pre_prompt: "Look: "}}\n')
    assert sweep(tmp_path / "other", tmp_path, *BOTH_DIALS, "--no-report") == 2
    assert "SHA-256 of the task's questions was" in capsys.readouterr().err


@pytest.mark.long
def test_two_processes_answer_and_score_as_one(finished, task_folder, tmp_path):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "adallava"]
    run = subprocess.run(
        [*torchrun, *command(task_folder, tmp_path), *BOTH_DIALS, "--no-report"],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=240,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    clocked = {"batch_ms", "part_ms", "peak_memory_bytes", "cpu_by_others"}
    one, two = ([record.model_dump(exclude=clocked) for record in records_of(f)] for f in (finished, tmp_path))
    assert sorted(two, key=str) == sorted(one, key=str)
    assert (tmp_path / "task_figures.json").read_text() == (finished / "task_figures.json").read_text()


def test_a_sample_that_cannot_be_read_fails_alone(task_folder, tmp_path, capsys):
    name = f"{TASK}_one_broken"
    write_task(tmp_path, 3, name=name)
    break_second_picture(tmp_path, name)
    assert sweep(tmp_path, tmp_path / "run", "--no-report", task=name) == 1
    assert [record.score is None for record in records_of(tmp_path / "run")] == 3 * [False, True, False]
    assert "UnidentifiedImageError" in records_of(tmp_path / "run")[1].error


# ---- what cannot be mapped ----

MULTIPLE_CHOICE = "output_type: multiple_choice\ngeneration_kwargs: null\ndoc_to_choice: ['yes', 'no']\n"


def one_of(*cases):
    """The first case, and the others in `make test-long`: each has lmms-eval read all of its tasks anew."""
    first, *others = cases
    return [first, *(pytest.param(*case, marks=pytest.mark.long) for case in others)]


@pytest.mark.parametrize(
    ("lines", "message"),
    one_of(
        (
            "generation_kwargs: {max_new_tokens: 4, num_beams: 3}\n",
            "asks for {'num_beams': 3}: a sweep answers greedily",
        ),
        ("generation_kwargs: {temperature: 0.7, do_sample: true}\n", "a sweep answers greedily"),
        ("num_fewshot: 2\n", "shows 2 examples before the question"),
        ("description: 'Look closely. '\n", "has a description"),
        (
            "filter_list: [{name: a, filter: [{function: take_first}]}, {name: b, filter: [{function: take_first}]}]\n",
            "scores 2 readings of every response",
        ),
        ("process_results: !function two_pictures.only_text\n", "gives a sample no number, only submission"),
        ("process_results: !function two_pictures.broken\n", "cannot score a response here: KeyError: 'judge'"),
        ("process_results: !function two_pictures.percent\n", "exact_match is 100.0 for sample 0"),
        (
            "doc_to_visual: !function two_pictures.no_picture\n",
            "doc 0 of task lmms:odd is shown as text: only",
        ),
        ("doc_to_text: !function two_pictures.unworded\n", "makes no question for doc 1: KeyError: 'hint'"),
    ),
)
def test_what_cannot_be_mapped_is_refused_with_the_reason(tmp_path, capsys, lines, message):
    (tmp_path / "two_pictures.py").write_text(
        "def no_picture(doc):\n    return []\n"
        "def only_text(doc, results):\n    return {'submission': {'answer': results[0]}}\n"
        "def broken(doc, results):\n    return doc['judge']\n"
        "def percent(doc, results):\n    return {'exact_match': 100.0}\n"
        "def unworded(doc, kwargs):\n    return 'what?' if doc['image_id'] == 1000 else doc['hint']\n"
    )
    write_task(tmp_path, 2, name="odd", lines=lines)
    assert sweep(tmp_path, tmp_path / "run", task="odd") == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.splitlines()[-1].startswith("adallava sweep: ")
    assert not (tmp_path / "run" / "samples.jsonl").exists()


def test_a_sample_with_two_pictures_is_swept(tmp_path):
    (tmp_path / "pairs.py").write_text("def twice(doc):\n    return [doc['image']] * 2\n")
    write_task(tmp_path, 2, name="pairs", lines="doc_to_visual: !function pairs.twice\n")
    sweep(tmp_path, tmp_path / "run", task="pairs")
    records = list(read_samples(tmp_path / "run"))
    assert all(record.error is None and len(record.ran.grids) == 2 for record in records)


@pytest.mark.parametrize(
    ("task", "options", "message"),
    one_of(
        ("vqav2_vall", [], "did you mean 'vqav2_val'"),
        ("vqav2", [], "is a group of tasks"),
        ("vqav2_val", [], "cannot load task vqav2_val"),  # the real one, whose data is not here
        (
            TASK,
            ["--metric", "bleu"],
            "metric bleu gives sample 0 of vqav2_scenes no number; those that do: exact_match",
        ),
        (TASK, ["--split", "test"], "has its own split"),
        (TASK, ["--question-suffix", "?"], "makes its own questions"),
        (TASK, ["--include-path", "/nowhere"], "/nowhere is not a folder"),
    ),
)
def test_a_mistake_in_the_call_is_named(task_folder, tmp_path, capsys, task, options, message):
    assert sweep(task_folder, tmp_path / "run", *options, task=task) == 2
    assert message in capsys.readouterr().err


@pytest.mark.long
def test_a_metric_kept_for_aggregation_gives_its_score(tmp_path):
    (tmp_path / "kept.py").write_text(
        "def by_category(doc, results):\n"
        "    name = 'first' if doc['image_id'] == 1000 else 'second'\n"
        "    return {name: {'question_id': doc['question_id'], 'score': 0.5}}\n"
        "def add(values):\n    return 100.0 * sum(value['score'] for value in values)\n"
    )
    metrics = "".join(f"  - {{metric: {name}, aggregation: !function kept.add}}\n" for name in ("first", "second"))
    lines = f"process_results: !function kept.by_category\nmetric_list:\n{metrics}"
    write_task(tmp_path, 3, name="kept_task", lines=lines)
    task = load_lmms_task("kept_task", include_path=tmp_path)
    assert task.metric == "first/second"
    assert load_lmms_task("kept_task", metric=task.metric, include_path=tmp_path).metric == task.metric
    assert [task.score(sample, "yes") for sample in task.samples] == [0.5, 0.5, 0.5]
    assert task.aggregate({sample.id: "yes" for sample in task.samples}) == {"first": 50.0, "second": 100.0}
    assert json.dumps(task.sha256)
