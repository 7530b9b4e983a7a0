import io
from itertools import permutations

import pytest
from PIL import Image
from rich_runs import RichRun, made_cells, rich_records, rich_results
from run_folders import FakeRun, fake_cells, fake_picture, fake_records, picture_of
from run_records import changed, sample_record

from adallava.records import SampleRecord
from adallava.report.hard_samples import hard_samples
from adallava.report.page_samples import ABSENT, FAILED, clipped, coded_score
from adallava.report.pick_pictures import choose_pictures
from adallava.report.sample_table import Answers, SampleTable, read_table

SPEC = FakeRun(methods=("random", "pool", "question", "none"), budgets=("8", "32"), num_samples=120)


def table_of(spec: FakeRun, records: list[SampleRecord] | None = None) -> SampleTable:
    cells = fake_cells(spec)
    records = records or [record for cell in cells for record in fake_records(spec, cell)]
    return read_table(records, [f"{method}@{budget}" for method, budget in cells])


def rich(spec: RichRun) -> tuple[SampleTable, object, list[SampleRecord]]:
    cells = made_cells(spec)
    records = [SampleRecord(**record) for record in rich_records(spec, cells)]
    return read_table(records, [cell.name for cell in cells]), rich_results(spec, cells), records


def test_the_draws_of_a_random_method_are_one_answer_with_their_mean_score() -> None:
    table, _, records = rich(RichRun(methods=("random",), budgets=(8, 32), num_samples=20, draws=3))
    drawn = [r for r in records if r.cell == "random@8" and r.sample_id == "rich-0-00004"]
    answers = table.columns["random@8"]["rich-0-00004"]

    assert len(drawn) == 3
    assert answers.score == pytest.approx(sum(r.score for r in drawn) / 3)
    assert answers.responses == [r.response for r in drawn]


def test_patches_that_are_not_those_of_the_pictures_are_not_drawn() -> None:
    for changes in (
        {"kept_indices": ((0,),), "whole_images": (0, 1), "grids": ((4, 4), (4, 4))},
        {"kept_indices": ((0,), (1,)), "whole_images": (0, 2), "grids": ((4, 4), (4, 4))},
        {"kept_indices": ((0,), (1,)), "grids": ((4, 4),)},
    ):
        record = sample_record("uniform@8", "s00")
        record = record.model_copy(update={"ran": record.ran.model_copy(update=changes)})
        answers = read_table([record], ["uniform@8"]).columns["uniform@8"]["s00"]
        assert (answers.kept, answers.score) == (None, record.score)


def test_draws_that_agree_are_said_once_and_others_in_order() -> None:
    assert Answers([1, 1], ["a", "a"]).text == "a"
    assert Answers([1, 0], ["a", "b"]).text == "a / b"


def drawn(draw: int, **changes: object) -> SampleRecord:
    return sample_record("random@8", "s00", draw=draw, **changes)


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_draws_are_in_order_however_the_file_mixes_them(order: tuple[int, ...]) -> None:
    records = [drawn(draw, response=f"answer {draw}", score=draw / 2) for draw in order]
    answers = read_table(records, ["random@8"]).columns["random@8"]["s00"]

    assert answers.text == "answer 0 / answer 1 / answer 2"
    assert answers.scores == [0.0, 0.5, 1.0]


def test_of_draws_that_failed_in_two_ways_the_same_reason_is_shown_in_any_order() -> None:
    records = [drawn(draw, score=None, error=error) for draw, error in enumerate(["b", "a", "c"])]
    tables = [read_table(order, ["random@8"]) for order in permutations(records)]

    assert {table.columns["random@8"]["s00"].text for table in tables} == {"a"}


def test_one_failed_draw_fails_the_answer_with_its_reason() -> None:
    answers = Answers([1.0], ["a", ""], error="OSError: gone")

    assert answers.score is None
    assert answers.text == "OSError: gone"


@pytest.mark.parametrize(
    ("score", "coded"),
    [(0.0, 0), (1.0, 240), (0.5, 120), (0.4999, 119), (0.3, 72), (0.6, 144), (0.9, 216), (1 / 3, 80), (2 / 3, 160)],
)
def test_scores_keep_tenths_and_thirds_and_never_cross_the_line_to_right(score: float, coded: int) -> None:
    assert coded_score(Answers([score], ["x"])) == coded


def test_failed_and_absent_are_no_scores() -> None:
    assert coded_score(Answers([], [""], error="why")) == FAILED
    assert coded_score(None) == ABSENT


def test_long_texts_are_cut_with_an_ellipsis() -> None:
    assert clipped("abc", 3) == "abc"
    assert clipped("abcd", 3) == "ab…"


def test_the_hard_split_is_what_neither_no_image_nor_a_small_one_answers() -> None:
    table, results, records = rich(RichRun(methods=("uniform",), num_samples=80))
    right = {(r.cell, r.sample_id) for r in records if r.score == 1}
    hard = hard_samples(results, table)

    expected = {
        row.sample_id
        for row in table.rows
        if ("none@none", row.sample_id) not in right and ("downsample@64", row.sample_id) not in right
    }
    assert hard == expected
    assert len(hard) == results.hard_split.num_hard


def test_a_hard_split_of_another_size_than_stated_is_not_shown() -> None:
    table, results, _ = rich(RichRun(methods=("uniform",), num_samples=80))
    other = results.hard_split.model_copy(update={"num_hard": results.hard_split.num_hard + 1})

    assert hard_samples(results.model_copy(update={"hard_split": other}), table) is None
    assert hard_samples(results.model_copy(update={"hard_split": None}), table) is None


def test_pictures_go_to_the_samples_that_the_cells_differ_on_and_to_some_of_the_others() -> None:
    table = table_of(SPEC)
    pictures = choose_pictures(table, lambda _: (), 20)
    scores = {id_: {table.score(cell, id_) for cell in table.columns} for id_ in pictures.ids}

    differing = [id_ for id_ in pictures.ids if len(scores[id_]) == 2]
    assert len(pictures.ids) == len(set(pictures.ids)) == 20
    assert len(differing) >= 14
    assert pictures.ids[: len(differing)] == tuple(differing), "those that differ come first"
    assert sum(pictures.group_counts.values()) == 120


def test_the_most_disputed_of_each_type_comes_first() -> None:
    table = table_of(SPEC)

    def dispute(id_: str) -> float:
        share = sum(table.score(cell, id_) == 1 for cell in table.columns) / len(table.columns)
        return share * (1 - share)

    first = choose_pictures(table, lambda _: (), 10).ids[:7]
    kinds = {row.sample_id: row.kind for row in table.rows}
    assert len({kinds[id_] for id_ in first}) == 7, "types take turns"
    for id_ in first:
        assert dispute(id_) == max(dispute(row.sample_id) for row in table.rows if row.kind == kinds[id_])


def test_the_choice_does_not_depend_on_the_order_of_the_file() -> None:
    records = [record for cell in fake_cells(SPEC) for record in fake_records(SPEC, cell)]
    forward = choose_pictures(table_of(SPEC, records), lambda _: (), 20)
    backward = choose_pictures(table_of(SPEC, records[::-1]), lambda _: (), 20)

    assert forward.ids == backward.ids


def test_fewer_samples_than_wanted_are_all_shown() -> None:
    assert len(choose_pictures(table_of(FakeRun(methods=("random",), num_samples=4)), picture_of).ids) == 4
    assert choose_pictures(table_of(SPEC), picture_of, 0).ids == ()


def test_a_sample_that_failed_somewhere_is_counted_apart() -> None:
    spec = FakeRun(methods=("random",), budgets=("8",), num_samples=4, failing=frozenset({"random@8"}))

    assert choose_pictures(table_of(spec), lambda _: ()).group_counts["failed"] == 4


def test_a_missing_or_damaged_picture_is_said() -> None:
    buffer = io.BytesIO()
    fake_picture(1).save(buffer, "JPEG")
    damaged = buffer.getvalue()[: len(buffer.getvalue()) // 2]
    table = table_of(FakeRun(methods=("random",), num_samples=2))

    gone = choose_pictures(table, lambda _: ())
    broken = choose_pictures(table, lambda _: [Image.open(io.BytesIO(damaged))])
    assert set(gone.missing.values()) == {"the image was not found"}
    assert all(reason.startswith("the image could not be read: ") for reason in broken.missing.values())
    assert set(gone.uris) == set(broken.uris) == {()}


@pytest.mark.long
def test_pictures_stay_within_what_the_page_may_weigh() -> None:
    noise = Image.effect_noise((900, 900), 90).convert("RGB")
    pictures = choose_pictures(table_of(SPEC), lambda _: [noise])

    assert sum(len(uri) for uris in pictures.uris for uri in uris) <= 1_600_000


def test_of_several_pictures_the_first_is_kept_on_its_own_grid() -> None:
    spec = FakeRun(methods=("random",), budgets=("8",), num_samples=2)
    records = [record for cell in fake_cells(spec) for record in fake_records(spec, cell)]
    # The first record failed, so that only the second one says how many pictures there are.
    two = [
        changed(record, num_vision_tokens=512, kept_indices=None if record.ran.method == "full" else [[0, 255], [7]])
        for record in records
    ]
    table = table_of(spec, two)

    assert {row.num_patches for row in table.rows} == {256}
    assert table.columns["random@8"][two[0].sample_id].kept == (bytes([1, *[0] * 30, 128]),)


def test_every_picture_of_a_sample_is_shown_on_its_own_grid() -> None:
    spec = FakeRun(methods=("random",), budgets=("8",), num_samples=1)
    # Of each picture tiles, and the whole behind them.
    whole = {"grids": [[1, 2], [2, 4], [1, 2], [3, 3]], "whole_images": [1, 3], "num_vision_tokens": 21}
    records = [
        changed(record, **whole, kept_indices=[[0], [0, 7], [1], [8]])
        for cell in fake_cells(spec)
        for record in fake_records(spec, cell)
    ]
    table = table_of(spec, records)
    (row,) = table.rows
    assert row.grids == ((2, 4), (3, 3))
    assert table.columns["random@8"][row.sample_id].kept == (bytes([0b10000001]), bytes([0, 1]))
    assert table.tiled

    images = [Image.new("RGB", (40, 20)), Image.new("RGB", (30, 30))]
    pictures = choose_pictures(table, lambda _: images)
    assert [len(uris) for uris in pictures.uris] == [2]
    other = choose_pictures(table, lambda _: images[:1])
    assert "had 2 images when it was asked, and has 1 now" in other.missing[row.sample_id]


def test_merging_is_what_the_records_say() -> None:
    table, _, _ = rich(RichRun(methods=("uniform", "tome"), num_samples=5))

    assert {cell.partition("@")[0] for cell in table.merging} == {"tome"}
    assert table_of(FakeRun(methods=("pool", "random"), budgets=("8",), num_samples=2)).merging == {"pool@8"}
