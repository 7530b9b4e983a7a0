"""The page: Gradio's components, and which of them asks the model for what. Of this room it alone knows Gradio."""

import atexit
import os
import re
from dataclasses import dataclass
from functools import partial
from html import escape
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any

from adallava.demo.example_scenes import example_scenes
from adallava.demo.page_calls import (
    EVERY_LAYER,
    MAX_METHODS,
    least_percent,
    show_answers,
    show_choice,
    show_methods,
)
from adallava.demo.served_model import ServedModel
from adallava.demo.uploads import MAX_PICTURES, MAX_UPLOAD_BYTES
from adallava.errors import InputError, in_short

if TYPE_CHECKING:
    import gradio

_CSS = Path(__file__).with_name("demo.css")
_TITLE = "adallava demo"
_EXAMPLE = re.compile(r"example-\d+\.png")
_FIRST_PERCENT = 25
_OTHER_BUDGETS = "100%, 50%, 10%"
_NUM_COMPARED = 4
_WAITING_CALLS = 64
_ANSWERED_AT_ONCE = 4
_CLEANED_EVERY_S, _KEPT_S = 600, 3600
"""Files that were handed in, and what Gradio made of them."""


def import_gradio() -> Any:
    """Return Gradio, which then reports to nobody.

    Raises:
        InputError: if it is not installed.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    try:
        import gradio
    except ImportError as error:
        raise InputError(f"the demo needs Gradio ({error}): pip install 'adallava[demo]'") from error
    return gradio


@dataclass(frozen=True)
class _Question:
    """Gradio's components of the left column: what is asked, and by which layers."""

    pictures: Any
    text: Any
    scheduler: Any
    layers: Any


@dataclass(frozen=True)
class _Budgets:
    """Those of the tab of one method at several budgets."""

    choice: Any
    method: Any
    others: Any
    ask: Any
    answers: Any


@dataclass(frozen=True)
class _Methods:
    """Those of the tab of several methods at one budget."""

    methods: Any
    compare: Any
    compared: Any


def build_page(served: ServedModel) -> "gradio.Blocks":
    """Return the page of a model, to be launched by `serve`.

    Raises:
        InputError: if Gradio is not installed.
    """
    gr = import_gradio()
    with gr.Blocks(
        title=_TITLE, analytics_enabled=False, fill_width=True, delete_cache=(_CLEANED_EVERY_S, _KEPT_S)
    ) as page:
        gr.HTML(_title_html(served), js_on_load=None)
        with gr.Row():
            with gr.Column(scale=1, min_width=300):
                question = _add_question(gr, served)
            with gr.Column(scale=3, min_width=320):
                percent = gr.Slider(
                    *(1, 100, _FIRST_PERCENT), step=1, label="Budget: % of the vision tokens", elem_id="budget"
                )
                with gr.Tabs():
                    with gr.Tab("Budgets"):
                        budgets = _add_budgets(gr, served)
                    with gr.Tab("Methods"):
                        methods = _add_methods(gr, served)
        _connect(gr, served, page, percent, question, budgets, methods)
    page.queue(max_size=_WAITING_CALLS, api_open=False, default_concurrency_limit=_ANSWERED_AT_ONCE)
    return page


def _add_question(gr: Any, served: ServedModel) -> _Question:
    examples = _save_examples()
    pictures = gr.Gallery(
        value=examples[0][0],
        label=f"Images (up to {MAX_PICTURES}), or a clip",
        file_types=["image", "video"],
        height=200,
        columns=2,
        object_fit="contain",
        interactive=True,
        buttons=[],
        elem_id="pictures",
    )
    _only_files(gr, pictures)
    text = gr.Textbox(value=examples[0][1], label="Question", lines=2, max_lines=4, elem_id="question")
    gr.Examples(
        [list(one) for one in examples],
        [pictures, text],
        label="Examples",
        example_labels=[question for _, question in examples],
        api_visibility="private",
    )
    with gr.Accordion("Layers of the LLM", open=False, visible=bool(served.schedulers)):
        scheduler = gr.Dropdown(
            [EVERY_LAYER, *served.schedulers], value=EVERY_LAYER, label="Scheduler", elem_id="scheduler"
        )
        layers = gr.Slider(1, 100, value=100, step=1, label="% of the layers", interactive=False, elem_id="layers")
    return _Question(pictures, text, scheduler, layers)


def _add_budgets(gr: Any, served: ServedModel) -> _Budgets:
    choice = gr.HTML(js_on_load=None, elem_id="choice", min_height=300)
    with gr.Row(elem_classes="asking"):
        method = gr.Dropdown(list(served.methods), value=served.methods[0], label="Method", elem_id="method")
        others = gr.Textbox(
            value=_OTHER_BUDGETS, label="Answer at this budget, and at", max_lines=1, min_width=200, elem_id="others"
        )
        ask = gr.Button("Answer", variant="primary", scale=0, min_width=160, elem_id="ask")
    answers = gr.HTML(js_on_load=None, elem_id="answers")
    return _Budgets(choice, method, others, ask, answers)


def _add_methods(gr: Any, served: ServedModel) -> _Methods:
    with gr.Row(elem_classes="asking"):
        methods = gr.Dropdown(
            list(served.methods),
            value=list(served.methods[:_NUM_COMPARED]),
            multiselect=True,
            max_choices=MAX_METHODS,
            label="Methods at this budget",
            scale=4,
            elem_id="methods",
        )
        compare = gr.Button("Compare", variant="primary", scale=0, min_width=160, elem_id="compare")
    compared = gr.HTML(js_on_load=None, elem_id="compared")
    return _Methods(methods, compare, compared)


def _connect(
    gr: Any, served: ServedModel, page: Any, percent: Any, question: _Question, budgets: _Budgets, methods: _Methods
) -> None:
    """Say which component asks the model for what, and where it is shown."""
    pictures, text, scheduler, layers = question.pictures, question.text, question.scheduler, question.layers
    hidden: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
    gr.on(
        [page.load, pictures.change, text.change, budgets.method.change, percent.change],
        partial(show_choice, served),
        [pictures, text, budgets.method, percent],
        budgets.choice,
        trigger_mode="always_last",
        **hidden,
    )
    pictures.upload(instead_of_examples, pictures, pictures, **hidden)
    # What is shown there answers something else then.
    gr.on([pictures.change], lambda: ("", ""), None, [budgets.answers, methods.compared], **hidden)
    scheduler.change(partial(_layers_slider, gr, served), scheduler, layers, **hidden)
    told: dict[str, Any] = {"api_visibility": "private", "show_progress": "minimal"}
    asked = [pictures, text, scheduler, layers, percent]
    gr.on(
        [budgets.ask.click, text.submit],
        partial(show_answers, served),
        [*asked, budgets.method, budgets.others],
        budgets.answers,
        **told,
    )
    methods.compare.click(partial(show_methods, served), [*asked, methods.methods], methods.compared, **told)


def serve(page: "gradio.Blocks", *, host: str, port: int, share: bool = False) -> str:
    """Serve a page until `page.close()`, and return its address.

    Args:
        page: of `build_page`.
        host: that is listened on: 127.0.0.1 for this machine alone, 0.0.0.0 for all that can reach it.
        port: likewise.
        share: make a public link through Gradio's servers.

    Raises:
        InputError: for a host or port that cannot be listened on.
    """
    gr = import_gradio()
    try:
        _, local, public = page.launch(
            server_name=host,
            server_port=port,
            share=share,
            quiet=True,
            show_error=False,
            prevent_thread_lock=True,
            max_file_size=MAX_UPLOAD_BYTES,
            footer_links=[],
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            enable_monitoring=False,
            strict_cors=True,
            css_paths=[_CSS],
            theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
        )
    except (OSError, ValueError) as error:
        raise InputError(f"the demo cannot listen on {host}:{port} ({in_short(error)}): give another --port") from error
    return str(public or local)


def _only_files(gr: Any, gallery: Any) -> None:
    """Make a gallery take what a visitor hands in, and fetch nothing from addresses that they name.

    Gradio's own would download them. (A subclass would do, but Gradio writes a file next to the code of each.)
    """
    keep = gallery.async_move_resource_to_block_cache

    async def keep_files(place: Any) -> Any:
        """Take a file, and refuse an address."""
        if str(place).lower().startswith(("http:", "https:")):
            raise gr.Error("Images and clips must be files, not URLs.")
        return await keep(place)

    gallery.async_move_resource_to_block_cache = keep_files


def _layers_slider(gr: Any, served: ServedModel, scheduler: str) -> Any:
    """Return the dial of the layers as a scheduler allows it."""
    least = least_percent(served, scheduler)
    return gr.Slider(min(least, 99), 100, value=100, interactive=scheduler != EVERY_LAYER)


def instead_of_examples(gallery: list[tuple[str, str | None]]) -> list[tuple[str, str | None]]:
    """Return a visitor's own images alone, (file, caption) each: the first takes the place of the example."""
    own = [one for one in gallery if not _EXAMPLE.fullmatch(Path(one[0]).name)]
    return own or gallery


def _save_examples() -> list[tuple[list[str], str]]:
    """Return examples as the page takes them: files, and a question."""
    folder, saved = Path(mkdtemp(prefix="adallava-demo-")), []
    atexit.register(rmtree, folder, ignore_errors=True)
    for number, (picture, question) in enumerate(example_scenes()):
        path = folder / f"example-{number}.png"
        picture.save(path)
        saved.append(([str(path)], question))
    return saved


def _title_html(served: ServedModel) -> str:
    return f'<div class="title"><h1>{_TITLE}</h1><span>{escape(served.name)} · {escape(served.place)}</span></div>'
