"""Tables of what whole calls and servers gain: for `show.py`, from the files that the benchmarks write."""

from collections.abc import Iterable, Mapping
from typing import Any

Figures = dict[str, Any]
_SPEEDS = ("time_to_first_token", "total", "decode_per_token")


def speed(published: Figures) -> list[str]:
    """Return the wall clock of whole calls by engine and cell, as medians, and against stock transformers."""
    cells = [cell for cell in published["cells"] if "error" not in cell]
    answer = published["new_tokens"]
    heads = (
        "first token, ms",
        "against stock",
        f"{answer} tokens, ms",
        "against stock",
        "÷ floor",
        "a token, ms",
        "peak, GiB",
    )
    rows = ["| batch | engine | cell | " + " | ".join(heads) + " |"]
    rows.append("| ---: | --- | --- |" + " ---: |" * len(heads))
    for cell in cells:
        (stock,) = (c for c in cells if (c["batch_size"], c["engine"]) == (cell["batch_size"], "transformers"))
        first, whole, token = (cell["ms"][name]["median"] for name in _SPEEDS)
        stock_first, stock_whole, _ = (stock["ms"][name]["median"] for name in _SPEEDS)
        shown = [f"{first:.1f}", f"{stock_first / first:.1f} ×", f"{whole:.0f}", f"{stock_whole / whole:.1f} ×"]
        shown += [f"{cell['over_floor']['total']:.1f}", f"{token:.2f}"]
        shown.append(f"{cell['peak_memory_bytes'] / 2**30:.1f}")
        rows.append(f"| {cell['batch_size']} | {cell['engine']} | `{cell['cell']}` | " + " | ".join(shown) + " |")
    most = published["ceilings"]
    rows += ["", f"Medians of {cells[-1]['repeats']} rounds in turns, of the whole batch; {published['text_tokens']} "]
    rows[-1] += f"tokens of text a prompt, N = {published['num_vision_tokens']}. The machine: "
    rows[-1] += f"{most['flops_per_s'] / 1e12:.0f} TFLOP/s, {most['bytes_per_s'] / 1e12:.2f} TB/s ({most['source']})."
    return rows


def speed_of_shapes(files: Iterable[Figures]) -> list[str]:
    """Return the same of several models, each at batch 1, with its tower."""
    heads = (
        "tower, ms",
        "first token, ms",
        "against stock",
        "33 tokens, ms",
        "against stock",
        "a token, ms",
        "peak, GiB",
    )
    rows = ["| shapes | N | engine | cell | " + " | ".join(heads) + " |"]
    rows.append("| --- | ---: | --- | --- |" + " ---: |" * len(heads))
    for published in files:
        cells = [cell for cell in published["cells"] if "error" not in cell]
        (stock,) = (cell for cell in cells if cell["engine"] == "transformers")
        stock_first, stock_whole, _ = (stock["ms"][name]["median"] for name in _SPEEDS)
        for cell in cells:
            first, whole, token = (cell["ms"][name]["median"] for name in _SPEEDS)
            tower = f"{cell['ms']['vision']['median']:.1f}" if "vision" in cell["ms"] else ""
            shown = [
                tower,
                f"{first:.1f}",
                f"{stock_first / first:.1f} ×",
                f"{whole:.0f}",
                f"{stock_whole / whole:.1f} ×",
            ]
            shown += [f"{token:.2f}", f"{cell['peak_memory_bytes'] / 2**30:.1f}"]
            model = ", ".join(filter(None, (published["shapes"], published.get("image"))))
            names = [model, published["num_vision_tokens"], cell["engine"], f"`{cell['cell']}`"]
            rows.append("| " + " | ".join(map(str, [*names, *shown])) + " |")
    return rows


def speed_line(published: Figures, qwen: Figures) -> list[str]:
    """Return milliseconds at batch 1: stock on all tokens, ours on some, and the same compiled."""
    rows = [
        f"| one H200, batch 1 | stock, {published['num_vision_tokens']} / {qwen['num_vision_tokens']} tokens | "
        "adallava | compiled |",
        "| --- | ---: | ---: | ---: |",
    ]
    llava = ("LLaVA-1.5-7B, 64 tokens by `visionzip`", _at_batch_1(published, "visionzip@64"))
    other = ("Qwen2.5-VL-7B, a quarter by `uniform`", _at_batch_1(qwen, "uniform@0.25"))
    for (name, cells), part, what in (
        (llava, "total", f"answer of {published['new_tokens']} tokens"),
        (llava, "time_to_first_token", "time to first token"),
        (other, "time_to_first_token", "time to first token"),
    ):
        shown = " | ".join(f"{cell[part]['median']:.0f} ms" for cell in cells)
        rows.append(f"| {name}: {what} | {shown} |")
    return rows


def _at_batch_1(published: Figures, cell: str) -> list[Figures]:
    """Return the times of stock on all tokens, and of a cell by default and compiled."""
    found = {(c["engine"], c["cell"]): c["ms"] for c in published["cells"] if c["batch_size"] == 1 and "error" not in c}
    return [found["transformers", "full@1.0"], found["graphs", cell], found["compiled", cell]]


def speed_in_short(published: Figures) -> list[str]:
    """Return what 64 tokens gain at batch 1, by engine."""
    found = {(c["engine"], c["cell"]): c["ms"] for c in published["cells"] if c["batch_size"] == 1 and "error" not in c}
    whole = published["num_vision_tokens"]
    shown = {
        ("transformers", "full@1.0"): f"stock, all {whole} tokens",
        ("graphs", "visionzip@64"): "`graphs`, 64 tokens by `visionzip`",
        ("compiled", "visionzip@64"): "`compiled`, 64 tokens by `visionzip`",
    }
    rows = [f"| | first token, ms | {published['new_tokens']} tokens, ms |", "| --- | ---: | ---: |"]
    for cell, name in shown.items():
        first, total = (found[cell][part]["median"] for part in ("time_to_first_token", "total"))
        rows.append(f"| {name} | {first:.1f} | {total:.0f} |")
    return [*rows, "", "LLaVA-1.5-7B's shapes, batch 1, one H200."]


def served(made: Mapping[str, Any]) -> list[str]:
    """Return what a budget gave inside vLLM, as ratios to every token."""
    rows = [
        "| K | prompt tokens | first token, alone | requests/s, many at once | right, % |",
        "| ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in made["budgets"]:
        kept = round(256 * row["token_budget"]) if row["token_budget"] <= 1 else round(row["token_budget"])
        rows.append(
            f"| {kept} | {row['prompt_tokens']} | {row['ttft_ratio']:.2f} × | {row['requests_per_s_ratio']:.2f} × | "
            f"{100 * row['accuracy']:.1f} |"
        )
    least = min(row["answers"] for row in made["budgets"])
    return [*rows, "", f"{least} answers a row: differences in accuracy are chance."]


def served_target(made: Mapping[str, Any]) -> list[str]:
    """Return the same load without the controller and with it."""
    rows = [
        "| target for p95, ms | requests | p50, ms | p95, ms | p95 in the step | p95 in the spike | mean budget | "
        "last budget | right, % |",
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in made["loads"]:
        target = "none" if row["target_ms"] is None else f"{row['target_ms']:.0f}"
        in_part = {part["part"]: part["ttft_p95_ms"] for part in row["parts"]}
        rows.append(
            f"| {target} | {row['requests']} | {row['ttft_p50_ms']:.0f} | {row['ttft_p95_ms']:.0f} | "
            f"{in_part['step']:.0f} | {in_part['spike']:.0f} | {row['mean_budget']:.2f} | {row['last_budget']:g} | "
            f"{100 * row['accuracy']:.1f} |"
        )
    return rows


def served_on_paper(made: Mapping[str, Any]) -> list[str]:
    """Return what measured parts come to on a GPU."""
    paper = made["on_paper"]
    return [
        f"{paper['first_tokens_per_s_ratio']:.1f} × as many first tokens a second, "
        f"{paper['answers_per_s_ratio']:.1f} × as many answers of 33 tokens, and "
        f"{paper['requests_in_the_same_cache_ratio']:.1f} × as many requests in the same KV cache."
    ]
