"""`adallava families`: which models can be run, and what can be done with each."""

import argparse

_TABLE_WIDTH = 115
"""Columns below which the table's words would be cut, and each family is a line instead."""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the frame."""
    subparsers.add_parser(
        "families",
        help="list the model families, and what each can do",
        description="List the model families by the model_type in a checkpoint's config.json. Each answers from K of N "
        "vision tokens; the table says what else it can do. Which methods a vision tower supports is checked when a "
        "model is loaded.",
    )


def run(args: argparse.Namespace) -> int:
    """Print one row a family."""
    from rich.markup import escape

    from adallava.families.overview import ABILITIES, family_facts

    from .console import figures_table, make_console

    console = make_console()
    if console.width < _TABLE_WIDTH:
        for facts in family_facts():
            line = f"{facts.name}: {facts.about}. It has: {', '.join(facts.abilities)}"
            console.print(line, markup=False, highlight=False)
        return 0
    table = figures_table(
        "drawings: of the kept patches; downsample and budget-token are methods; cdpruner reads the text tower"
    )
    table.add_column("model_type", no_wrap=True)
    table.add_column("image tokens")
    for name in ABILITIES:
        table.add_column(name, justify="center")
    for facts in family_facts():
        marks = ("yes" if name in facts.abilities else "" for name in ABILITIES)
        table.add_row(escape(facts.name), escape(facts.about), *marks)
    console.print(table)
    return 0
