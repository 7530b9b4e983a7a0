"""lmms-eval: `--model adallava` there (entry point group `lmms_eval.models`), `--task lmms:<name>` here.

Checked with lmms-eval 0.7.3. Nothing outside this package imports it.
"""

from typing import Any


def manifests() -> list[Any]:
    """Return what lmms-eval's registry of models reads."""
    # Not above: importing lmms-eval reads its entry points, this one among them.
    from lmms_eval.models.registry_v2 import ModelManifest

    return [ModelManifest(model_id="adallava", chat_class_path=f"{__name__}.lmms_model.AdaLlavaLmms")]
