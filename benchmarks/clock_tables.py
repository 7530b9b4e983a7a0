"""Tables of time and memory: for `show.py`, from the files that the benchmarks write."""

from typing import Any

from adallava.families.overview import ABILITIES, family_facts

GIB = 1 << 30
MIB = 1 << 20
Figures = dict[str, Any]
_WHO = ("cut", "first", "random", "layers", "heads")


def sweep(published: Figures, batch_size: int) -> list[str]:
    """Return milliseconds a sample by part, and memory, for each cell of one of the big sweeps."""
    (run,) = (one for one in published["runs"] if one["batch_size"] == batch_size)
    parts = ("vision", "selector", "projector", "prefill", "decode", "total")
    rows = ["| cell | " + " | ".join(parts) + " | device GiB | grew | host GiB |"]
    rows.append("| --- |" + " ---: |" * (len(parts) + 3))
    for cell in run["cells"]:
        shown = [f"{cell['part_ms'].get(part, 0.0):.1f}" for part in parts]
        host = cell.get("host_anonymous_bytes")
        shown += [f"{cell['peak_memory_bytes'] / GIB:.2f}", f"{cell['device_growth_bytes']}"]
        rows.append(f"| `{cell['cell']}` | " + " | ".join([*shown, f"{host / GIB:.2f}" if host else "–"]) + " |")
    samples, failed = run["cells"][0]["num_samples"], sum(cell["num_failed"] for cell in run["cells"])
    rows += ["", f"Batch {batch_size}: {len(run['cells'])} cells of {samples} images, {failed} samples failed, "]
    rows[-1] += f"{run['seconds']:.0f} s in all, {run['seconds_answering']:.0f} s of them answering."
    return rows


def new_lengths(published: Figures) -> list[str]:
    """Return what batches of new lengths take, next to those of lengths that the process had seen."""
    names = ("prefill_seen", "prefill_new", "decode_seen", "decode_new")
    rows = ["| batch | cell | prefill, seen | prefill, new | decoding, seen | decoding, new |"]
    rows.append("| ---: | --- |" + " ---: |" * len(names))
    for run in published["runs"]:
        for cell, own in run["new_length_ms"].items():
            shown = [f"{own[f'{name}_ms']:.0f} ({own[f'{name}_batches']})" for name in names]
            rows.append(f"| {run['batch_size']} | `{cell}` | " + " | ".join(shown) + " |")
    tokens = published["runs"][0]["cells"][0]["answer_length"] - 1
    rows += ["", f"ms a batch, medians (batches); decoding is {tokens:.0f} tokens after the first."]
    return rows


def layers(published: Figures) -> list[str]:
    """Return prefill and one decoded token by batch and share of the layers, and what the skipping itself costs."""
    found = {(row["batch"], row["latency"], row["scheduler"]): row for row in published["rows"] if "error" not in row}
    rows = ["| batch | layers | all | " + " | ".join(f"`{who}`" for who in _WHO) + " |"]
    rows.append("| ---: | ---: |" + " ---: |" * (len(_WHO) + 1))
    for batch in dict.fromkeys(key[0] for key in found):
        full = found[batch, "1.0", "full"]
        rows.append(f"| {batch} | 100 % | {_pair(full)} |" + " |" * len(_WHO))
        for latency in [key[1] for key in found if key[0] == batch and key[2] == "cut"]:
            shown = [_pair(found.get((batch, latency, who)), full) for who in _WHO]
            rows.append(f"| {batch} | {100 * float(latency):g} % | | " + " | ".join(shown) + " |")
    rows += ["", "ms of prefill / per decoded token (in parentheses: % of all layers')."]
    stock = [(key[0], found[key[0], "1.0", "full"], row) for key, row in found.items() if key[2] == "transformers"]
    if stock:
        own = [
            f"batch {batch}: {_ms(full, 'first_token_ms'):.1f} and {_ms(full, 'decode_token_ms'):.2f}, "
            f"{_ms(row, 'first_token_ms'):.1f} and {_ms(row, 'decode_token_ms'):.2f}"
            for batch, full, row in stock
        ]
        rows[-1] += " All layers, here and then in transformers' `generate`, ms to the first token and per token: "
        rows[-1] += "; ".join(own) + "."
    mixed = [row for row in published["rows"] if row["latency"] == "1.0 and 0.5" and "error" not in row]
    for row in mixed:
        rows[-1] += f" Latencies 1.0 and 0.5 mixed in a batch of {row['batch']} (`spaced`): "
        rows[-1] += f"{_pair(row, found[row['batch'], '1.0', 'full'])}."
    return rows


def skipping(published: Figures) -> list[str]:
    """Return what each scheduler takes more than the truncated model in the same rounds, in ms."""
    by_batch = {(row["batch"], row["latency"], row["scheduler"]): row for row in published["rows"] if "over_cut" in row}
    rows = ["| batch | layers | " + " | ".join(f"`{who}`" for who in _WHO[1:]) + " |"]
    rows.append("| ---: | ---: |" + " ---: |" * (len(_WHO) - 1))
    for batch, latency in dict.fromkeys(key[:2] for key in by_batch):
        shown = []
        for who in _WHO[1:]:
            over = by_batch.get((batch, latency, who), {}).get("over_cut") or {}
            parts = [over[part] for part in ("prefill_ms", "decode_token_ms") if part in over]
            shown.append(" / ".join(f"{p['median']:+.2f} [{p['low']:+.2f}, {p['high']:+.2f}]" for p in parts) or "–")
        rows.append(f"| {batch} | {100 * float(latency):g} % | " + " | ".join(shown) + " |")
    rounds = {batch: row["repeats"] for (batch, _, _), row in by_batch.items()}
    shown_rounds = ", ".join(f"{count} at batch {batch}" for batch, count in rounds.items())
    rows += [
        "",
        f"ms of prefill / per decoded token on top of `cut`, medians [10 %, 90 %] over rounds: {shown_rounds}.",
    ]
    return rows


def _ms(row: Figures, part: str) -> float:
    return float(row[part]["median"])


def _pair(row: Figures | None, full: Figures | None = None) -> str:
    if row is None:
        return "–"
    shown = [f"{_ms(row, part):.{digits}f}" for part, digits in (("prefill_ms", 1), ("decode_token_ms", 2))]
    if full is not None:
        names = ("prefill_ms", "decode_token_ms")
        shown = [f"{one} ({100 * _ms(row, n) / _ms(full, n):.0f})" for one, n in zip(shown, names, strict=True)]
    return " / ".join(shown)


def loading(published: Figures) -> list[str]:
    """Return seconds and memory of each way to load."""
    titles = {
        "stock": "transformers, then `.to(device)`",
        "adallava": "`AdaLlava.from_pretrained`, as stored",
        "adallava-cast": "the same, to bfloat16",
    }
    names = ("anonymous", "anonymous_peak", "file", "device", "device_peak")
    rows = ["| way | s | host | host peak | mapped file | device | device peak |"]
    rows.append("| --- |" + " ---: |" * (1 + len(names)))
    for row in published["rows"]:
        shown = [f"{row[f'{name}_bytes'] / MIB:,.0f}" if f"{name}_bytes" in row else "–" for name in names]
        rows.append(f"| {titles[row['way']]} | {row['seconds']:.1f} | " + " | ".join(shown) + " |")
    rows += [
        "",
        f"MiB on top of what the libraries take; {published['stored_bytes'] / MIB:,.0f} MiB are stored in float16.",
    ]
    return rows


def converting(published: Figures) -> list[str]:
    """Return what converting the original layout took, and how many weights came through."""
    (row,) = published["rows"]
    return [
        "| MiB pickled | s | host peak, MiB | weights | with other bits | then `adallava generate`, s |",
        "| ---: | ---: | ---: | ---: | ---: | ---: |",
        f"| {row['stored_bytes'] / MIB:,.0f} | {row['seconds']:.0f} | {row['anonymous_peak_bytes'] / MIB:,.0f} | "
        f"{row['weights']} | {row['differing']} | {row['generate_s']:.0f} |",
    ]


def processes(*published: Figures) -> list[str]:
    """Return answers a second by batch size and processes; by engine and launcher where there are several."""
    ways = {"processes": "torchrun", "ray": "Ray"}
    measured = [(number, row) for number, of_day in enumerate(published) for row in of_day["rows"]]
    measured.sort(key=lambda pair: pair[1]["batch_size"])
    optional = {
        "engine": [row.get("engine", "stock") for _, row in measured],
        "by": [ways[row.get("executor", "processes")] for _, row in measured],
    }
    shown_names = [name for name, values in optional.items() if len(set(values)) > 1]
    names = ["batch", *shown_names, "processes", "answers/s", "against one"]
    rows = ["| " + " | ".join([*names, "s before", "s answering", "s after", "other answers"]) + " |"]
    rows.append("|" + " ---: |" * (len(names) + 4))
    alone: dict[tuple[Any, ...], float] = {}
    for place, (number, row) in enumerate(measured):
        group = [values[place] for values in optional.values()]
        # The first of a group is the one process that the others of it are held against.
        one = alone.setdefault((number, row["batch_size"], *group), row["answers_per_s"])
        spent = [f"{row[f'{part}_s']:.1f}" for part in ("starting", "answering", "ending")]
        shown = [f"{row['batch_size']}", *(optional[name][place] for name in shown_names), f"{row['processes']}"]
        shown += [f"{row['answers_per_s']:.1f}", f"{row['answers_per_s'] / one:.2f}", *spent]
        rows.append("| " + " | ".join([*shown, f"{row['differing']} of {row['answers']}"]) + " |")
    return rows


def inside(published: Figures) -> list[str]:
    """Return ms of prefill for each K and method, with the share of the full model's."""
    found = {(row["batch"], row["keep_count"], row["method"]): row for row in published["rows"] if "error" not in row}
    methods = list(dict.fromkeys(row["method"] for row in published["rows"] if row["method"] != "full"))
    rows = ["| batch | K | all tokens | " + " | ".join(f"`{method}`" for method in methods) + " |"]
    rows.append("| ---: | ---: |" + " ---: |" * (1 + len(methods)))
    for batch in dict.fromkeys(key[0] for key in found):
        full = next(_ms(row, "prefill_ms") for key, row in found.items() if key[0] == batch and key[2] == "full")
        for keep in dict.fromkeys(key[1] for key in found if key[0] == batch and key[2] != "full"):
            of_keep = [_ms(found[batch, keep, m], "prefill_ms") if (batch, keep, m) in found else None for m in methods]
            shown = ["–" if ms is None else f"{ms:.1f} ({100 * ms / full:.0f})" for ms in of_keep]
            rows.append(f"| {batch} | {keep} | {full:.1f} | " + " | ".join(shown) + " |")
    rows += ["", "ms of prefill, selection inside the LLM included (in parentheses: % of all tokens')."]
    return rows


def selection(published: Figures) -> list[str]:
    """Return ms of choosing for each method, by images and K."""
    asked: dict[tuple[int, int], dict[str, Figures]] = {}
    place = -1
    for row in published["rows"]:
        # A method may keep fewer than K: what was asked for is the same between two rows of the first method.
        place += row["method"] == published["rows"][0]["method"]
        asked.setdefault((place, row["images"]), {})[row["method"]] = row
    counts = [of["uniform"]["keep_count"] for of in asked.values()]
    heads = [f"{images} × {count}" for (_, images), count in zip(asked, counts, strict=True)]
    rows = ["| method | " + " | ".join(heads) + " |", "| --- |" + " ---: |" * len(heads)]
    for method in next(iter(asked.values())):
        own = [of.get(method, {}) for of in asked.values()]
        rows.append(f"| `{method}` | " + " | ".join(f"{_ms(r, 'ms'):.2f}" if "ms" in r else "–" for r in own) + " |")
    rows += ["", "ms for the given number of images × K, for the method alone, without what the model computes for it."]
    return rows


def engines(published: Figures, many: Figures) -> list[str]:
    """Return how many answers of each engine were held to stock generate's, and what differed."""
    heads = ("float32: calls compared", "differ", "bfloat16: prompts", "differ", "most deviations apart")
    rows = ["| engine | " + " | ".join(heads) + " |", "| --- |" + " ---: |" * len(heads)]
    ties = {row["engine"]: row for row in published["bfloat16"]}
    for row in published["float32"]:
        tie = ties[row["engine"]]
        shown = [row["compared"], len(row["differ"]), tie["prompts"], tie["differ"], f"{tie['most_deviations']:.1f}"]
        rows.append(f"| `{row['engine']}` | " + " | ".join(map(str, shown)) + " |")
    held = many["many_requests"]
    (half, half_bytes, _), (_, last_bytes, _) = held["held_bytes"][len(held["held_bytes"]) // 2], held["held_bytes"][-1]
    rows += ["", f"After {half} of {held['requests']} requests of mixed sizes {half_bytes / MIB:.0f} MiB were "]
    rows[-1] += f"allocated, after all {last_bytes / MIB:.0f}, and {held['graphs']} graphs were held."
    return rows


def quantization(published: Figures) -> list[str]:
    """Return what quantized weights weigh, and how right the bundled model is with them."""
    rows = ["| weights | layers, MB | cell | right, % | against full precision, points | other answers |"]
    rows.append("| --- | ---: | --- | ---: | ---: | ---: |")
    for row in published["rows"]:
        right, apart = row["accuracy"], row["difference"]
        shown = [f"{100 * right['mean']:.1f} [{100 * right['low']:.1f}, {100 * right['high']:.1f}]"]
        shown.append(
            ""
            if apart is None
            else f"{100 * apart['mean']:+.1f} [{100 * apart['low']:+.1f}, {100 * apart['high']:+.1f}]"
        )
        name = published["dtype"] if row["quantization"] == "none" else f"`{row['quantization']}`"
        num_mb = f"{row['layer_bytes'] / 1e6:.1f}"
        rows.append(f"| {name} | {num_mb} | `{row['cell']}` | {' | '.join(shown)} | {row['other_answers'] or ''} |")
    of = f"`{published['model']}` on the first {published['samples']} of `{published['task']}`"
    return [*rows, "", f"{of}; 95 % intervals, differences sample by sample."]


def families() -> list[str]:
    """Return the model families, and what each can do; those that share a class's sentence share a row."""
    rows = ["| `model_type` | image tokens | " + " | ".join(ABILITIES) + " |"]
    rows.append("| --- | --- |" + " :---: |" * len(ABILITIES))
    alike: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for one in family_facts():
        alike.setdefault((one.about, one.abilities), []).append(f"`{one.name}`")
    for (about, abilities), names in alike.items():
        marks = ("yes" if name in abilities else "" for name in ABILITIES)
        rows.append(f"| {', '.join(names)} | {about} | " + " | ".join(marks) + " |")
    return rows
