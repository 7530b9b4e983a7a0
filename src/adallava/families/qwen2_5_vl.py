"""Qwen2.5-VL: most layers of the tower look within windows, in whose order it keeps its patches."""

from adallava.families.qwen_vl_parts import QwenVLParts


class Qwen25VLFamily(QwenVLParts):
    """Drives a stock `Qwen2_5_VLForConditionalGeneration` stage by stage. Holds it, changes nothing in it."""

    name = "qwen2_5_vl"
    transformers_class = "Qwen2_5_VLForConditionalGeneration"
    processor_name = "Qwen2_5_VLProcessor"
