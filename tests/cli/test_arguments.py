import argparse
from pathlib import Path

import pytest

from adallava.budget import TokenBudget
from adallava.cli.arguments import (
    add_list_argument,
    parse_batch_sizes,
    parse_limit,
    parse_method_options,
    parse_method_paths,
    parse_positions,
    parse_title,
)
from adallava.cli.main import main
from adallava.errors import BudgetError, InputError


@pytest.mark.parametrize(
    "arguments",
    [
        ["--method", "a,b,c"],
        ["--method", "a", "b", "c"],
        ["--method", "a, b", "c"],
        ["--method", "a,b", "--method", "c"],
        ["--method=a,b,,c,"],
    ],
)
def test_commas_spaces_and_repeating_mean_the_same(arguments):
    parser = argparse.ArgumentParser()
    add_list_argument(parser, "--method", default=["all"])
    assert parser.parse_args(arguments).method == ["a", "b", "c"]
    assert parser.parse_args([]).method == ["all"]


def test_budgets_are_read_once_each_in_order():
    budgets = TokenBudget.parse_all(["64", "25%", "0.25", "1.0", "1"])
    assert budgets == (
        TokenBudget(count=64), TokenBudget(ratio=0.25), TokenBudget(ratio=1.0), TokenBudget(count=1),
    )  # fmt: skip


@pytest.mark.parametrize("value", ["0", "-1", "1.01", "nan", "inf", "x", "0%", "101%"])
def test_a_budget_that_means_nothing_is_named(value):
    with pytest.raises(BudgetError):
        TokenBudget.parse_all(["0.5", value])


def test_no_budget_is_refused():
    with pytest.raises(InputError):
        TokenBudget.parse_all([])


def test_adapters_are_pairs_and_paths_may_hold_an_equals_sign():
    assert parse_method_paths(["question=a/b=c", "x=y"]) == {"question": Path("a/b=c"), "x": Path("y")}


@pytest.mark.parametrize("value", ["question", "=path", "question="])
def test_half_a_pair_is_refused(value):
    with pytest.raises(InputError, match="METHOD=PATH"):
        parse_method_paths([value])


def test_limits():
    assert (parse_limit("7"), parse_limit("all")) == (7, None)


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "", "ALL", "²"])
def test_a_limit_that_means_nothing_is_refused(value):
    with pytest.raises(InputError, match="--limit"):
        parse_limit(value)


def test_method_options_are_read_by_their_form() -> None:
    values = ["mmtok.alpha=0.25", "a.b=3", "a.c=true", "a.word-temperature=1e-2", "cdpruner.text_tower=x/y=z"]
    assert parse_method_options(values) == {
        "mmtok": {"alpha": 0.25},
        "a": {"b": 3, "c": True, "word_temperature": 0.01},
        "cdpruner": {"text_tower": "x/y=z"},
    }


@pytest.mark.parametrize("value", ["cdpruner", "cdpruner=3", "cdpruner.=3", ".x=3", "a.b", "a.b=", "a.1b=2"])
def test_a_method_option_of_another_form_is_named(value: str) -> None:
    with pytest.raises(InputError, match=r"is not METHOD.OPTION=VALUE"):
        parse_method_options([value])


def test_an_option_given_twice_is_an_error() -> None:
    with pytest.raises(InputError, match=r"gives a\.b twice"):
        parse_method_options(["a.b=1", "a.b=2"])


def test_positions_are_read_once_each_in_order():
    assert parse_positions(["compact", "original", "compact"]) == ("compact", "original")
    with pytest.raises(InputError, match="'gaps' is not one of original, compact"):
        parse_positions(["gaps"])


def test_batch_sizes_are_sorted_and_each_once():
    assert parse_batch_sizes(["32", "1", "8", "1"]) == (1, 8, 32)
    for value in ("0", "-1", "1.5", "²"):
        with pytest.raises(InputError, match="is not a batch size"):
            parse_batch_sizes([value])


def test_a_title_is_one_line_without_what_a_terminal_obeys():
    assert parse_title(" Two\n lines, \x1b[31mred\t<b> ") == "Two lines, [31mred <b>"
    with pytest.raises(argparse.ArgumentTypeError, match="301 characters are too many"):
        parse_title("x" * 301)


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("swep", "no command 'swep': did you mean sweep? the commands are sweep, compare"),
        ("serve", "vllm serve does"),
        ("x", "no command 'x': the commands are sweep"),
    ],
)
def test_a_command_that_is_not_there_is_answered_with_the_nearest(typed, said, capsys):
    assert main([typed]) == 2
    assert said in capsys.readouterr().err
