"""The offline doctor on lmms-eval's samples: each planted failure is found, and nothing else is."""

import gzip
import json
import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from doctor_plants import LMMS_BUDGETS, LMMS_SAMPLES, Row, healthy_rows, outcome_of, write_lmms, write_lmms_file
from lmms_plants import LMMS_FORMS, LMMS_PLANTS, Files, lmms_one_more, without_counts

from adallava.doctor import diagnose_run, load_answers
from adallava.errors import InputError


@pytest.mark.parametrize("arguments", [True, False], ids=["model_args", "path"])
def test_a_healthy_lmms_eval_sweep_is_healthy(tmp_path: Path, arguments: bool) -> None:
    diagnosis = diagnose_run(write_lmms(tmp_path, healthy_rows(), arguments=arguments))
    assert diagnosis.healthy, diagnosis.findings
    assert diagnosis.summary.startswith("240 answers in 4 cells: model@")
    passed = {outcome.failure for outcome in diagnosis.outcomes if outcome.status == "passed" and outcome.failure}
    assert passed == {1, 2, 3, 4, 5, 7, 9}


@pytest.mark.parametrize(
    ("plant", "failure_number", "severity"), LMMS_PLANTS, ids=lambda v: getattr(v, "__name__", None)
)
def test_a_failure_planted_in_lmms_eval_samples_is_found_and_no_other(
    tmp_path: Path, plant: Callable[[Files], Files], failure_number: int, severity: str
) -> None:
    diagnosis = diagnose_run(write_lmms(tmp_path, plant(healthy_rows())))
    assert [outcome.failure for outcome in diagnosis.findings] == [failure_number], diagnosis.findings
    assert diagnosis.findings[0].severity == severity


@pytest.mark.parametrize(
    "plants", [LMMS_PLANTS[:2], pytest.param(LMMS_PLANTS[2:], marks=pytest.mark.long)], ids=["two", "others"]
)
@pytest.mark.parametrize("form", LMMS_FORMS)
def test_planted_failures_are_found_in_every_form_of_a_line(tmp_path: Path, form: str, plants: Any) -> None:
    def written(name: str, files: Files) -> Path:
        return write_lmms(tmp_path / name, {b: [LMMS_FORMS[form](row) for row in rows] for b, rows in files.items()})

    assert diagnose_run(written("healthy", healthy_rows())).healthy
    for plant, failure_number, severity in plants:
        diagnosis = diagnose_run(written(plant.__name__, plant(healthy_rows())))
        found = [(outcome.failure, outcome.severity) for outcome in diagnosis.findings]
        assert found == [(failure_number, severity)], plant.__name__


def as_document(rows: list[Row]) -> bytes:
    """As versions before 0.2 wrote all samples of a task."""
    return json.dumps({"args": {"model_args": "token_budget=0.5"}, "logs": rows, "time": "1"}, indent=4).encode()


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("1_samples_gqa.jsonl.gz", lambda rows: gzip.compress("\n".join(map(json.dumps, rows)).encode())),
        ("1_samples_gqa.jsonl", lambda rows: json.dumps(rows).encode()),
        ("gqa.json", as_document),
    ],
    ids=["gzipped", "one list", "one document"],
)
def test_whole_files_of_other_forms_are_read(tmp_path: Path, name: str, write: Callable[[list[Row]], bytes]) -> None:
    rows = healthy_rows()["0.5"]
    (tmp_path / name).write_bytes(write(rows))
    (cell,) = load_answers(tmp_path / name).cells
    assert [answer.response for answer in cell.answers] == [row["filtered_resps"] for row in rows]
    assert cell.budget == ("0.5" if name == "gqa.json" else None)
    if name != "gqa.json":
        assert load_answers(tmp_path).cells[0].answers == cell.answers


DEEP = b"[" * 100_000 + b"]" * 100_000
# Versions of Python differ in whether the JSON parser refuses this, or what walks through the lists.
LESS_DEEP = b"[" * 5000 + b"]" * 5000


@pytest.mark.parametrize(
    "damage",
    [
        b"\xff\xfe{}\n",
        b"[1]\n",
        b'{"doc_id": 1}\n',
        b'{"doc_id": 1, "filt',
        b'{"doc_id": 1, "resps": ' + DEEP + b"}\n",
        b'{"doc_id": 1, "resps": ' + LESS_DEEP + b"}\n",
        DEEP,
    ],
)
def test_a_damaged_line_is_refused_by_file_and_line(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "1_samples_gqa.jsonl"
    path.write_bytes(json.dumps(healthy_rows()["0.5"][0]).encode() + b"\n" + damage)
    with pytest.raises(InputError, match=r"1_samples_gqa.jsonl.*(line 2|entry 2|not text)"):
        diagnose_run(path)


def test_a_file_of_one_line_that_is_too_deep_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "1_samples_gqa.jsonl"
    path.write_bytes(DEEP)
    for source in (tmp_path, path):
        with pytest.raises(InputError, match=r"1_samples_gqa.jsonl is not a JSONL file: line 1"):
            diagnose_run(source)


def test_a_gzipped_file_is_refused_whichever_of_its_bytes_is_damaged(tmp_path: Path) -> None:
    whole = gzip.compress(json.dumps(healthy_rows()["0.5"][0]).encode(), mtime=0)
    path = tmp_path / "1_samples_gqa.jsonl.gz"
    refused = 0
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        # Some bytes of the header, such as its time, decide nothing.
        with suppress(InputError):
            diagnose_run(path)
            continue
        refused += 1
    assert refused > len(whole) - 10


def test_a_results_file_or_right_answers_that_are_too_deep_are_no_traceback(tmp_path: Path) -> None:
    deep = "[" * 5000 + "]" * 5000
    write_lmms_file(tmp_path, "token_budget=0.5", [row | {"target": deep} for row in healthy_rows()["0.5"]])
    assert {answer.targets for answer in load_answers(tmp_path).answers} == {(deep,)}
    (results,) = tmp_path.rglob("*_results.json")
    results.write_bytes(b'{"config": ' + DEEP + b"}")
    with pytest.raises(InputError, match="is not a results file of lmms-eval"):
        diagnose_run(tmp_path)


def test_an_empty_answer_that_a_filter_hides_is_empty(tmp_path: Path) -> None:
    hidden = {"resps": "", "filtered_resps": "[invalid]", "exact_match": 0.0}
    files = {b: [row | hidden for row in rows] for b, rows in without_counts(healthy_rows()).items()}
    (finding,) = diagnose_run(write_lmms(tmp_path, files)).findings
    assert finding.check == "empty-answers-scored"


def test_of_several_answers_to_a_sample_every_one_is_looked_at(tmp_path: Path) -> None:
    files = {
        b: [row | {"resps": [[row["filtered_resps"], "", row["filtered_resps"]]]} for row in rows]
        for b, rows in without_counts(healthy_rows()).items()
    }
    (finding,) = diagnose_run(write_lmms(tmp_path, files)).findings
    assert finding.check == "empty-answers-scored"
    assert "60 of 180 (33.3 %) empty" in finding.evidence[0]


def otherwise(rows: list[Row], seed: str, shift: int = 0, share: float = 0.2) -> list[Row]:
    """Other answers to some questions, and prompts longer by `shift` tokens."""
    draw = random.Random(seed)
    changed = []
    for row in rows:
        counts = row["token_counts"][0]
        longer = {"token_counts": [counts | {"input_tokens": counts["input_tokens"] + shift}]}
        changed.append(row | longer | ({"filtered_resps": "purple"} if draw.random() < share else {}))
    return changed


@pytest.mark.parametrize(
    ("more", "shift", "pruned_alone"),
    [
        ("latency=0.75,scheduler=layers", 1, False),  # a learned scheduler's token is in the prompt
        ("latency=0.75,scheduler=layers", 1, True),
        ("latency=1.0,scheduler=adallava-layers", 1, False),
        ("latency=0.85", 0, False),
        ("dtype=bfloat16", 0, False),
        ("pretrained=other", 40, False),
        ("positions=compact", 0, False),
        ("seed=1", 0, False),
        ("adapter=trained", 0, False),
        ("scheduler=layers,scheduler_adapter=trained", 0, False),
        ("scheduler=spaced,scheduler_prefix_layers=8", 0, False),
        ("fastv_layer=3", 0, False),
    ],
)
def test_files_that_differ_in_more_than_the_budget_are_not_held_against_each_other(
    tmp_path: Path, more: str, shift: int, pruned_alone: bool
) -> None:
    rows = healthy_rows()
    for budget in LMMS_BUDGETS:
        base = f"pretrained=tiny,method=random,token_budget={budget}"
        if not pruned_alone or budget == "1.0":
            write_lmms_file(tmp_path / budget, base, rows[budget])
        if not pruned_alone or budget != "1.0":
            write_lmms_file(tmp_path / f"{budget}-more", f"{base},{more}", otherwise(rows[budget], budget, shift))
    diagnosis = diagnose_run(tmp_path)
    assert diagnosis.healthy, diagnosis.findings


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("adapter=x", "adapter=y"),
        ("prune_layer=2", "prune_layer=3"),
        ("scheduler=layers,scheduler_adapter=x", "scheduler=layers,scheduler_adapter=y"),
        ("scheduler=fixed,scheduler_plans=6", "scheduler=fixed,scheduler_plans=7"),
    ],
)
def test_two_files_of_one_budget_with_other_adapters_or_options_are_two_cells(tmp_path: Path, a: str, b: str) -> None:
    rows = healthy_rows()["0.25"]
    for more, answers in ((a, rows), (b, otherwise(rows, "1", share=0.5))):
        write_lmms_file(tmp_path / more, f"pretrained=tiny,method=m,token_budget=0.25,{more}", answers)
    diagnosis = diagnose_run(tmp_path)
    assert diagnosis.healthy, diagnosis.findings
    assert a.split(",")[-1] in diagnosis.summary
    assert b.split(",")[-1] in diagnosis.summary


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ({"gen_kwargs": {"max_new_tokens": 1}}, {"gen_kwargs": None}),
        ({"limit": 60.0}, {"limit": 30.0}),
        ({"limit": 30, "offset": 0}, {"limit": 30, "offset": 30}),
    ],
)
def test_files_with_other_generation_or_other_samples_are_not_held_against_each_other(
    tmp_path: Path, a: dict[str, Any], b: dict[str, Any]
) -> None:
    rows = healthy_rows()["0.25"]
    asked = {"a": (a, rows), "b": (b, otherwise(rows, "1", share=0.5))}
    for name, (config, answers) in asked.items():
        start, end = config.get("offset", 0), config.get("offset", 0) + int(config.get("limit", LMMS_SAMPLES))
        write_lmms_file(tmp_path / name, "pretrained=tiny,token_budget=0.25", answers[start:end], **config)
    diagnosis = diagnose_run(tmp_path)
    assert diagnosis.healthy, diagnosis.findings


@pytest.mark.parametrize("more", ["batch_size=1", "device=cpu", "verbose=true", "max_empty_share=1.0"])
def test_arguments_that_decide_no_answer_set_no_files_apart(tmp_path: Path, more: str) -> None:
    rows = healthy_rows()["0.25"]
    write_lmms_file(tmp_path / "a", "pretrained=tiny,token_budget=0.25", rows)
    write_lmms_file(tmp_path / "b", f"pretrained=tiny,token_budget=0.25,{more}", otherwise(rows, "1", share=0.5))
    (finding,) = diagnose_run(tmp_path).findings
    assert (finding.failure, finding.severity) == (6, "cannot-tell")


def test_a_budget_under_a_name_of_the_wrappers_own_sets_no_files_apart(tmp_path: Path) -> None:
    for budget, rows in lmms_one_more(healthy_rows()).items():
        write_lmms_file(tmp_path / f"budget_{budget}", f"pretrained=tiny,keep_ratio={budget}", rows)
    (finding,) = diagnose_run(tmp_path).findings
    assert finding.check == "off-by-one"


def test_within_one_schedule_and_one_model_failures_are_found_as_ever(tmp_path: Path) -> None:
    rows = healthy_rows()
    for model in ("a", "b"):
        for budget in LMMS_BUDGETS:
            more = f"pretrained={model},method=random,token_budget={budget},latency=0.75,scheduler=layers"
            shift = int(model == "b" and budget != "1.0")
            write_lmms_file(tmp_path / f"{model}{budget}", more, otherwise(rows[budget], model + budget, shift))
    (finding,) = diagnose_run(tmp_path).findings
    assert finding.check == "off-by-one"
    assert "60 of 120" in finding.evidence[0]


@pytest.mark.parametrize("budget", ["1.0", "0.25"])
@pytest.mark.parametrize(("share", "healthy"), [(0.0, True), (0.02, True), (0.5, False)])
def test_a_second_run_of_a_cell_at_another_batch_size_shows_that_answers_depend_on_it(
    tmp_path: Path, budget: str, share: float, healthy: bool
) -> None:
    rows = healthy_rows()
    write_lmms(tmp_path, rows)
    write_lmms_file(
        tmp_path / "again", f"pretrained=tiny,token_budget={budget}", otherwise(rows[budget], "1", 0, share)
    )
    diagnosis = diagnose_run(tmp_path)
    assert [(outcome.failure, outcome.severity) for outcome in diagnosis.findings] == (
        [] if healthy else [(6, "cannot-tell")]
    )
    (outcome,) = (outcome for outcome in diagnosis.outcomes if outcome.failure == 6)
    assert outcome.status == ("passed" if healthy else "found")


@pytest.mark.parametrize(("num_shared", "counted"), [(0, "0 other cells"), (30, "1 other cells")])
def test_full_budgets_agree_only_over_samples_that_both_answered(tmp_path: Path, num_shared: int, counted: str) -> None:
    rows = healthy_rows()
    for method, answers in (("uniform", rows["1.0"][:30]), ("random", rows["1.0"][30 - num_shared :])):
        write_lmms_file(tmp_path / method, f"pretrained=tiny,method={method},token_budget=1.0", answers)
    write_lmms_file(tmp_path / "less", "pretrained=tiny,method=uniform,token_budget=0.25", rows["0.25"])
    assert counted in outcome_of(diagnose_run(tmp_path), "full-budget-differs").evidence[0]


@pytest.mark.parametrize(("num_shared", "status"), [(0, "not-visible"), (9, "not-visible"), (10, "found")])
def test_runs_of_one_cell_are_compared_over_the_samples_that_both_answered(
    tmp_path: Path, num_shared: int, status: str
) -> None:
    rows = healthy_rows()["0.25"]
    other = otherwise(rows, "1", share=1.0)[30 - num_shared :]
    for name, answers in (("a", rows[:30]), ("b", other)):
        write_lmms_file(tmp_path / name, "pretrained=tiny,token_budget=0.25", answers)
    outcome = outcome_of(diagnose_run(tmp_path), "batch-dependence")
    assert outcome.status == status
    assert (" of 10 (" if status == "found" else "share 10 samples") in outcome.evidence[0]


@pytest.mark.parametrize("counts", [True, False])
def test_an_easy_task_that_every_budget_answers_right_is_healthy(tmp_path: Path, counts: bool) -> None:
    right = {
        b: [row | {"filtered_resps": row["target"], "exact_match": 1.0} for row in rows]
        for b, rows in healthy_rows(counts=counts).items()
    }
    assert diagnose_run(write_lmms(tmp_path, right)).healthy


def test_what_lmms_eval_does_not_record_is_not_called_healthy(tmp_path: Path) -> None:
    folder = write_lmms(tmp_path, {"0.5": healthy_rows(counts=False)["0.5"]})
    (file,) = folder.rglob("*_samples_*.jsonl")
    diagnosis = diagnose_run(file)
    assert diagnosis.healthy
    unseen = {outcome.failure for outcome in diagnosis.outcomes if outcome.status == "not-visible"}
    assert {3, 4, 5, 6, 7, 8, 9} <= unseen


def test_tasks_of_one_folder_are_not_compared(tmp_path: Path) -> None:
    folder = write_lmms(tmp_path, healthy_rows())
    for file in list(folder.rglob("*_samples_vqav2_val.jsonl")):
        lines = file.read_text().splitlines(keepends=True)
        file.with_name(file.name.replace("vqav2_val", "gqa")).write_text("".join(lines[:20]))
    assert diagnose_run(folder).healthy
