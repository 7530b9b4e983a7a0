"""Original and compact positions, as cells of their own."""

import pytest
from sweep_inputs import samples, sweep

from adallava.records import Results


@pytest.fixture(scope="module")
def both_positions(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "positions"
    arguments = ["--method", "uniform,none,random", "--token-budget", "1.0,4", "--positions", "original,compact"]
    assert sweep(model, folder, *arguments, "--draws", "2", "--no-report") in (0, 1)
    return folder


@pytest.mark.long
def test_positions_cross_every_method_but_the_full_and_the_empty_one(both_positions):
    results = Results.model_validate_json((both_positions / "results.json").read_text())
    expected = [f"uniform@{budget}{suffix}" for suffix in ("", "+compact") for budget in ("1.0", "4")]
    expected += ["none@none", *(cell.replace("uniform", "random") for cell in expected)]
    assert [cell.cell for cell in results.cells] == ["full@1.0", *expected]
    for sample in samples(both_positions):
        assert (sample.ran.positions == "compact") == sample.cell.endswith("+compact")
    pairs = {(one.cell_a, one.cell_b) for one in results.comparisons}
    assert {("uniform@4", "uniform@4+compact"), ("uniform@4", "random@4"), ("uniform@4", "full@1.0")} <= pairs
    assert ("uniform@4", "random@4+compact") not in pairs


def test_positions_do_not_change_what_is_kept_and_all_tokens_are_the_full_model(both_positions):
    answers = {(s.cell, s.sample_id, s.draw): s for s in samples(both_positions)}
    for (cell, sample_id, draw), sample in answers.items():
        if sample.ran.positions == "compact":
            original = answers[cell.removesuffix("+compact"), sample_id, draw]
            assert sample.ran.kept_indices == original.ran.kept_indices
        if sample.ran.budget_asked == "1.0":
            assert sample.response == answers["full@1.0", sample_id, 0].response


def test_the_doctor_finds_nothing_in_draws_and_positions(both_positions):
    from adallava.doctor import diagnose_run

    findings = {outcome.check for outcome in diagnose_run(both_positions).findings}
    # The model is random: it may well end at once, or write what is no text.
    assert findings <= {"first-token-eos", "blank-answers"}
