"""Additional check: which engines ran the answers?"""

from collections import Counter

from adallava.doctor.answers import AnswerFile
from adallava.doctor.findings import Observation, not_visible, passed


def check_engines(file: AnswerFile) -> Observation:
    """Additional: which engine ran each answer. Cells that different ones ran do not compare in milliseconds."""
    if file.form != "run-folder":
        return not_visible("lmms-eval's samples do not name engines")
    ran = Counter((cell.label, answer.engine) for cell in file.cells for answer in cell.answered)
    if not ran:
        return not_visible("no sample was answered")
    counts = Counter[str]()
    for (_, engine), count in ran.items():
        if engine is not None:
            counts[engine] += count
    if not counts:
        return not_visible("no answer names the engine that ran it: an older version wrote this folder")
    asked = "" if file.config is None else f", {file.config.engine} preferred"
    evidence = [f"{', '.join(f'{engine} ran {count} answers' for engine, count in counts.most_common())}{asked}"]
    if len(counts) > 1:
        usual, _ = counts.most_common(1)[0]
        for other in sorted(set(counts) - {usual}):
            cells = dict.fromkeys(label for label, engine in ran if engine == other)
            evidence.append(f"{other}: {', '.join(cells)}. Their milliseconds are not comparable with the others'")
    unnamed = ran.total() - counts.total()
    if unnamed:
        evidence.append(f"{unnamed} answers name none: an older version wrote them")
    return passed(*evidence)
