"""Qwen2-VL: native image size; full attention in the tower."""

from adallava.families.qwen_vl_parts import QwenVLParts


class Qwen2VLFamily(QwenVLParts):
    """Drives a stock `Qwen2VLForConditionalGeneration` stage by stage. Holds it, changes nothing in it."""

    name = "qwen2_vl"
    transformers_class = "Qwen2VLForConditionalGeneration"
    processor_name = "Qwen2VLProcessor"
