"""The demo as a Space: `python app.py` serves what `adallava demo` does."""

import os

from adallava import AdaLlava
from adallava.demo.gradio_page import build_page, serve
from adallava.demo.served_model import ServedModel

MODEL = os.environ.get("ADALLAVA_DEMO_MODEL", "tiny")
"""A bundled name or a hub id; a variable of the Space's settings."""

demo = build_page(ServedModel(AdaLlava.from_pretrained(MODEL, method="full"), max_new_tokens=32))

if __name__ == "__main__":
    serve(demo, host="0.0.0.0", port=7860)
    demo.block_thread()
