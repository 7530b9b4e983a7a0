"""From the layout of the original LLaVA code to a stock Hugging Face folder."""

from adallava.conversion.from_llava import Converted, convert_llava

__all__ = ["Converted", "convert_llava"]
