"""A table as plain text, and as LaTeX (booktabs) or Markdown."""

from dataclasses import dataclass

from adallava.report import formats

_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    formats.MINUS: "$-$", formats.DASH: "--",
}  # fmt: skip
_MARKDOWN = {
    "|": r"\|",
    "<": "&lt;",
    ">": "&gt;",
    "&": "&amp;",
    "*": r"\*",
    "_": r"\_",
    "`": r"\`",
    "[": r"\[",
    "]": r"\]",
}


@dataclass(frozen=True)
class Entry:
    """One place of a table. `note` is small, after the text, such as an interval."""

    text: str
    note: str = ""
    bold: bool = False


@dataclass(frozen=True)
class PaperTable:
    """A table as plain text; the first column is names, the others are numbers."""

    name: str
    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[Entry, ...], ...]


def to_latex(table: PaperTable) -> str:
    """Return a `table` environment that needs the package booktabs alone."""
    columns = "l" + "r" * (len(table.head) - 1)
    rows = [" & ".join(_latex_entry(entry) for entry in row) + r" \\" for row in table.rows]
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_latex(table.caption)}}}",
        rf"\label{{tab:{table.name}}}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        " & ".join(_latex(head) for head in table.head) + r" \\",
        r"\midrule",
        *rows,
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def to_markdown(table: PaperTable) -> str:
    """Return the caption and a pipe table."""
    rows = ["| " + " | ".join(_markdown_entry(entry) for entry in row) + " |" for row in table.rows]
    head = "| " + " | ".join(_markdown(head) for head in table.head) + " |"
    rule = "| --- |" + " ---: |" * (len(table.head) - 1)
    return "\n".join([_markdown(table.caption), "", head, rule, *rows]) + "\n"


def _latex(text: str) -> str:
    text = " ".join(text.split())
    return "".join(_LATEX.get(character, character) for character in text).replace("⚑", r"$\dagger$")


def _latex_entry(entry: Entry) -> str:
    text = rf"\textbf{{{_latex(entry.text)}}}" if entry.bold else _latex(entry.text)
    return text + (rf" {{\scriptsize {_latex(entry.note)}}}" if entry.note else "")


def _markdown(text: str) -> str:
    return "".join(_MARKDOWN.get(character, character) for character in " ".join(text.split()))


def _markdown_entry(entry: Entry) -> str:
    text = f"**{_markdown(entry.text)}**" if entry.bold else _markdown(entry.text)
    # A pair of brackets alone is not a link: it stays readable in the source.
    return text + (f" {entry.note}" if entry.note else "")
