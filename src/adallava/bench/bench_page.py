"""A benchmark as one HTML page that opens from disk and asks the network for nothing: its plot, and how it was made."""

from html import escape
from typing import Any

_TIMES = (("time_to_first_token", "first token, ms"), ("total", "whole answer, ms"))
_COLORS = ("#2f6690", "#81a4cd", "#d98324", "#6a994e", "#7b2d8b")
_STOCK_COLOR, _INK, _FAINT = "#b0aca4", "#1a1a1a", "#e4e2dc"
_ROW_PX, _MARGIN_PX = 22, 110

_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
"""The scripts are plotly and its data, from which no markup can escape; nothing is fetched."""

_STYLE = """body { font-family: 'Source Serif 4', Palatino, Georgia, serif; color: #1a1a1a; max-width: 72rem;
margin: 2rem auto; padding: 0 1rem; } code { overflow-wrap: anywhere; }"""


def page_of(document: dict[str, Any]) -> str:
    """Return the page of a file of figures."""
    sizes = sorted({cell["batch_size"] for cell in document["cells"]})
    plots = [_plot(document, size) for size in sizes]
    parts = [
        f"<h2>Batch size {size}</h2>"
        # The first brings plotly itself, which is not to be fetched from anywhere.
        + plot.to_html(full_html=False, include_plotlyjs=number == 0, config={"displaylogo": False})
        for number, (size, plot) in enumerate(zip(sizes, plots, strict=True))
    ]
    failed = [
        f"<li>batch size {cell['batch_size']}, {escape(_label(cell))}: {escape(cell['error'])}</li>"
        for cell in document["cells"]
        if "error" in cell
    ]
    return "\n".join(
        [
            '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            f"<title>{escape(_title(document))}</title><style>{_STYLE}</style></head><body>",
            f"<h1>{escape(_title(document))}</h1>",
            f"<p>{escape(_made(document))}</p>",
            "<p>Bars are medians, lines reach from the 10th to the 90th percentile; a stroke is the floor: the least "
            "that products and weights take at the rates measured in the same run.</p>",
            *parts,
            f"<h2>Not measured</h2><ul>{''.join(failed)}</ul>" if failed else "",
            f"<p><code>{escape(document['command'])}</code></p></body></html>\n",
        ]
    )


def _title(document: dict[str, Any]) -> str:
    return f"What an answer costs: {document['model'] or document['shapes']}"


def _made(document: dict[str, Any]) -> str:
    hardware, versions = document["hardware"], document["versions"]
    machine = ", ".join(hardware["cuda_devices"][:1]) if document["device"] != "cpu" else hardware["cpu"]
    return (
        f"{machine}, {document['dtype']}{_quantized(document)}, torch {versions['torch']}, "
        f"transformers {versions['transformers']}, {document['date']}. One image and {document['text_tokens']} "
        f"tokens of text per prompt, {document['new_tokens']} tokens per answer."
    )


def _quantized(document: dict[str, Any]) -> str:
    """Return the words on quantization after the type; none for a file from before there was any."""
    name = document.get("quantization", "none")
    return f" (our engines: {name} in the LLM's layers)" if name != "none" else ""


def _label(cell: dict[str, Any]) -> str:
    ran = cell.get("engine_ran", cell["engine"])
    return f"{cell['cell']}, {cell['engine']}" + ("" if ran == cell["engine"] else f" ({ran} ran)")


def _plot(document: dict[str, Any], batch_size: int) -> Any:
    """Return plotly's figure of one batch size: a row a cell, the first token on the left, the answer on the right."""
    from plotly.subplots import make_subplots

    cells = [cell for cell in document["cells"] if cell["batch_size"] == batch_size and "error" not in cell]
    engines = list(dict.fromkeys(cell["engine"] for cell in cells))
    figure = make_subplots(cols=2, shared_yaxes=True, horizontal_spacing=0.03)
    for column, (name, title) in enumerate(_TIMES, start=1):
        for number, engine in enumerate(engines):
            own = [cell for cell in cells if cell["engine"] == engine]
            color = _STOCK_COLOR if number == 0 else _COLORS[(number - 1) % len(_COLORS)]
            figure.add_trace(_bars(own, engine, name, color, shown=column == 1), row=1, col=column)
        figure.add_trace(_floors(cells, name, shown=column == 1), row=1, col=column)
        figure.update_xaxes(title_text=title, rangemode="tozero", gridcolor=_FAINT, row=1, col=column)
    order = [_label(cell) for cell in cells]
    figure.update_yaxes(categoryorder="array", categoryarray=order[::-1], automargin=True)
    figure.update_layout(
        height=_ROW_PX * len(cells) + _MARGIN_PX,
        barmode="overlay",
        plot_bgcolor="#ffffff",
        margin={"t": 30, "b": 50, "l": 10, "r": 10},
        font={"color": _INK},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom"},
    )
    return figure


def _bars(cells: list[dict[str, Any]], engine: str, name: str, color: str, *, shown: bool) -> Any:
    from plotly.graph_objects import Bar

    spreads = [cell["ms"][name] for cell in cells]
    return Bar(
        x=[spread["median"] for spread in spreads],
        y=[_label(cell) for cell in cells],
        error_x={
            "array": [spread["high"] - spread["median"] for spread in spreads],
            "arrayminus": [spread["median"] - spread["low"] for spread in spreads],
            "symmetric": False,
            "thickness": 1,
            "width": 3,
        },
        orientation="h",
        marker_color=color,
        name=engine,
        legendgroup=engine,
        showlegend=shown,
    )


def _floors(cells: list[dict[str, Any]], name: str, *, shown: bool) -> Any:
    from plotly.graph_objects import Scatter

    known = [cell for cell in cells if name in cell["floor_ms"]]
    return Scatter(
        x=[cell["floor_ms"][name] for cell in known],
        y=[_label(cell) for cell in known],
        mode="markers",
        marker={"symbol": "line-ns", "size": 14, "line": {"width": 2, "color": _INK}},
        name="floor",
        legendgroup="floor",
        showlegend=shown,
    )
