"""What vLLM calls in each of its processes: entry point `vllm.general_plugins`."""

from adallava.serving.choice import Chooses
from adallava.serving.serving_settings import ServingSettings

SERVED = {
    "LlavaForConditionalGeneration": "adallava.serving.vllm_llava:Model",
    "Qwen2_5_VLForConditionalGeneration": "adallava.serving.vllm_qwen:Qwen25Model",
    "Qwen3VLForConditionalGeneration": "adallava.serving.vllm_qwen:Qwen3Model",
}
"""vLLM's architectures, and the classes that take their places."""

_NOT_SERVED = (
    "LlavaNextForConditionalGeneration",
    "LlavaOnevisionForConditionalGeneration",
    "Gemma3ForConditionalGeneration",
    "Idefics3ForConditionalGeneration",
    "SmolVLMForConditionalGeneration",
    "InternVLForConditionalGeneration",
    "Mistral3ForConditionalGeneration",
    "Qwen2VLForConditionalGeneration",
    "Qwen3VLMoeForConditionalGeneration",
)
"""Driven by `AdaLlava`, and not inside vLLM: a server that would ignore its budgets is not started."""


def register() -> None:
    """Put budgeted models in the places of vLLM's own; without a configuration, do nothing.

    Raises:
        AdallavaError: for a configuration that means nothing, or asks for what vLLM cannot do: the server does not
            start.
    """
    settings = ServingSettings.read()
    if settings is None:
        return
    Chooses.by(settings)
    from vllm import ModelRegistry

    from adallava.serving.cpu_runner import let_rows_bring_positions

    let_rows_bring_positions()
    for architecture, path in SERVED.items():
        ModelRegistry.register_model(architecture, path)
    for architecture in _NOT_SERVED:
        ModelRegistry.register_model(architecture, f"adallava.serving.not_served:{architecture}")
