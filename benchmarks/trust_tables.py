"""Tables of docs/concepts/trust.md and docs/findings/statistics.md: kills, audits of the statistics, fuzzers."""


def kills(made: dict) -> list[str]:
    """What was killed, when and how, and what was wrong once all of it was resumed."""
    titles = {"state": "state of the folder", "phase": "at", "signal": "by", "processes": "processes of the launch"}
    rows = [f"| {made['kills']} kills | |", "| --- | --- |"]
    for name, title in titles.items():
        counts = made["kills_by"][name].items()
        rows.append(f"| {title} | " + "; ".join(f"{what}: {count}" for what, count in counts) + " |")
    wrong = {"lost": "lost", "doubled": "twice", "differing": "other than undisturbed"}
    answers = ", ".join(f"{made[name]} {words}" for name, words in wrong.items())
    rows.append(f"| answers on disk before a kill, after the last run | {made['answers_kept']:,}: {answers} |")
    rows.append(
        f"| of {made['folders']} folders, after the last run | {made['left_over']} files left over, "
        f"{made['unhealthy']} not healthy to `adallava doctor` |"
    )
    rows.append(
        f"| of {made['runs']} launches | {made['hanging']} hung, {made['untold']} without the expected last line |"
    )
    return rows


def statistics(made: dict) -> list[str]:
    """What the audit claimed and found, with the Monte-Carlo error: a table for each part of it."""
    lines = []
    for audit in dict.fromkeys(row["audit"] for row in made["rows"]):
        rows = [row for row in made["rows"] if row["audit"] == audit]
        crossed = len(rows) == len({row["what"] for row in rows}) * len({row["where"] for row in rows})
        lines += ["", *(_crossed(rows) if crossed else _listed(rows))]
    return lines[1:]


def _crossed(rows: list[dict]) -> list[str]:
    """One line for each made-up data set, one column for each claim."""
    claims = {row["what"]: row["claimed"] for row in rows}
    found = {(row["where"], row["what"]): _found(row) for row in rows}
    heads = [what if claim == "–" else f"{what} (claimed: {claim})" for what, claim in claims.items()]
    lines = [f"| {rows[0]['runs']:,} runs each | " + " | ".join(heads) + " |", "| --- |" + " ---: |" * len(claims)]
    for where in dict.fromkeys(row["where"] for row in rows):
        lines.append(f"| {where} | " + " | ".join(found[where, what] for what in claims) + " |")
    return lines


def _listed(rows: list[dict]) -> list[str]:
    lines = ["| | where | claimed | found | runs |", "| --- | --- | ---: | ---: | ---: |"]
    for row in rows:
        lines.append(f"| {row['what']} | {row['where']} | {row['claimed']} | {_found(row)} | {row['runs']:,} |")
    return lines


def _found(row: dict) -> str:
    in_points = row["audit"] in ("areas", "front gains") and "points" in row["what"].partition(":")[0]
    digits = 2 if in_points else 3
    return f"{row['found']:.{digits}f} ± {row['error']:.{digits}f}"


def _shown(fuzzer: str) -> str:
    """Return a fuzzer's name in the words of the docs."""
    return fuzzer.replace("pictures", "images")


def fuzzing(made: dict) -> list[str]:
    """What each fuzzer tried in the last long run, and how many of its findings the tests hold since."""
    heads = ("inputs", "tried", "answered", "refused in words", "slowest", "minutes", "findings so far")
    rows = ["| " + " | ".join(heads) + " |", "| --- |" + " ---: |" * (len(heads) - 1)]
    counted = [row for row in made["rows"] if "error" not in row]
    for row in sorted(counted, key=lambda row: row["fuzzer"].lower()):
        counts = f"{row['tried']:,} | {row['answered']:,} | {row['refused']:,}"
        rows.append(
            f"| {_shown(row['fuzzer'])} | {counts} | {row['slowest_s']:.2f} s | {row['seconds'] / 60:.1f} | "
            f"{row['findings']} |"
        )
    if stopped := 8 - len(counted):
        rows += ["", f"{stopped} of 8 fuzzers stopped at a finding in this run, and counted nothing."]
    return rows
