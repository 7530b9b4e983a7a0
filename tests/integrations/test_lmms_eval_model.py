"""`python -m lmms_eval --model adallava`, with the real lmms-eval and its real `vqav2_val` task over local data."""

import json
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest

pytest.importorskip("lmms_eval")

from loguru import logger
from PIL import Image
from vqav2_files import SHORT_PROMPT, TASK, break_second_picture, vqav2_row, write_task

from adallava import AdaLlava
from adallava.integrations.lmms_eval.lmms_model import AdaLlavaLmms, RunFailed
from adallava.model import build_prompt
from adallava.tasks.images import as_rgb
from adallava.tasks.scenes import scene_sample
from adallava.tasks.vqa_accuracy import lmms_vqa_accuracy

pytestmark = pytest.mark.lmms

NUM_SAMPLES = 9
FEW = {"limit": 3}
"""Samples, for what is said and kept of each."""
MODEL_ARGS = "pretrained=tiny,method=random,token_budget=0.25,latency=1.0"


def written(output: Path) -> tuple[dict, list[dict]]:
    """Return the results file and the lines of the samples file, by document."""
    (results,) = output.rglob("*_results.json")
    (samples,) = output.rglob(f"*_samples_{TASK}.jsonl")
    lines = [json.loads(line) for line in samples.read_text().splitlines()]
    return json.loads(results.read_text()), sorted(lines, key=lambda line: line["doc_id"])


@pytest.fixture(scope="module")
def batched(run_lmms_eval, tmp_path_factory):
    output = tmp_path_factory.mktemp("batched")
    done = run_lmms_eval(
        *("--model_args", MODEL_ARGS, "--tasks", TASK, "--batch_size", "4", "--output_path", str(output))
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return output


@pytest.fixture(scope="module")
def alone():
    """Every question asked of the model directly, one at a time."""
    from adallava.records.cells import sample_seed

    model = AdaLlava.from_pretrained("tiny", method="random", device="cpu")
    outputs = []
    for index in range(NUM_SAMPLES):
        scene, question = scene_sample("test", index)
        inputs = model.processor(
            images=[as_rgb(Image.fromarray(scene.image))],
            text=[build_prompt(model.processor, question.text + SHORT_PROMPT)],
            return_tensors="pt",
        )
        seed = sample_seed(0, str(index))
        outputs.append(model.generate(**inputs, token_budget=0.25, seed=seed, max_new_tokens=16, do_sample=False))
    return outputs


@cache
def known_tasks(task_folder):
    """Read the YAML files of all tasks, which takes seconds, once."""
    from lmms_eval.tasks import TaskManager

    return TaskManager("WARNING", include_path=str(task_folder), model_name="adallava")


def evaluate(task_folder, model_args: str = MODEL_ARGS, *, model=None, batch_size: str = "4", tasks=(TASK,), **options):
    """Run lmms-eval in this process; return the samples of the first task by document."""
    from lmms_eval.evaluator import simple_evaluate

    results = simple_evaluate(
        model=model or "adallava",
        model_args=model_args,
        tasks=list(tasks),
        batch_size=batch_size,
        task_manager=known_tasks(task_folder),
        **options,
    )
    return sorted(results["samples"][tasks[0]], key=lambda sample: sample["doc_id"])


@contextmanager
def logged():
    """Collect the lines that this project logs at INFO."""
    import lmms_eval.evaluator  # noqa: F401  - its modules take every sink off the log when they are imported

    lines: list[str] = []
    sink = logger.add(lines.append, format="{message}", level="INFO", filter="adallava")
    yield lines
    logger.remove(sink)


def responses(samples) -> list[str]:
    return [s["filtered_resps"] if isinstance(s["filtered_resps"], str) else s["filtered_resps"][0] for s in samples]


def test_the_samples_file_holds_what_the_model_answers_alone(batched, alone):
    _, samples = written(batched)
    assert [line["doc_id"] for line in samples] == list(range(NUM_SAMPLES))
    assert all(responses(samples))
    assert responses(samples) == [output.text[0] for output in alone]
    assert [line["token_counts"] for line in samples] == [
        [{"input_tokens": output.prompt_lengths[0], "output_tokens": output.answer_lengths[0]}] for output in alone
    ]


def test_the_scores_are_the_vqa_accuracy_of_this_project_and_the_results_file_their_mean(batched):
    results, samples = written(batched)
    for line in samples:
        people = [person["answer"] for person in vqav2_row(line["doc_id"])["answers"]]
        assert line["exact_match"] == pytest.approx(lmms_vqa_accuracy(line["filtered_resps"], people))
        assert line["input"] == vqav2_row(line["doc_id"])["question"] + SHORT_PROMPT
    scores = [line["exact_match"] for line in samples]
    assert 0 < sum(scores) < NUM_SAMPLES
    assert results["results"][TASK]["exact_match,none"] == pytest.approx(sum(scores) / NUM_SAMPLES)
    assert results["config"]["model_args"] == MODEL_ARGS
    assert results["throughput"]["avg_mean_tokens_kept"] == 64


def test_a_batch_gives_what_each_gives_alone(batched, task_folder):
    assert responses(evaluate(task_folder, batch_size="1")) == responses(written(batched)[1])


TORCHRUN = ("torch.distributed.run", "--standalone", "--nproc-per-node=2")
ACCELERATE = ("accelerate.commands.launch", "--multi_gpu", "--num_processes=2", "--main_process_port=0")
"""`--multi_gpu` is what starts several processes, also without a GPU; with `--cpu` it starts one."""


@pytest.mark.long
@pytest.mark.parametrize(
    "launcher",
    [pytest.param(TORCHRUN, id="torchrun"), pytest.param(ACCELERATE, id="accelerate", marks=pytest.mark.long)],
)
def test_two_processes_give_what_one_gives(batched, run_lmms_eval, tmp_path, launcher):
    arguments = ("--model_args", MODEL_ARGS, "--tasks", TASK, "--batch_size", "2", "--output_path", str(tmp_path))
    done = run_lmms_eval(*arguments, launcher=launcher)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Running on rank 1 (local rank 1)" in done.stdout + done.stderr
    (one_results, one), (two_results, two) = written(batched), written(tmp_path)
    assert [line["doc_id"] for line in two] == list(range(NUM_SAMPLES))
    for field in ("filtered_resps", "exact_match", "token_counts"):
        assert [line[field] for line in two] == [line[field] for line in one]
    assert two_results["results"][TASK]["exact_match,none"] == one_results["results"][TASK]["exact_match,none"]
    # Over both, and without the tenth request, which fills up the second's share.
    for figure in ("num_answers", "num_empty", "mean_tokens_kept", "mean_prompt_length"):
        assert two_results["throughput"][f"avg_{figure}"] == one_results["throughput"][f"avg_{figure}"]
    assert two_results["throughput"]["avg_num_answers"] == NUM_SAMPLES


def test_one_model_may_be_evaluated_twice(batched, task_folder):
    model = AdaLlavaLmms.create_from_arg_string(MODEL_ARGS, {"batch_size": "4", "device": "cpu"})
    expected = responses(written(batched)[1])[: FEW["limit"]]
    assert responses(evaluate(task_folder, model=model, **FEW)) == expected
    assert responses(evaluate(task_folder, model=model, **FEW)) == expected


def test_a_cache_is_kept_apart_by_budget_and_method(task_folder, tmp_path, monkeypatch):
    variants = [MODEL_ARGS, MODEL_ARGS.replace("0.25", "1.0"), MODEL_ARGS.replace("random", "uniform")]
    uncached = [responses(evaluate(task_folder, variant)) for variant in variants]
    assert len({tuple(answers) for answers in uncached}) == 3
    for _ in range(2):
        cached = [responses(evaluate(task_folder, v, use_cache=str(tmp_path))) for v in variants]
        assert cached == uncached
        # The second time nothing may be left to answer.
        monkeypatch.setattr(AdaLlava, "generate", None)


def test_a_latency_runs_part_of_the_layers_and_is_kept_apart_in_the_cache(task_folder, tmp_path):
    cheap = f"{MODEL_ARGS.replace('latency=1.0', 'latency=5')},scheduler=first,verbose=true"
    with logged() as lines:
        answers = responses(evaluate(task_folder, cheap, use_cache=str(tmp_path)))
    assert all(" 5 layers run: " in line for line in lines)
    assert len(lines) == NUM_SAMPLES
    assert answers != responses(evaluate(task_folder, use_cache=str(tmp_path)))


def test_a_schedulers_options_are_arguments_with_its_prefix(task_folder):
    args = MODEL_ARGS.replace("latency=1.0", "latency=3") + ",verbose=true,"
    with logged() as lines:
        evaluate(task_folder, args + "scheduler=spaced,scheduler_prefix_layers=2", **FEW)
        evaluate(task_folder, args + "scheduler=fixed,scheduler_prefix_layers=2,scheduler_plans=6/4+7", **FEW)
    assert len(lines) == 2 * FEW["limit"]
    assert all(" 3 layers run: " in line for line in lines)


def test_a_line_is_logged_for_every_sample_where_asked_for(task_folder):
    with logged() as lines:
        evaluate(task_folder, **FEW)
        assert lines == []
        evaluate(task_folder, MODEL_ARGS + ",verbose=true", **FEW)
    assert len(lines) == FEW["limit"]
    assert lines[0].startswith(f"{TASK} doc 0: random at 0.25, 64 of 256 vision tokens kept, prompt ")
    assert " layers run: '" in lines[0]


# ---- failures ----


@pytest.fixture(scope="module")
def broken_task(task_folder):
    """Three questions; the picture of the second, which of two processes is the second's, cannot be read."""
    name = f"{TASK}_broken"
    write_task(task_folder, 3, name=name)
    break_second_picture(task_folder, name)
    return name


@pytest.mark.long
@pytest.mark.parametrize(
    "launcher", [pytest.param((), id="one"), pytest.param(TORCHRUN, id="torchrun", marks=pytest.mark.long)]
)
def test_a_picture_that_cannot_be_read_fails_the_command_and_leaves_no_score(
    run_lmms_eval, broken_task, tmp_path, launcher
):
    arguments = ("--model_args", MODEL_ARGS, "--tasks", broken_task, "--output_path", str(tmp_path))
    done = run_lmms_eval(*arguments, launcher=launcher)
    assert done.returncode == 1
    (said,) = (line for line in done.stderr.splitlines() if line.startswith("adallava: "))
    assert said.startswith(f"adallava: {broken_task} doc 1 cannot be read: UnidentifiedImageError: ")
    assert launcher or "Traceback" not in done.stderr  # torchrun adds one of its own
    assert not list(tmp_path.rglob("*.json*"))


@pytest.mark.parametrize(
    ("model_args", "options", "message"),
    [
        ("pretrained=tiny,latency=0.5", {}, "latency=0.5 leaves layers of the LLM out: give a scheduler"),
        ("pretrained=tiny,latency=1.5,scheduler=first", {}, "latency 1.5 is out of range"),
        ("pretrained=tiny,latency=0.9,scheduler=frist", {}, "did you mean 'first'"),
        ("pretrained=tiny,scheduler_plans=6", {}, "scheduler_plans without a scheduler: give scheduler="),
        ("pretrained=tiny,latency=0.5,scheduler=first,scheduler_plan=6", {}, "'first' does not take these options"),
        ("pretrained=tiny,method=uniform,token_budget=1.5", {}, "token budget 1.5 is out of range"),
        ("pretrained=tiny,token_budget=0.5", {}, "method=full, which keeps every token"),
        ("pretrained=tiny,method=unifrom", {}, "did you mean 'uniform'"),
        ("pretrained=tiny,method=uniform,tokenbudget=0.5", {}, "tokenbudget"),
        ("pretrained=tiny,latancy=0.5", {}, "latancy (did you mean latency?) is not an argument here"),
        ("pretrained=tiny,method=uniform,token_budget=0", {}, "token budget 0 is out of range"),
        ("pretrained=tiny,method=uniform,token_budget=half", {}, "token budget 'half' is not a number"),
        ("pretrained=tiny,latency=2", {}, "latency=2 leaves layers of the LLM out: give a scheduler"),
        ("pretrained=tiny,layers=4,latency=0.5,scheduler=first", {}, "layers is not an argument here"),
        ("pretrained=tiny,verbose=yes", {}, "verbose='yes' is refused"),
        ("method=uniform", {}, "names no model"),
        ("pretrained", {}, "write name=value"),
        ("pretrained=tiny,batch_size=4", {"batch_size": "1"}, "batch_size=4 is one of --model_args, and --batch_size"),
        ("pretrained=tiny,device=cuda:77", {}, "cuda:77"),
        ("pretrained=/nowhere", {}, "/nowhere"),
        ("pretrained=tiny", {"batch_size": "auto"}, "batch_size='auto' is not supported"),
    ],
)
def test_what_is_not_supported_is_refused_with_the_reason_and_exit_code_1(model_args, options, message):
    with pytest.raises(RunFailed, match="adallava: ") as failed:
        AdaLlavaLmms.create_from_arg_string(model_args, options)
    assert message in str(failed.value)
    assert "\n" not in str(failed.value)
    assert not isinstance(failed.value, Exception)  # lmms-eval would catch it and exit with 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"system_instruction": "Be brief. "}, "'Be brief. ' should come before the question"),
        ({"apply_chat_template": True}, "leave --apply_chat_template out"),
        ({"gen_kwargs": "samples=3"}, r"no argument 'samples'.*\(vqav2_scenes doc 0, vqav2_scenes doc 1, "),
    ],
)
def test_what_would_not_be_done_is_refused(task_folder, options, message):
    with pytest.raises(RunFailed, match=message):
        evaluate(task_folder, **options)


def test_empty_answers_fail_the_run_with_their_cause_unless_they_are_let_pass(task_folder, monkeypatch):
    generate = AdaLlava.generate

    def eos_at_once(self, **inputs):
        eos = self.base.generation_config.eos_token_id
        return generate(self, **inputs, prefix_allowed_tokens_fn=lambda row, ids: [eos])

    monkeypatch.setattr(AdaLlava, "generate", eos_at_once)
    with pytest.raises(RunFailed, match=r"3 of 3 answers are empty \(3 first-token-eos\)"):
        evaluate(task_folder, **FEW)
    assert responses(evaluate(task_folder, MODEL_ARGS + ",max_empty_share=1", **FEW)) == [""] * FEW["limit"]


def test_pictures_that_are_cut_are_warned_of_at_the_end(tmp_path):
    from lmms_eval.api.instance import Instance
    from models import tiny_llava

    content = [{"type": "image", "url": Image.new("RGB", (400, 100), "red")}, {"type": "text", "text": "what?"}]
    arguments = ("what?", lambda doc: [{"role": "user", "content": content}], {"max_new_tokens": 2}, 0, "task", "test")
    for padded, expected in (
        (False, ["1 of 1 image is cut by the processor's center crop, the worst to 25 %"]),
        (True, []),
    ):
        model = AdaLlavaLmms(
            str(tiny_llava(tmp_path / str(padded))),
            method="full",
            device="cpu",
            pad_to_square=padded,
            max_empty_share=1,
        )
        model.task_dict = {"task": {"test": {0: {}}}}
        metadata = {"task": "task", "doc_id": 0, "repeats": 1}
        request = Instance(request_type="generate_until", arguments=arguments, idx=0, metadata=metadata)
        with logged() as lines:
            model.generate_until([request])
            model.clean()
        assert [line.partition(":")[0] for line in lines if " cut by " in line] == expected


CUT = "generation_kwargs: {{max_new_tokens: 16, until: {until}}}\n"
"""An answer that begins with what ends it is empty."""


def test_a_task_of_empty_answers_fails_beside_a_task_of_good_ones(tmp_path):
    write_task(tmp_path, NUM_SAMPLES)
    write_task(tmp_path, 2, name="all_empty", lines=CUT.format(until="[cyan, 'yes']"))
    args, tasks = MODEL_ARGS + ",max_empty_share=0.5", (TASK, "all_empty")
    with pytest.raises(RunFailed, match=r"^adallava: all_empty: 2 of 2 answers are empty \(2 whitespace-only\)"):
        evaluate(tmp_path, args, tasks=tasks)
    assert all(responses(evaluate(tmp_path, args, tasks=tasks[:1])))


@pytest.mark.long
@pytest.mark.parametrize(("until", "num_empty", "passes"), [("cyan", 1, True), ("no", 2, False)])
def test_two_processes_are_judged_together(run_lmms_eval, batched, task_folder, tmp_path, until, num_empty, passes):
    """15 % of nine answers is one; of the shares, which are five and four, it is none."""
    empty_docs = [place for place, said in enumerate(responses(written(batched)[1])) if said == until]
    assert {place % 2 for place in empty_docs} == ({0} if passes else {0, 1})  # of the first process, or one of each
    write_task(task_folder, NUM_SAMPLES, name=f"without_{until}", lines=CUT.format(until=f"['{until}']"))
    arguments = ("--model_args", f"{MODEL_ARGS},max_empty_share=0.15", "--tasks", f"without_{until}")
    done = run_lmms_eval(*arguments, "--output_path", str(tmp_path), launcher=TORCHRUN)
    assert done.returncode == (0 if passes else 1), done.stdout + done.stderr
    told = f"without_{until}: {num_empty} of 9 answers are empty ({num_empty} whitespace-only)"
    assert told in done.stdout + done.stderr
    if not passes:
        assert f"adallava: {told}, more than the share of 0.15 that passes" in done.stderr
        assert "(with --use_cache, take another cache folder: " in done.stderr
        assert not list(tmp_path.rglob("*.json*"))
