"""`adallava demo` on the bundled model in a real browser: what a visitor does, sees, and what leaves the machine."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browsing import CHROMIUM, FLAGS, needs_browser
from models import tiny_image
from test_gradio_page import free_port

pytestmark = [pytest.mark.demo, pytest.mark.long, *needs_browser]

SIZES = {"laptop": (1280, 800), "phone": (390, 844)}


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    port = free_port()
    command = [sys.executable, "-m", "adallava", "demo", "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        said = server.stdout.readline()
        assert f"tiny answers at http://127.0.0.1:{port}/" in said
        yield f"http://127.0.0.1:{port}/"
        server.terminate()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield browser
        browser.close()


class Visitor:
    """A page that was opened, what it asked for, and what it complained of."""

    def __init__(self, browser: Any, address: str, size: str = "laptop", scheme: str = "light") -> None:
        width, height = SIZES[size]
        self.page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
        self.page.set_default_timeout(120_000)
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(address)
        self.page.wait_for_selector("#choice img")

    def kept(self) -> str:
        return str(self.page.locator("#choice figcaption b").inner_text())

    def wait_for(self, words: str, where: str) -> None:
        script = "([where, words]) => document.querySelector(where)?.innerText.includes(words)"
        self.page.wait_for_function(script, arg=[where, words])

    def cards(self, where: str, count: int) -> list[str]:
        script = "([where, count]) => document.querySelectorAll(where + ' .card').length === count"
        self.page.wait_for_function(script, arg=[where, count])
        return list(self.page.locator(f"{where} .card").all_inner_texts())

    def set_budget(self, percent: str) -> None:
        number = self.page.locator("#budget input[type=number]")
        number.fill(percent)
        number.press("Tab")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_a_visit(browser: Any, address: str, size: str, scheme: str, tmp_path: Path) -> None:
    visitor = Visitor(browser, address, size, scheme)
    page = visitor.page
    assert visitor.kept() == "64 of 256 tokens"
    before = page.locator("#choice img").get_attribute("src")
    visitor.set_budget("10")
    visitor.wait_for("25 of 256 tokens", "#choice")
    assert page.locator("#choice img").get_attribute("src") != before

    assert page.eval_on_selector("#others input", "box => box.scrollWidth <= box.clientWidth"), "budgets are cut off"
    page.click("#ask")
    cards = visitor.cards("#answers", 3)  # 10 % stands in both places
    assert [re.findall(r"^(\d+) of 256 tokens", card, re.MULTILINE) for card in cards] == [["256"], ["128"], ["25"]]
    for card in cards:
        assert all(part in card for part in ("8 of 8", "GFLOPs", "tower", "selection", "prefill", "decode"))

    page.get_by_role("tab", name="Methods").click()
    page.click("#compare")
    assert len(visitor.cards("#compared", 4)) == 4

    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "wider than the screen"
    assert page.evaluate("document.body.classList.contains('dark')") == (scheme == "dark")
    assert [url for url in visitor.requests if not url.startswith((address, "data:", "blob:"))] == []
    assert visitor.complaints == []
    page.screenshot(path=tmp_path / f"{size}-{scheme}.png", full_page=True)
    page.close()


def test_dragging_fades_patches_before_the_mouse_is_let_go(browser: Any, address: str) -> None:
    visitor = Visitor(browser, address)
    box = visitor.page.locator("#budget input[type=range]").bounding_box()
    height = box["y"] + box["height"] / 2
    visitor.page.mouse.move(box["x"] + 0.25 * box["width"], height)
    visitor.page.mouse.down()
    for share in (0.4, 0.6, 0.8):
        earlier = visitor.kept()
        visitor.page.mouse.move(box["x"] + share * box["width"], height, steps=3)
        script = "earlier => document.querySelector('#choice figcaption b')?.innerText !== earlier"
        visitor.page.wait_for_function(script, arg=earlier)
    visitor.page.mouse.up()
    visitor.page.close()


def test_pictures_questions_and_mistakes_of_a_visitor(browser: Any, address: str, tmp_path: Path) -> None:
    visitor = Visitor(browser, address)
    page = visitor.page
    text, own = tmp_path / "text.png", tmp_path / "own.png"
    text.write_text("no picture")
    tiny_image(size=(300, 200)).save(own)
    before = page.locator("#choice img").get_attribute("src")
    page.locator("#pictures input[type=file]").first.set_input_files(own)
    script = "before => { const image = document.querySelector('#choice img'); return image && image.src !== before }"
    page.wait_for_function(script, arg=before)
    visitor.wait_for("64 of 256 tokens", "#choice")  # in the example's place, not beside it
    clear, files = page.get_by_role("button", name="Clear", exact=True), page.locator("#pictures input[type=file]")
    for path, said in ((text, "text.png is not an image"), (own, "64 of 256 tokens")):
        clear.click()
        visitor.wait_for("Drop an image", "#choice")
        files.first.set_input_files(path)
        visitor.wait_for(said, "#choice")
    files.first.set_input_files(own)
    visitor.wait_for("128 of 512 tokens", "#choice")

    question = page.locator("#question textarea")
    for asked, said in (("", "the question is empty"), ("what " * 2000, "shorten the question")):
        question.fill(asked)
        visitor.wait_for(said, "#choice")
    bad = '<img src=x onerror="window.taken=1"> ${window.taken=1} {{taken}} what?'
    question.fill(bad)
    visitor.wait_for("128 of 512 tokens", "#choice")
    page.fill("#others textarea, #others input", "0")
    page.click("#ask")
    visitor.wait_for("token budget 0 is out of range", "#answers")
    page.fill("#others textarea, #others input", "100%")
    page.click("#ask")
    visitor.cards("#answers", 2)
    assert bad in page.locator("#answers").inner_text()
    assert page.evaluate("window.taken") is None
    page.close()


def test_a_clip_is_shown_as_frames(browser: Any, address: str, tmp_path: Path) -> None:
    import av

    visitor, path = Visitor(browser, address), tmp_path / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(20):
            container.mux(stream.encode(av.VideoFrame.from_image(tiny_image(size=(64, 48), seed=number))))
        container.mux(stream.encode())
    visitor.page.locator("#pictures input[type=file]").first.set_input_files(path)
    visitor.wait_for("256 of 1,024 tokens", "#choice")
    # All of one shape: none is the example any more, which is square.
    script = "[...document.querySelectorAll('#choice img')].filter(i => i.naturalWidth > i.naturalHeight).length === 4"
    visitor.page.wait_for_function(script)
    visitor.page.close()


def test_two_visitors_at_once(browser: Any, address: str) -> None:
    visitors = [Visitor(browser, address), Visitor(browser, address)]
    for visitor, percent in zip(visitors, ("20", "60"), strict=True):
        visitor.set_budget(percent)
        visitor.page.click("#ask")
    for visitor, kept in zip(visitors, (51, 153), strict=True):
        assert any(f"{kept} of 256" in card for card in visitor.cards("#answers", 4))
        visitor.page.close()


def test_a_scheduler_leaves_layers_out(browser: Any, address: str) -> None:
    visitor = Visitor(browser, address)
    page = visitor.page
    page.get_by_text("Layers of the LLM").click()
    page.locator("#scheduler input").click()
    page.get_by_role("option", name="spaced").click()
    page.wait_for_function("document.querySelector('#layers input[type=range]').disabled === false")
    number = page.locator("#layers input[type=number]")
    number.fill("75")
    number.press("Tab")
    page.fill("#others textarea, #others input", "100%")
    page.click("#ask")
    assert all("6 of 8" in card for card in visitor.cards("#answers", 2))
    page.close()
