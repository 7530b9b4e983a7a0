"""Names of weights: transformers from version 5 on drops a level that vLLM asks for.

transformers 5 writes     vision_tower.embeddings.…
vLLM reads                vision_tower.vision_model.embeddings.…
"""

from dataclasses import replace
from typing import Any

_TOWER_PARTS = ("embeddings", "encoder", "pre_layrnorm", "post_layernorm", "head")


def named_as_vllm(mapper: Any) -> Any:
    """Return a model's mapper of names that reads both.

    Args:
        mapper: vLLM's own, from names in files to names in its model.
    """
    prefixes = dict(mapper.orig_to_new_prefix)
    for before in ("model.vision_tower.", "vision_tower."):
        for part in _TOWER_PARTS:
            prefixes = {f"{before}{part}.": f"vision_tower.vision_model.{part}.", **prefixes}
    return replace(mapper, orig_to_new_prefix=prefixes)
