"""What the page shows of choices and answers, as HTML. Every word of a visitor or a model is escaped here."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from io import BytesIO

from PIL import Image

from adallava.demo.served_model import Answer, Choice
from adallava.records import PART_NAMES, WhatRan
from adallava.report import formats
from adallava.report.layer_strip import strip_words
from adallava.report.marks import mark_of

_PART_WORDS = {
    "vision": "tower",
    "selector": "selection",
    "projector": "projector",
    "prefill": "prefill",
    "decode": "decode",
}
_LARGE_PX, _SMALL_PX = 896, 448
_JPEG_QUALITY = 88


def choice_html(choice: Choice) -> str:
    """Return the drawings of a choice, large, and what was kept in words."""
    ran = choice.ran
    rest = "the others are merged into those with a dot" if ran.merged else "the others are faded"
    words = f"<b>{kept_words(ran)}</b> kept by {_method(ran.method)}; {rest}"
    return (
        f'<figure class="choice">{_pictures(choice.drawings, ran, _LARGE_PX)}<figcaption>{words}</figcaption></figure>'
    )


def cards_html(question: str, answers: Sequence[Answer], *, by_method: bool = False) -> str:
    """Return answers side by side, under the question that they answer.

    Args:
        question: that was asked.
        answers: one a card; the first is the one that the page shows.
        by_method: in their order and headed by their methods; else the largest budget first, headed by it.
    """
    most = max((sum(answer.flops.values()) for answer in answers), default=0)
    slowest = max((answer.result.total_ms for answer in answers), default=0.0)
    order = answers if by_method else sorted(answers, key=lambda answer: -answer.result.ran.tokens_at_end)
    cards = "".join(
        _card(answer, most, slowest, by_method=by_method, shown=answer is answers[0] and not by_method)
        for answer in order
    )
    return (
        f'<div class="asked">{escape(question)}</div><div class="cards">{cards}</div>'
        '<div class="remark">Compute in % of the costliest here. The first answer of a size includes warming up: ask '
        "again for its time.</div>"
    )


def notice_html(message: str) -> str:
    """Return what went wrong as one line; nothing for an empty message."""
    line = " ".join(message.split())
    return f'<div class="notice" role="alert">{escape(line)}</div>' if line else ""


def kept_words(ran: WhatRan) -> str:
    """Return `64 of 256 tokens`; for a method inside the LLM, the counts on the way to it."""
    counts = " → ".join(f"{count:,}" for count in dict.fromkeys(ran.tokens_kept_by_layer or (ran.tokens_kept,)))
    return f"{counts} of {ran.num_vision_tokens:,} tokens"


def _card(answer: Answer, most_flops: int, slowest_ms: float, *, by_method: bool, shown: bool) -> str:
    ran, result = answer.result.ran, answer.result
    share = ran.tokens_at_end / ran.num_vision_tokens if ran.num_vision_tokens else 0.0
    head = _method(ran.method) if by_method else _percent(share)
    said = escape(result.answer or "") or f'<i class="empty">empty: {escape(result.empty_cause or "")}</i>'
    return (
        f'<section class="card{" shown" if shown else ""}"><header><b>{head}</b><span>{kept_words(ran)}</span></header>'
        f'{_pictures(answer.drawings, ran, _SMALL_PX)}<p class="answer">{said}</p><dl>'
        f"<dt>layers</dt><dd>{_layers(answer.layer_shares)}</dd>"
        f"<dt>compute</dt><dd>{_flops(answer.flops, most_flops)}</dd>"
        f"<dt>time</dt><dd><b>{_ms(result.total_ms)} ms</b>{_bar(result.part_ms or {}, slowest_ms)}</dd>"
        f"{_parts(result.part_ms or {})}</dl></section>"
    )


def _percent(share: float) -> str:
    return "&lt;1 %" if 0 < share < 0.005 else f"{100 * share:.0f} %"


def _method(name: str) -> str:
    mark = mark_of(name)
    colors = f"--light:{mark.colour};--dark:{mark.dark_colour}"
    return f'<span class="method" style="{colors}">{mark.glyph}</span> {escape(name)}'


def _layers(shares: Sequence[float]) -> str:
    boxes = "".join(f'<i style="--ran:{100 * share:.0f}%"></i>' for share in shares)
    words = f"{formats.count(sum(shares))} of {len(shares)}"
    return f'{words}<span class="layers" title="ran: {strip_words(shares)}">{boxes}</span>'


def _flops(flops: Mapping[str, int], most: int) -> str:
    total = sum(flops.values())
    if not total:
        return formats.DASH
    beside = f", {100 * total / most:.0f} %" if total < most else ""
    return f"{formats.gflops(total)} GFLOPs{beside}"


def _bar(part_ms: Mapping[str, float], slowest_ms: float) -> str:
    """Return a bar of the parts, as long as the answer took compared with the slowest."""
    parts = "".join(
        f'<i class="part {part}" style="width:{100 * part_ms[part] / slowest_ms:.2f}%"></i>'
        for part in PART_NAMES
        if part in part_ms and slowest_ms > 0
    )
    return f'<span class="bar">{parts}</span>'


def _parts(part_ms: Mapping[str, float]) -> str:
    return "".join(
        f'<dt class="part {part}">{_PART_WORDS[part]}</dt><dd>{_ms(part_ms[part])} ms</dd>'
        for part in PART_NAMES
        if part in part_ms
    )


def _ms(milliseconds: float) -> str:
    return f"{milliseconds:,.{0 if milliseconds >= 100 else 1}f}"


def _pictures(drawings: Sequence[Image.Image], ran: WhatRan, side_px: int) -> str:
    alt = f"patches that {ran.method} keeps: {kept_words(ran)}"
    images = "".join(f'<img alt="{escape(alt)}" src="{_data_uri(one, side_px)}">' for one in drawings)
    return f'<div class="pictures">{images}</div>'


def _data_uri(image: Image.Image, side_px: int) -> str:
    shown = image.copy()
    shown.thumbnail((side_px, side_px))
    encoded = BytesIO()
    shown.save(encoded, "JPEG", quality=_JPEG_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(encoded.getvalue()).decode()}"
