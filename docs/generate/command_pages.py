"""Every command with its options, from the parsers that read them.

argparse has no public way to list what a parser takes; the private names used here are those that its own help uses.
"""

import argparse
import re
from collections.abc import Iterable, Iterator


def command_sections(parser: argparse.ArgumentParser, commands: Iterable[str]) -> str:
    """Return what holds for all commands, then a section for each with its options as a definition list."""
    (subparsers,) = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    lines = [*_fenced(parser.epilog)]
    for name in commands:
        lines += _section(name, subparsers.choices[name])
    return "\n".join(lines) + "\n"


def _section(name: str, parser: argparse.ArgumentParser) -> Iterator[str]:
    yield from (f"## {name}", "", _prose(parser.description or ""), "")
    for group in parser._action_groups:
        shown = [action for action in group._group_actions if _is_shown(action)]
        if shown:
            yield from (f"**{(group.title or 'options').capitalize()}**", "")
        for action in shown:
            call = _call(parser, action)
            yield from (call, f":   {_meaning(parser, action, call)}", "")
    yield from _fenced(parser.epilog)


def _is_shown(action: argparse.Action) -> bool:
    return action.help != argparse.SUPPRESS and not isinstance(action, argparse._HelpAction)


def _call(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    formatter = parser._get_formatter()
    if not action.option_strings:
        return f"`{formatter._format_args(action, formatter._get_default_metavar_for_positional(action))}`"
    values = formatter._format_args(action, formatter._get_default_metavar_for_optional(action))
    return ", ".join(f"`{f'{option} {values}'.strip()}`" for option in action.option_strings)


def _meaning(parser: argparse.ArgumentParser, action: argparse.Action, call: str) -> str:
    text = _prose(parser._get_formatter()._expand_help(action)) if action.help else ""
    if action.choices is not None and "{" not in call:
        text += f" One of {', '.join(f'`{choice}`' for choice in action.choices)}."
    return text.strip() or "–"


def _prose(text: str) -> str:
    """Escape what Markdown would read as its own; set options as code, and pages that are named as links."""
    text = re.sub(r"([*_<>\[\]])", r"\\\1", " ".join(text.split()))
    text = re.sub(r"(?<![\w`-])--[a-z](?:[a-z-]|\\_)+", lambda option: f"`{option[0]}`".replace("\\", ""), text)
    return re.sub(r"docs/([\w/\\]+)\.md", lambda page: f"[{_title(page[1])}]({_target(page[1])})", text)


def _target(page: str) -> str:
    return f"../{page}.md".replace("\\", "")


def _title(page: str) -> str:
    return page.rpartition("/")[2].replace("\\_", " ")


def _fenced(text: str | None) -> list[str]:
    return ["```text", *text.strip().splitlines(), "```", ""] if text else []
