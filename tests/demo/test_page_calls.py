"""What the page shows for the values of its controls: choices, answers, and mistakes as one line."""

from pathlib import Path

import pytest
from models import tiny_image
from PIL import Image

from adallava import AdaLlava
from adallava.budget import TokenBudget
from adallava.demo import uploads
from adallava.demo.bounded_store import BoundedStore
from adallava.demo.page_calls import EVERY_LAYER, least_percent, show_answers, show_choice, show_methods
from adallava.demo.served_model import ServedModel
from adallava.errors import CheckpointError, UnknownNameError
from adallava.families.llava import LlavaFamily
from adallava.model import build_prompt

QUESTION = "what is it?"
NOTICE = '<div class="notice" role="alert">'
Files = list[tuple[str, str | None]]


@pytest.fixture(scope="module")
def served(full: AdaLlava) -> ServedModel:
    return ServedModel(full, max_new_tokens=4)


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("pictures") / "picture.png"
    tiny_image().save(path)
    return str(path)


@pytest.fixture
def files(picture: str) -> Files:
    return [(picture, None)]


def choice(
    served: ServedModel, files: Files | None, question: str = QUESTION, method: str = "uniform", percent: float = 25
) -> str:
    (html,) = show_choice(served, files, question, method, percent)
    return html


def answers(served: ServedModel, files: Files, others: str, question: str = QUESTION) -> list[str]:
    return list(show_answers(served, files, question, EVERY_LAYER, 100, 25, "uniform", others))


def test_a_choice_is_drawn_and_counted(served: ServedModel, files: Files) -> None:
    html = choice(served, files)
    assert "<b>4 of 16 tokens</b> kept by" in html
    assert html.count('src="data:image/jpeg;base64,') == 1
    assert choice(served, files * 2).count("<img ") == 2


def test_dragging_the_budget_runs_the_tower_once(
    served: ServedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "new.png"
    tiny_image(5).save(path)
    runs, encode = [], LlavaFamily.encode
    monkeypatch.setattr(LlavaFamily, "encode", lambda *a, **k: runs.append(1) or encode(*a, **k))
    shown = [choice(served, [(str(path), None)], percent=percent) for percent in (100, 75, 50, 25, 7)]
    assert len(runs) == 1
    assert [f"<b>{kept} of 16 tokens</b>" in html for kept, html in zip((16, 12, 8, 4, 1), shown, strict=True)] == [
        True
    ] * 5
    choice(served, [(str(path), None)], question="why?")
    assert len(runs) == 1


def test_answers_are_those_of_the_library(served: ServedModel, full: AdaLlava, picture: str) -> None:
    model = full.with_method("uniform")
    inputs = model.processor(images=tiny_image(), text=build_prompt(model.processor, QUESTION), return_tensors="pt")
    for budget in (1.0, 3):
        expected = model.generate(**inputs, token_budget=budget, max_new_tokens=4, do_sample=False)
        answer = served.answer([picture], QUESTION, "uniform", TokenBudget.parse(budget))
        assert answer.result.answer == expected.text[0]
        assert answer.result.ran == expected.records[0]
        assert set(answer.result.part_ms or {}) == {"vision", "selector", "projector", "prefill", "decode"}
        assert sum(answer.flops.values()) > 0


def test_answers_come_one_by_one_the_largest_budget_first(served: ServedModel, files: Files) -> None:
    shown = answers(served, files, "100%, 2")
    assert [html.count('<section class="card') for html in shown] == [1, 2, 3]
    kept = [shown[-1].index(f"{count} of 16 tokens</span>") for count in (16, 4, 2)]
    assert kept == sorted(kept)
    assert shown[-1].index("card shown") < kept[1] < shown[-1].index('<section class="card">', kept[1])


def test_budgets_of_as_many_tokens_have_one_card(served: ServedModel, files: Files) -> None:
    # 25 % of 16 tokens are 4, as is the slider's; 999 is more than there are.
    assert answers(served, files, "4, 100%, 999, 30%")[-1].count('<section class="card') == 2


def test_methods_stand_in_the_order_they_were_chosen_in(served: ServedModel, files: Files) -> None:
    *_, html = show_methods(served, files, QUESTION, EVERY_LAYER, 100, 25, ["uniform", "random"])
    assert html.count("4 of 16 tokens</span>") == 2
    assert html.index("</span> uniform</b>") < html.index("</span> random</b>")


def test_a_scheduler_leaves_layers_out(full: AdaLlava, files: Files) -> None:
    served = ServedModel(full, max_new_tokens=4)
    num_layers = full.family.num_llm_layers
    least = least_percent(served, "spaced")
    *_, html = show_answers(served, files, QUESTION, "spaced", least, 25, "uniform", "")
    assert f"<dd>{num_layers} of {num_layers}" not in html
    assert least_percent(served, EVERY_LAYER) == 100
    (line,) = show_answers(served, files, QUESTION, "spaced", 1, 25, "uniform", "")
    assert "the first" in line
    assert "always run" in line


def test_words_of_visitors_are_text(served: ServedModel, files: Files) -> None:
    html = answers(served, files, "", question="<script>what</script> is it?")[-1]
    assert "<script>" not in html
    assert "&lt;script&gt;what&lt;/script&gt; is it?" in html


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"question": "  "}, "the question is empty"),
        ({"question": "half \ud800 a pair"}, "characters that are not text"),
        ({"question": "what " * 2000}, "shorten"),
        ({"percent": 0}, "token budget 0% is out of range"),
        ({"percent": float("nan")}, "token budget nan% is out of range"),
        ({"method": "nobody"}, "there is no method &#x27;nobody&#x27; here: choose one of"),
    ],
)
def test_mistakes_are_one_line(served: ServedModel, files: Files, asked: dict[str, object], said: str) -> None:
    html = choice(served, files, **asked)  # type: ignore[arg-type]
    assert html.startswith(NOTICE)
    assert said in html


@pytest.mark.parametrize("others", ["0", "-1", "abc", "nan", "200%", "1 2 3 4 5 6"])
def test_other_budgets_that_mean_nothing_are_refused_before_anything_runs(
    served: ServedModel, files: Files, others: str
) -> None:
    (html,) = answers(served, files, others)
    assert html.startswith(NOTICE)


def test_no_picture_no_method_or_too_many_are_said(served: ServedModel, files: Files) -> None:
    assert choice(served, None) == f"{NOTICE}Drop an image, or choose an example.</div>"
    assert "5 images are too many" in choice(served, files * 5)
    for methods, said in (([], "no method is chosen"), (["uniform"] * 7, "7 methods are too many")):
        (html,) = show_methods(served, files, QUESTION, EVERY_LAYER, 100, 25, methods)
        assert said in html


def test_files_that_are_no_pictures_are_named_without_their_folder(
    served: ServedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, strip = tmp_path / "text.png", tmp_path / "strip.png"
    text.write_text("no picture")
    Image.new("1", (9000, 40)).save(strip)
    for path, said in ((text, "text.png is not an image"), (strip, "strip.png is 9000x40: sides may differ")):
        html = choice(served, [(str(path), None)])
        assert said in html
        assert str(tmp_path) not in html
    square = tmp_path / "square.png"
    Image.new("RGB", (20, 20)).save(square)
    monkeypatch.setattr(uploads, "MAX_UPLOAD_PIXELS", 500)
    assert "more than 500 pixels together" in choice(served, [(str(square), None)] * 2)


def test_what_goes_wrong_inside_is_one_line_and_the_log_has_the_rest(
    served: ServedModel, files: Files, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("the device\nis gone")

    monkeypatch.setattr(ServedModel, "choose", fails)
    html = choice(served, files)
    assert html.startswith(NOTICE)
    assert "RuntimeError: the device is gone" in html
    assert "Traceback" not in html
    assert "Traceback" in capsys.readouterr().err


def test_adapters_are_read_before_anything_is_served(full: AdaLlava, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="'nobody', which is neither a method nor a scheduler"):
        ServedModel(full, {"nobody": tmp_path}, max_new_tokens=4)
    with pytest.raises(CheckpointError):
        ServedModel(full, {"question": tmp_path}, max_new_tokens=4)


def test_a_store_keeps_what_was_used_last() -> None:
    class Weight:
        def __init__(self, num_bytes: int) -> None:
            self.num_bytes = num_bytes

    made: list[str] = []

    def make(name: str, num_bytes: int) -> Weight:
        made.append(name)
        return Weight(num_bytes)

    store: BoundedStore[Weight] = BoundedStore(10)
    for name, num_bytes in (("a", 4), ("b", 4), ("a", 4), ("c", 4), ("a", 4), ("b", 4), ("huge", 11), ("huge", 11)):
        store.get(name, lambda name=name, num_bytes=num_bytes: make(name, num_bytes))  # type: ignore[misc]
        assert store.num_bytes <= 10
    assert made == ["a", "b", "c", "b", "huge", "huge"]
