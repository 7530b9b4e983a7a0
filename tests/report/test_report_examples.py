import base64
import io

from PIL import Image
from run_folders import FakeRun, fake_cells, fake_picture, fake_records, picture_of, summed_up

from adallava.records import Results, SampleRecord
from adallava.report.embed import data_uri
from adallava.report.examples import Examples, choose_examples, example_cells

SPEC = FakeRun(methods=("random", "pool", "question", "none"), budgets=("8", "32", "128"), num_samples=120)


def run_of(spec: FakeRun) -> tuple[Results, list[SampleRecord]]:
    cells = fake_cells(spec)
    records = [record for cell in cells for record in fake_records(spec, cell)]
    return summed_up(records, cells), records


def examples_of(spec: FakeRun, **options: object) -> Examples:
    return choose_examples(*run_of(spec), **{"image_of": lambda _: None, **options})  # type: ignore[arg-type]


def test_the_cells_shown_are_full_then_the_methods_at_the_middle_budget_then_none() -> None:
    shown = example_cells(run_of(SPEC)[0])

    assert shown.budget == "32"
    assert [cell.cell for cell in shown.cells] == [
        "full@1.0",
        "random@32",
        "pool@32",
        "question@32",
        "none@none",
    ]


def test_a_budget_that_more_methods_ran_at_comes_before_the_middle_one() -> None:
    results, _ = run_of(SPEC)
    fewer = [cell for cell in results.cells if cell.cell not in ("random@32", "pool@8")]

    assert example_cells(Results(cells=fewer)).budget == "128"


def test_a_budget_that_keeps_every_token_is_shown_only_if_there_is_no_other() -> None:
    assert example_cells(run_of(FakeRun(methods=("random",), budgets=("1.0", "8"), num_samples=3))[0]).budget == "8"
    assert example_cells(run_of(FakeRun(methods=("random",), budgets=("1.0",), num_samples=3))[0]).budget == "1.0"


def test_a_dozen_of_all_sorts() -> None:
    examples = examples_of(SPEC)
    groups = [example.group for example in examples.chosen]

    assert len(groups) == 12
    assert groups.count("differ") == 6
    assert groups.count("all-right") == 3
    assert groups.count("all-wrong") == 3
    assert sum(examples.group_counts.values()) == 120
    differing = [example.kind for example in examples.chosen if example.group == "differ"]
    assert len(set(differing)) == 6, "question types take turns"


def test_the_group_says_what_the_answers_were() -> None:
    for example in examples_of(SPEC).chosen:
        verdicts = {answer.verdict for answer in example.answers}
        expected = {"differ": {"right", "wrong"}, "all-right": {"right"}, "all-wrong": {"wrong"}}[example.group]
        assert verdicts == expected


def test_the_choice_does_not_depend_on_the_order_of_the_file() -> None:
    results, records = run_of(SPEC)
    forward = choose_examples(results, records, lambda _: None)
    backward = choose_examples(results, reversed(records), lambda _: None)

    assert {e.sample_id for e in forward.chosen} == {e.sample_id for e in backward.chosen}


def test_what_one_group_lacks_the_others_give() -> None:
    examples = examples_of(FakeRun(methods=("question",), budgets=("128",), num_samples=40))

    assert len(examples.chosen) == 12


def test_fewer_samples_than_wanted_are_all_shown() -> None:
    assert len(examples_of(FakeRun(methods=("random",), num_samples=4)).chosen) == 4


def test_a_failed_sample_is_counted_and_shown_last_with_its_reason() -> None:
    spec = FakeRun(methods=("random",), budgets=("8",), num_samples=4, failing=frozenset({"random@8"}))
    examples = examples_of(spec)

    assert examples.group_counts["failed"] == 4
    answer = examples.chosen[0].answers[1]
    assert answer.verdict == "failed"
    assert answer.detail == "OSError: image file is truncated"


def test_a_missing_picture_is_said_and_not_drawn() -> None:
    answers = [answer for example in examples_of(SPEC).chosen for answer in example.answers]

    assert {answer.uri for answer in answers} == {""}
    assert {answer.no_picture for answer in answers if not answer.blind} == {"the picture was not found"}


def test_a_damaged_picture_is_said_and_not_drawn() -> None:
    buffer = io.BytesIO()
    fake_picture(1).save(buffer, "JPEG")
    damaged = buffer.getvalue()[: len(buffer.getvalue()) // 2]
    examples = examples_of(SPEC, image_of=lambda _: Image.open(io.BytesIO(damaged)))

    reasons = {a.no_picture for example in examples.chosen for a in example.answers if not a.blind}
    assert len(reasons) == 1
    assert reasons.pop().startswith("the picture could not be read: ")


def test_every_method_that_saw_the_picture_has_one_of_its_own() -> None:
    example = examples_of(SPEC, image_of=picture_of).chosen[0]

    seen = {answer.method: answer.uri for answer in example.answers}
    assert seen.pop("none") == ""
    assert len(set(seen.values())) == 4
    assert all(uri.startswith("data:image/jpeg;base64,") for uri in seen.values())


def test_pictures_stay_within_what_the_page_may_weigh() -> None:
    noise = Image.effect_noise((900, 900), 90).convert("RGB")
    examples = examples_of(SPEC, image_of=lambda _: noise)
    assert sum(len(answer.uri) for example in examples.chosen for answer in example.answers) <= 2_200_000


def test_tokens_on_no_square_grid_leave_the_picture_bare() -> None:
    results, records = run_of(FakeRun(methods=("random",), budgets=("8",), num_samples=2))
    odd = [record.model_copy(update={"num_vision_tokens": 250}) for record in records]
    examples = choose_examples(results, odd, picture_of)

    full, random = examples.chosen[0].answers
    assert random.uri == full.uri != ""


def test_of_several_pictures_the_first_is_drawn_on_its_own_grid() -> None:
    results, records = run_of(FakeRun(methods=("random",), budgets=("8",), num_samples=2))
    two = [
        record.model_copy(update={"num_vision_tokens": 512, "kept_indices": [*record.kept_indices, [255]]})
        for record in records
    ]
    one = choose_examples(results, records, picture_of).chosen[0].answers[1]

    assert choose_examples(results, two, picture_of).chosen[0].answers[1].uri == one.uri


def test_partly_right_is_told_from_right() -> None:
    results, records = run_of(FakeRun(methods=("random",), budgets=("8",), num_samples=1))
    soft = [record.model_copy(update={"score": 0.6}) for record in records]
    answer = choose_examples(results, soft, lambda _: None).chosen[0].answers[0]

    assert (answer.verdict, answer.detail) == ("partly", "score 0.600")


def test_a_picture_is_made_smaller_until_it_fits() -> None:
    noise = Image.effect_noise((352, 352), 90).convert("RGB")
    roomy, tight = data_uri(noise, 10**6), data_uri(noise, 30_000)

    widths = [Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).width for uri in (roomy, tight)]
    assert len(tight) <= 30_000
    assert widths[0] == 352 > widths[1]


def test_any_method_that_merges_is_said_to_combine_patches_whatever_its_name() -> None:
    results, records = run_of(SPEC)
    merged = [record.model_copy(update={"merged": True}) for record in records]
    for example in choose_examples(results, merged, picture_of).chosen:
        for answer in example.answers:
            if answer.method in ("random", "question"):
                assert f"the patches that {answer.method} combined into" in answer.alt
