"""Budgets inside vLLM: a plug-in that vLLM finds by itself, and a latency target with it. See docs/how_to/serving.md.

Only `plugin`, `processing`, `cpu_runner`, `vllm_llava`, `vllm_qwen` and `vllm_metrics` import vLLM, or what it brings.
"""
