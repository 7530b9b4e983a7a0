"""The page as Gradio serves it: what it takes, what it refuses, and that it asks nobody else. See make test-demo."""

import json
import re
import runpy
import socket
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

gradio = pytest.importorskip("gradio", reason="make test-demo installs Gradio")
pytestmark = pytest.mark.demo

import httpx  # noqa: E402

from adallava import AdaLlava  # noqa: E402
from adallava.demo import gradio_page  # noqa: E402
from adallava.demo.served_model import ServedModel  # noqa: E402
from adallava.errors import InputError  # noqa: E402

ROOT = Path(__file__).parents[2]


def test_a_visitors_images_take_the_place_of_the_example() -> None:
    example, own = ("/tmp/a/example-0.png", None), ("/tmp/b/photo.jpg", None)
    assert gradio_page.instead_of_examples([example, own]) == [own]
    assert gradio_page.instead_of_examples([example]) == [example]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture(scope="module")
def page(full: AdaLlava) -> Iterator[Any]:
    made = gradio_page.build_page(ServedModel(full, max_new_tokens=4))
    yield made
    made.close(verbose=False)


@pytest.fixture(scope="module")
def address(page: Any) -> str:
    return gradio_page.serve(page, host="127.0.0.1", port=free_port())


def upload(address: str, name: str, data: bytes) -> httpx.Response:
    return httpx.post(f"{address}gradio_api/upload", files={"files": (name, data)}, timeout=60)


def call(address: str, page: Any, data: list[Any], name: str = "show_choice") -> str:
    """Ask as the page's own script does, and return what came back."""
    number = next(i for i, fn in page.fns.items() if name in str(getattr(fn.fn, "func", fn.fn)))
    asked = {"data": data, "fn_index": number, "session_hash": "test"}
    joined = httpx.post(f"{address}gradio_api/queue/join", json=asked, timeout=60)
    if joined.status_code != 200:
        return joined.text
    event, told = joined.json()["event_id"], ""
    with httpx.stream("GET", f"{address}gradio_api/queue/data?session_hash=test", timeout=60) as stream:
        for line in stream.iter_lines():
            told += line
            if event in line and '"process_completed"' in line:
                break
    return told


def gallery(path: str, url: str | None = None) -> list[Any]:
    return [{"image": {"path": path, "url": url, "meta": {"_type": "gradio.FileData"}}, "caption": None}]


def test_analytics_are_off_and_no_call_is_public(page: Any) -> None:
    assert page.analytics_enabled is False
    config = page.get_config_file()
    assert {one["api_visibility"] for one in config["dependencies"]} == {"private"}
    assert page.get_api_info()["named_endpoints"] == {}


def test_no_address_of_another_host_is_in_the_page(address: str) -> None:
    html = httpx.get(address, timeout=60).text
    loaded = re.findall(r"""(?:src|href|import)\s*[=(]\s*["'](https?:[^"']+)""", html)
    assert [url for url in loaded if not url.startswith(address)] == []


def test_an_upload_is_shown_and_a_large_one_refused(
    address: str, page: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path,) = upload(address, "text.png", b"no picture").json()
    assert "text.png is not an image" in call(address, page, [gallery(path), "what?", "uniform", 25])
    monkeypatch.setattr(page, "max_file_size", 1000)
    assert upload(address, "large.png", bytes(2000)).status_code == 413


@pytest.mark.parametrize("place", ["http://127.0.0.1:{port}/x.png", "HTTPS://example.invalid/x.png"])
def test_no_address_that_a_visitor_names_is_fetched(address: str, page: Any, place: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        other.settimeout(0.5)
        url = place.format(port=other.getsockname()[1])
        for given in (gallery(url), gallery(url, url)):
            told = call(address, page, [given, "what?", "uniform", 25]).replace(" ", "")
            assert '"success":false' in told
            assert "notURLs" in told or place.startswith("HTTPS")  # which Gradio takes for a file's name
        with pytest.raises(TimeoutError):
            other.accept()


@pytest.mark.parametrize("place", ["/etc/passwd", str(ROOT / "pyproject.toml")])
def test_no_file_of_the_server_is_read(address: str, page: Any, place: str) -> None:
    told = call(address, page, [gallery(place), "what?", "uniform", 25])
    assert '"success":false' in told.replace(" ", "")
    assert httpx.get(f"{address}gradio_api/file={place}", timeout=60).status_code in (403, 404)


def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with gradio.Blocks() as empty:
            pass
        with pytest.raises(InputError, match=f"cannot listen on 127.0.0.1:{port}.*another --port"):
            gradio_page.serve(empty, host="127.0.0.1", port=port)


def test_the_space_builds() -> None:
    made = runpy.run_path(str(ROOT / "space" / "app.py"), run_name="app")
    assert json.dumps(made["demo"].get_config_file()).count("what color is the circle?") >= 1
    made["demo"].close(verbose=False)
    front = dict(re.findall(r"^(\w+): (.+)$", (ROOT / "space" / "README.md").read_text(), re.MULTILINE))
    assert (front["sdk"], front["app_file"]) == ("gradio", "app.py")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    gradio, _ = project["optional-dependencies"]["demo"]
    least = re.search(r">=([\d.]+),<7", gradio)
    assert least is not None
    versions = [tuple(map(int, text.split("."))) for text in (least.group(1), front["sdk_version"])]
    assert versions == sorted(versions)
    assert (ROOT / "space" / "requirements.txt").read_text().split() == ["adallava[demo]"]
