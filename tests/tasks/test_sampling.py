"""A random sample of a task: stratified, nested, and by nothing but the seed and the ids."""

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adallava.errors import InputError
from adallava.tasks import load_task
from adallava.tasks.sampling import random_order

_KINDS = st.lists(st.sampled_from(["a", "b", "c", None]), min_size=1, max_size=60)


@given(_KINDS, st.integers(0, 2**63 - 1))
def test_every_beginning_holds_each_kind_by_its_share(kinds, seed):
    order = random_order([str(number) for number in range(len(kinds))], kinds, seed)
    assert sorted(order) == list(range(len(kinds)))
    sizes, taken = Counter(kinds), Counter()
    for count, place in enumerate(order, start=1):
        taken[kinds[place]] += 1
        for kind, of_kind in sizes.items():
            # Rounding moves each kind by half a sample, and all four together the share by no more than two.
            share = of_kind / len(kinds)
            assert abs(taken[kind] - share * count) <= 1.5 + 3 * share


@given(_KINDS, st.randoms(use_true_random=False))
def test_the_order_of_the_file_does_not_matter(kinds, random):
    ids = [f"id-{number}" for number in range(len(kinds))]
    places = list(range(len(ids)))
    random.shuffle(places)
    shuffled = random_order([ids[place] for place in places], [kinds[place] for place in places], 7)
    assert [ids[places[place]] for place in shuffled] == [ids[place] for place in random_order(ids, kinds, 7)]


def write(path, count=40):
    rows = [
        {
            "id": f"q{number}",
            "image": "a.png",
            "question": f"{number}?",
            "answer": "x",
            "kind": "rare" if number < 8 else "usual",
        }
        for number in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def ids(file, limit, **options):
    return [sample.id for sample in load_task(file, limit=limit, **options).samples]


def test_a_larger_sample_of_a_file_keeps_the_smaller_one_and_another_seed_draws_another(tmp_path):
    file = write(tmp_path / "t.jsonl")
    ten, twenty = ids(file, 10, sample="random", seed=3), ids(file, 20, sample="random", seed=3)
    assert twenty[:10] == ten
    assert sum(int(one[1:]) < 8 for one in ten) == 2  # 8 of 40, of 10
    assert ids(file, 10, sample="random", seed=4) != ten
    assert ids(file, 10) == [f"q{number}" for number in range(10)]
    assert sorted(ids(file, None, sample="random")) == sorted(ids(file, 99, sample="random")) == sorted(ids(file, None))


def test_the_sample_is_the_same_from_parquet_and_its_rows_are_whole(tmp_path):
    import pyarrow
    import pyarrow.parquet

    file = write(tmp_path / "t.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "t.parquet", row_group_size=7)
    samples = load_task(str(tmp_path / "t.parquet"), limit=9, sample="random", seed=5).samples
    assert [sample.id for sample in samples] == ids(file, 9, sample="random", seed=5)
    assert all(sample.question == f"{sample.id[1:]}?" for sample in samples)


def test_of_another_harness_s_task_all_samples_are_read_and_the_hash_is_of_those_taken(monkeypatch):
    from adallava import tasks
    from adallava.tasks import Task, TaskSample

    def load(name, *, limit, metric, include_path):
        samples = tuple(TaskSample(str(n), f"{n}?", ("x",), None, lambda: None) for n in range(30))[:limit]
        return Task(name, samples, split="test", sha256=hashed(samples), columns={}, hash_samples=hashed)

    def hashed(samples):
        return "+".join(sample.id for sample in samples)

    monkeypatch.setattr(tasks, "task_source", lambda name: load)
    few, more = (load_task("other:x", limit=limit, sample="random") for limit in (5, 12))
    assert few.samples[0].id != "0" or few.samples[1].id != "1"
    assert (len(few.samples), len(more.samples)) == (5, 12)
    assert more.sha256_of_first(5) == few.sha256 == hashed(few.samples)
    assert more.sha256 == hashed(more.samples)


def test_generated_scenes_are_a_random_sample_already():
    with pytest.raises(InputError, match="random sample already"):
        load_task("scenes", limit=3, sample="random")


def test_a_limit_that_no_memory_holds_is_refused_at_once():
    with pytest.raises(InputError, match="limit 1000000000 is over"):
        load_task("scenes", limit=10**9)
