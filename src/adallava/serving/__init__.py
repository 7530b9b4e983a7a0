"""Budgets inside vLLM: a plug-in that vLLM finds by itself, and a latency target beside it. See docs/serving.md.

Only `plugin`, `processing`, `chosen_rows_of`, `llava`, `qwen_vl` and `vllm_metrics` import vLLM.
"""
