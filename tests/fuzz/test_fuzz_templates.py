"""Chat templates: whatever a stranger's says, a question becomes a prompt or an error in words, and soon."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from fuzzing import SECONDS_EACH, fuzz, judge
from hypothesis import strategies as st
from models import tiny_processor

from adallava.processors.stock_processor import build_prompt, question_frame

FINDINGS = {
    "refuses without a word": "{{ raise_exception('') }}",
    "refuses with nothing": "{{ raise_exception(none) }}",
}
"""Templates that broke a rule, by what they are."""

_USUAL = (
    "{% for message in messages %}{{ message['role'].upper() }}: {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>\n{% else %}{{ part['text'] }}{% endif %}{% endfor %} {% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
_EXPRESSIONS = (
    "messages", "message", "messages[0]", "messages[9]", "message['content']", "part['text']", "part.nothing.more",
    "bos_token", "raise_exception('no')", "raise_exception('')", "raise_exception(none)", "strftime_now('%Y')",
    "strftime_now('%' * 999)", "tools", "1/0", "1 // 0", "range(5)", "range(10**9)", "range(100000)", "'x' * 1000",
    "'x' * 10**6", "'x' * 10**7", "[1] * 10**6", "2 ** 64", "9 ** 9 ** 5", "'%99999d' % 1", "'{:>99999}'.format(1)",
    "''.__class__", "messages.__class__.__mro__", "self", "self._TemplateReference__context", "cycler('a', 'b')",
    "namespace(a=1)", "lipsum()", "lipsum(n=50)", "dict(a=1)", "joiner()", "loop.index", "loop(messages)", "caller()",
    "none", "none.x", "undefined_one", "undefined_one.x", "messages | tojson", "messages | map('upper') | list",
    "messages | sort", "'a' | center(99999)", "'a,b' | wordwrap(0)", "messages | batch(0) | list", "'x' | int + 'y'",
    "messages | slice(0) | list", "'x' | indent(99999)", "'a' | truncate(-5)", "message | xmlattr", "'\ud800'",
    "'\\x00'",
    "'é' ~ messages", "messages | pprint", "messages.append(messages)", "messages.pop()", "message.update({'role': 3})",
    "message.clear()", "m()", "m(m)", "'<image>'",
)  # fmt: skip
_BLOCKS = (
    "{{% for x in {e} %}}{b}{{% endfor %}}", "{{% for x in {e} recursive %}}{b}{{{{ loop({e}) }}}}{{% endfor %}}",
    "{{% if {e} %}}{b}{{% endif %}}", "{{% set x = {e} %}}{b}",
    "{{% macro m(a) %}}{b}{{{{ m(a) }}}}{{% endmacro %}}{{{{ m(1) }}}}",
    "{{% set ns = namespace(s='xx') %}}{{% for i in {e} %}}{{% set ns.s = ns.s ~ ns.s %}}{{% endfor %}}{b}",
    "{{% filter upper %}}{b}{{% endfilter %}}", "{{% call m() %}}{b}{{% endcall %}}",
    "{{% generation %}}{b}{{% endgeneration %}}",
    "{{% block a %}}{b}{{% endblock %}}", "{{% raw %}}{b}{{% endraw %}}", "{{% with a = {e} %}}{b}{{% endwith %}}",
    "{b}{{# {e} #}}",
    "{{% include {e} %}}{b}", "{{% import {e} as y %}}{b}", "{{% extends {e} %}}{b}", "{{% break %}}{b}",
    "{{{{ {e} }}}}{b}",
    "{{% for a, b in {e} %}}{b}{{% endfor %}}", "{{% autoescape {e} %}}{b}{{% endautoescape %}}", "{{% do {e} %}}{b}",
)  # fmt: skip

expressions = st.sampled_from(_EXPRESSIONS)
bodies = st.recursive(
    st.one_of(st.sampled_from((_USUAL, "", "x", "{{ x }}")), st.builds("{{{{ {} }}}}".format, expressions)),
    lambda inner: st.builds(
        lambda block, expression, one, two: block.format(e=expression, b=one) + two,
        st.sampled_from(_BLOCKS),
        expressions,
        inner,
        inner,
    ),
    max_leaves=6,
)


@st.composite
def templates(draw: st.DrawFn) -> str:
    text = draw(bodies)
    for _ in range(draw(st.sampled_from((0, 0, 0, 1, 3)))):
        place = draw(st.integers(0, len(text)))
        what = draw(st.sampled_from(("{%", "%}", "{{", "}}", "'", "endfor", "|", "", "\0", "(" * 200, "[" * 3000)))
        text = text[:place] + what + text[place + draw(st.integers(0, 6)) :]
    return text


def check(processor: Any, template: str) -> None:
    """Word a question, alone and in a frame of its own."""
    processor.chat_template = template
    prompt = build_prompt(processor, "why?")
    assert isinstance(prompt, str)
    if template == _USUAL:
        assert prompt.count("<image>") == 1
        assert prompt.endswith("ASSISTANT:")
    before, behind = question_frame(processor)
    assert isinstance(before + behind, str)


@pytest.fixture(scope="module")
def processor() -> Any:
    return tiny_processor()


@pytest.fixture(autouse=True)
def _short_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    # A stop inside a destructor is told, and comes again.
    monkeypatch.setattr("sys.unraisablehook", lambda _: None)
    monkeypatch.setattr("adallava.processors.stock_processor._TEMPLATE_LIMIT_S", 0.3)
    monkeypatch.setattr("adallava.processors.stock_processor._TEMPLATE_LIMIT_BYTES", 2**28)


@pytest.mark.parametrize("name", FINDINGS)
def test_templates_that_failed_once(name: str, processor: Any, tmp_path: Path) -> None:
    judge(partial(check, processor), FINDINGS[name], tmp_path)


def test_a_valid_template_words_a_question(processor: Any, tmp_path: Path) -> None:
    assert judge(partial(check, processor), _USUAL, tmp_path) is None


@pytest.mark.long
@pytest.mark.timeout(SECONDS_EACH + 120)
def test_fuzz_templates(processor: Any, tmp_path: Path) -> None:
    tally = fuzz("chat templates", templates(), partial(check, processor), tmp_path, findings=len(FINDINGS), at_once=50)
    assert tally.answered
    assert tally.refused
