"""What vLLM finds in the place of a model that takes no budget there: the reason."""

from typing import NoReturn

from adallava.errors import UnsupportedModeError


def __getattr__(name: str) -> NoReturn:
    """Refuse an architecture.

    Raises:
        UnsupportedModeError: always.
    """
    if name.startswith("__"):
        raise AttributeError(name)
    raise UnsupportedModeError(
        f"{name} takes no token budget inside vLLM (LLaVA-1.5, Qwen2.5-VL and Qwen3-VL do): start vLLM without "
        "ADALLAVA_METHOD, or answer with AdaLlava.generate"
    )
