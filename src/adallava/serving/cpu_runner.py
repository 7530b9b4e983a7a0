"""vLLM on a CPU: its runner, up to 0.32, never asks whether a model's rows bring positions along, as the GPU's does."""

from functools import wraps
from typing import Any


def let_rows_bring_positions() -> None:
    """Make the CPU's runner ask, once a process; elsewhere, do nothing."""
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return
    from vllm.model_executor.models.interfaces import supports_multimodal_pruning
    from vllm.v1.worker.cpu_model_runner import CPUModelRunner

    load = CPUModelRunner.load_model
    if hasattr(load, "__wrapped__"):
        return

    @wraps(load)
    def load_and_ask(self: Any, *args: Any, **kwargs: Any) -> Any:
        """Load the model, and ask it, as the GPU's runner does, whether it prunes."""
        result = load(self, *args, **kwargs)
        multimodal = self.model_config.multimodal_config
        self.is_multimodal_pruning_enabled = (
            supports_multimodal_pruning(self.get_model())
            and multimodal is not None
            and multimodal.is_multimodal_pruning_enabled()
        )
        return result

    CPUModelRunner.load_model = load_and_ask
