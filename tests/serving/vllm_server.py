"""A `vllm serve` of its own on loopback, and what a client asks of it."""

import base64
import io
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
from numpy.typing import NDArray
from PIL import Image

QUIET = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
}
"""For vLLM on a small machine without a network."""

ROOT = Path(__file__).parents[2]

_START_S = 420


@dataclass(frozen=True)
class Server:
    """A running one.

    Attributes:
        url: of its root.
    """

    url: str

    @property
    def client(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=120)

    @property
    def async_client(self) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=300)

    def metric(self, name: str) -> float:
        """Return the sum of a metric's samples."""
        lines = httpx.get(f"{self.url}/metrics", timeout=60).text.splitlines()
        found = [line for line in lines if line.startswith((f"{name} ", f"{name}{{"))]
        return sum(float(line.rsplit(" ", 1)[1]) for line in found)


def ask(question: str, *pictures: NDArray[np.uint8], **options: Any) -> dict[str, Any]:
    """Return the arguments of a chat completion about pictures, as data URLs; greedy, and short."""
    content: list[dict[str, Any]] = [
        {"type": "image_url", "image_url": {"url": data_url(picture)}} for picture in pictures
    ]
    content.append({"type": "text", "text": question})
    body: dict[str, Any] = {"model": "tiny", "messages": [{"role": "user", "content": content}]}
    return {**body, "temperature": 0, "max_completion_tokens": 6, **options}


def data_url(picture: NDArray[np.uint8]) -> str:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


@contextmanager
def vllm_serve(
    model: Path | str,
    log: Path,
    *arguments: str,
    environment: dict[str, str],
    meanwhile: Callable[[], object] = lambda: None,
) -> Iterator[Server]:
    """Serve a model until the block ends.

    Args:
        model: its folder.
        log: file that the server writes to.
        *arguments: of `vllm serve`.
        environment: of the server, beside ours.
        meanwhile: what is done while it starts, which takes a while.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        *(str(Path(sys.executable).parent / "vllm"), "serve", str(model), "--served-model-name", "tiny", str(model)),
        *("--host", "127.0.0.1", "--port", str(port), "--dtype", "float32", "--enforce-eager"),
        *("--max-model-len", "512", "--max-num-seqs", "16", "--gpu-memory-utilization", "0.1"),
        # Each further process imports torch and vLLM for itself.
        *("--distributed-executor-backend", "uni", "--skip-mm-profiling"),
        *arguments,
    ]
    with log.open("wb") as written:
        process = subprocess.Popen(
            command,
            env={**os.environ, **QUIET, **environment},
            stdout=written,
            stderr=written,
            start_new_session=True,
            cwd=ROOT,
        )
    try:
        meanwhile()
        server = Server(f"http://127.0.0.1:{port}")
        _wait(server, process, log)
        yield server
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def readme_lines() -> tuple[dict[str, str], list[str], str]:
    """Return the environment and the arguments of `vllm serve` in the README, and the line that asks it."""
    readme = (ROOT / "README.md").read_text()
    (block,) = (
        one for one in re.findall(r"^```bash\n(.*?)^```", readme, re.DOTALL | re.MULTILINE) if "vllm serve" in one
    )
    _, serve, asks = block.splitlines()
    words = shlex.split(serve)
    begun = words.index("vllm")
    environment = dict(word.split("=", 1) for word in words[:begun])
    assert words[begun : begun + 2] == ["vllm", "serve"]
    return environment, words[begun + 2 :], asks


def _wait(server: Server, process: "subprocess.Popen[bytes]", log: Path) -> None:
    end = time.monotonic() + _START_S
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(log.read_text(errors="replace")[-6000:])
        with suppress(httpx.HTTPError):
            if httpx.get(f"{server.url}/health", timeout=5).status_code == 200:
                return
        time.sleep(0.5)
    raise RuntimeError(f"no server after {_START_S} s: {log.read_text(errors='replace')[-6000:]}")
