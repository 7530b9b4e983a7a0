"""Bundled recipes: the help of `adallava train` tells what each is, and a mistyped name is told the nearest."""

import re

import pytest

from adallava.cli.main import build_parser
from adallava.errors import UnknownNameError
from adallava.training.recipe import bundled_recipes, load_recipe

FAMILIES = ("tiny-qwen2.5-vl", "tiny-siglip-qwen2")


def test_help_lists_every_recipe_with_its_steps_and_whether_it_takes_own_data():
    text = build_parser()._subparsers._group_actions[0].choices["train"].format_help()
    lines = re.findall(r"^  ((?:tiny/)?[a-z-]+) +([0-9,]+|-) ([* ]) \S.*$", text, re.MULTILINE)
    listed = {name: (steps.replace(",", ""), star == "*") for name, steps, star in lines}
    expected = {}
    for name in bundled_recipes():
        recipe = load_recipe(name)
        if name.startswith(FAMILIES):
            assert f"{name.partition('/')[0]}/…" in text
            continue
        expected[name] = (str(recipe.optimisation.steps) if recipe.optimisation else "-", not recipe.needs_labels)
    assert listed == expected


@pytest.mark.parametrize(
    ("asked", "said"),
    [("tiny/questoin", "did you mean 'tiny/question'?"), ("mine.toml", "recipe file mine.toml does not exist")],
)
def test_a_recipe_that_is_not_there_is_refused_with_what_is(asked, said):
    with pytest.raises(UnknownNameError) as refused:
        load_recipe(asked)
    assert said in str(refused.value)
