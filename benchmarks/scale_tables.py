"""Tables of what a long journal costs, and what a long sweep would: for `show.py`, from files of measured figures."""

from typing import Any

GIB, MIB = 1 << 30, 1 << 20
Figures = dict[str, Any]

PHASES = {"open": "opened (resumed)", "sum up": "summed up", "doctor": "diagnosed", "report": "shown"}
TEN_MILLION = 10_000_000

QUESTIONS, METHODS = 214_354, 15
"""VQAv2 val, and methods that are each a cell a budget."""

BUDGETS = (288, 192, 144, 96, 64, 32, 16, 8)
"""Of 576 tokens."""

NEW_TOKENS = 4
"""Of an answer, its end among them."""


def scale(published: Figures) -> list[str]:
    """Return bytes, seconds and memory of journals by form and size, and what 10 million answers would take.

    Rows of the code before page and doctor read whole runs say so.
    """
    rows = ["| sets of patches | answers | | bytes an answer | processor, s | peak, GiB | 10 M answers |"]
    rows.append("| --- | ---: | --- | ---: | ---: | ---: | ---: |")
    for row in published["rows"]:
        form = f"{row['form']}, code before" if row.get("code") == "before" else row["form"]
        begin = f"| {form} | {row['answers']:,} |"
        more = TEN_MILLION / row["answers"]
        if "bytes" in row:
            each, all_gib = row["bytes"] / row["answers"], row["bytes"] * more / GIB
            rows.append(f"{begin} weighs | {each:,.0f} | | | {all_gib:,.0f} GiB |")
        elif row["phase"] in PHASES:
            spent = f"{row['seconds']:.1f} | {row['peak_bytes'] / GIB:.2f} | {row['seconds'] * more / 60:,.0f} min |"
            rows.append(f"{begin} {PHASES[row['phase']]} | | {spent}")
        else:
            rows.append(f"{begin} written in batches of 8: {row['answers_per_s']:,.0f} a second | | | | |")
    return rows


def gpu_hours(speed: Figures, two_gpus: Figures) -> list[str]:
    """Return GPU hours of a big sweep on paper: at the rate of a sweep that was measured, and of the model alone."""
    answers = QUESTIONS * (METHODS * len(BUDGETS) + 1)
    measured = max(row["answers_per_s"] for row in two_gpus["rows"] if row["batch_size"] == 8) / 2
    alone = answers / (model_seconds(speed) * QUESTIONS)
    rows = [
        f"{METHODS} methods x {len(BUDGETS)} budgets and all tokens, VQAv2 val ({QUESTIONS:,} questions), 7B,",
        f"LLaVA-1.5 on an H200 a worker, batches of 8: {answers / 1e6:.1f} M answers.",
        "",
        "| an answer costs | answers/s a GPU | GPU hours | days of 8 GPUs |",
        "| --- | ---: | ---: | ---: |",
    ]
    by_model = f"what the model alone takes, compiled, for {NEW_TOKENS} tokens, in a straight line from K = 64 to 576"
    in_sweep = "what it did in a sweep on two GPUs, images and the start of graphs included"
    for name, rate in ((in_sweep, measured), (by_model, alone)):
        hours = answers / rate / 3600
        rows.append(f"| {name} | {rate:.1f} | {hours:,.0f} | {hours / 24 / 8:.1f} |")
    return rows


def model_seconds(speed: Figures) -> float:
    """Return the seconds of one question through every cell, by the model alone, in batches of 8."""
    found = {
        cell["cell"]: cell["ms"] for cell in speed["cells"] if cell["batch_size"] == 8 and cell["engine"] == "compiled"
    }
    full, few = found["full@1.0"], found["visionzip@64"]

    def at(name: str, keep: int) -> float:
        low, high = few[name]["median"], full[name]["median"]
        # Below 64 nothing was measured: as at 64.
        return float(low + (high - low) * max(0, keep - 64) / (576 - 64))

    def batch_ms(keep: int) -> float:
        return at("time_to_first_token", keep) + (NEW_TOKENS - 1) * at("decode_per_token", keep)

    return (batch_ms(576) + METHODS * sum(map(batch_ms, BUDGETS))) / 8 / 1000
