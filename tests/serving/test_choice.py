"""What a server makes of its settings, and of each request, before vLLM sees either."""

from pathlib import Path

import pytest

from adallava.errors import BudgetError, InputError, UnknownNameError, UnsupportedModeError
from adallava.serving.choice import Choice, Chooses, refuse_others, without_own
from adallava.serving.serving_settings import ServingSettings

IMAGE = 2
PROMPT = [7, IMAGE, 8, 9]


def _plan(asked: dict[str, object], grids: list[tuple[int, int]], **settings: object) -> Choice | None:
    chooses = Chooses.by(ServingSettings.model_validate({"method": "uniform", **settings}))
    return chooses.plan(asked, grids, PROMPT, IMAGE)


def test_a_budget_is_shared_over_a_requests_pictures() -> None:
    choice = _plan({"token_budget": 22}, [(4, 4), (8, 9)])
    assert choice is not None
    assert (choice.keep_counts, choice.token_counts) == ((4, 18), (16, 72))


def test_a_share_leaves_every_picture_a_token() -> None:
    choice = _plan({"token_budget": 0.0625}, [(40, 40), (1, 2), (1, 1)])
    assert choice is not None
    assert choice.keep_counts == (100, 1, 1)
    assert _plan({"token_budget": 0.1}, [(1, 1)] * 3) is None


@pytest.mark.parametrize("asked", [{}, {"token_budget": 1.0}, {"token_budget": "100%"}, {"token_budget": 576}])
def test_what_keeps_every_token_is_no_choice(asked: dict[str, object]) -> None:
    assert _plan(asked, [(24, 24)]) is None


def test_a_request_without_a_budget_takes_the_servers() -> None:
    choice = _plan({}, [(4, 4)], token_budget="25%")
    assert choice is not None
    assert choice.keep_counts == (4,)
    assert _plan({"token_budget": 1.0}, [(4, 4)], token_budget="25%") is None


def test_all_that_a_choice_depends_on_is_hashed_and_nothing_else() -> None:
    def factors(budget: int, seed: int, prompt: list[int], method: str) -> object:
        choice = Chooses.by(ServingSettings(method=method)).plan(
            {"token_budget": budget, "selection_seed": seed}, [(4, 4)], prompt, IMAGE
        )
        assert choice is not None
        return choice.hash_factors(0)

    assert factors(4, 0, PROMPT, "uniform") == factors(4, 1, [7, IMAGE, 8], "uniform")
    assert factors(4, 0, PROMPT, "uniform") != factors(5, 0, PROMPT, "uniform")
    assert factors(4, 0, PROMPT, "uniform") != factors(4, 0, PROMPT, "divprune")
    assert factors(4, 0, PROMPT, "random") != factors(4, 1, PROMPT, "random")
    assert factors(4, 0, PROMPT, "question") != factors(4, 0, [7, IMAGE, 8], "question")


def test_pictures_alike_in_one_request_draw_apart_and_may_keep_unlike() -> None:
    choice = _plan({"token_budget": 5}, [(2, 2), (2, 2)], method="random")
    assert choice is not None
    assert choice.keep_counts == (3, 2)
    assert choice.hash_factors(0) != choice.hash_factors(1)
    assert choice.of([1]).keep_counts == (2,)


def test_the_largest_seed_goes_round_for_the_second_picture() -> None:
    choice = _plan({"token_budget": 4, "selection_seed": 2**63 - 1}, [(4, 4), (4, 4)], method="random")
    assert choice is not None
    assert choice.seeds == (2**63 - 1, -(2**63))


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"token_budget": 0}, "token budget 0 is out of range"),
        ({"token_budget": 1.5}, "token budget 1.5 is out of range"),
        ({"token_budget": "many"}, "'many' is not a number"),
        ({"token_budget": None}, "has type NoneType"),
        ({"token_budget": True}, "has type bool"),
        ({"token_budget": 1}, "leaves an image without a token"),
        ({"token_budget": 8, "selection_seed": -1}, "is not a seed"),
        ({"token_budget": 8, "selection_seed": "9" * 1000}, r"'99+\.\.\.9+' is not a seed"),
    ],
)
def test_what_means_nothing_is_said(asked: dict[str, object], said: str) -> None:
    with pytest.raises((BudgetError, InputError), match=said):
        _plan(asked, [(4, 4), (4, 4)])


def test_full_gives_no_less_than_everything() -> None:
    with pytest.raises(BudgetError, match="keeps them all"):
        _plan({"token_budget": 8}, [(4, 4)], method="full")


def test_our_keys_do_not_reach_transformers_processor() -> None:
    asked = {"token_budget": 8, "selection_seed": 1, "max_pixels": 9, "adallava_choice": "forged"}
    assert without_own(asked) == {"max_pixels": 9}


@pytest.mark.parametrize("key", ["crop_size", "method", "adapter", "token_budgets", "adallava_choice", "x" * 1000])
def test_what_is_not_ours_is_refused_unless_the_servers_owner_allows_it(key: str) -> None:
    """A client's `crop_size` would end vLLM's engine: pixels that do not fit the tower."""
    with pytest.raises(InputError, match="and not") as refused:
        refuse_others({"token_budget": 8, key: "/etc"}, ServingSettings(method="uniform"))
    assert len(str(refused.value)) < 250
    refuse_others({"token_budget": 8, key: "/etc"}, ServingSettings(method="uniform", allow_other_mm_kwargs=True))


@pytest.mark.parametrize(
    ("method", "said"),
    [("fastv", "between layers"), ("prumerge", "its own number"), ("none", "its own number")],
)
def test_what_vllm_cannot_do_is_refused_at_start(method: str, said: str) -> None:
    with pytest.raises(UnsupportedModeError, match=said):
        Chooses.by(ServingSettings(method=method))


def test_a_misspelled_method_is_refused_at_start() -> None:
    with pytest.raises(UnknownNameError, match="visionzip"):
        Chooses.by(ServingSettings(method="visionzib"))


def test_settings_come_from_the_environment_or_a_file(tmp_path: Path) -> None:
    assert ServingSettings.read({}) is None
    read = ServingSettings.read({"ADALLAVA_METHOD": "visionzip", "ADALLAVA_TOKEN_BUDGET": "64"})
    assert read is not None
    assert (read.method, read.default_budget.count) == ("visionzip", 64)
    file = tmp_path / "serving.toml"
    file.write_text('method = "divprune"\ntoken_budget = 0.25\n')
    environment = {"ADALLAVA_SERVING": str(file), "ADALLAVA_TOKEN_BUDGET": "50%"}
    over = ServingSettings.read(environment)
    assert over is not None
    assert (over.method, over.default_budget.ratio) == ("divprune", 0.5)


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"ADALLAVA_TOKEN_BUDGET": "64"}, "without a method"),
        ({"ADALLAVA_METHOD": "uniform", "ADALLAVA_TOKEN_BUDGET": "-1"}, "out of range"),
        ({"ADALLAVA_METHOD": "uniform", "ADALLAVA_METHOD_OPTIONS": "{"}, "is no JSON"),
        ({"ADALLAVA_METHOD": "uniform", "ADALLAVA_TTFT_TARGET_MS": "soon"}, "ttft_target_ms"),
        (
            {"ADALLAVA_METHOD": "uniform", "ADALLAVA_TTFT_TARGET_MS": "300", "ADALLAVA_TOKEN_BUDGET": "64"},
            "give token_budget as a share",
        ),
        (
            {"ADALLAVA_METHOD": "uniform", "ADALLAVA_TTFT_TARGET_MS": "300", "ADALLAVA_TOKEN_BUDGET": "5%"},
            "from token_budget = '5%' to 0.0625",
        ),
        ({"ADALLAVA_SERVING": "/nowhere.toml"}, "cannot be read"),
    ],
)
def test_settings_that_mean_nothing_are_said(environment: dict[str, str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        ServingSettings.read(environment)


@pytest.mark.parametrize("variable", ["ADALLAVA_SCHEDULER", "ADALLAVA_LATENCY"])
def test_plans_of_layers_are_refused_at_start(variable: str) -> None:
    with pytest.raises(UnsupportedModeError, match="runs every layer"):
        ServingSettings.read({"ADALLAVA_METHOD": "uniform", variable: "0.5"})
