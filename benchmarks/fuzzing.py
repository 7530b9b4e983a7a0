"""Runs the fuzzers and keeps what they counted.

`python benchmarks/fuzzing.py --seconds 300 --output docs/results/fuzzing.json`
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from measured import figures, finish

ROOT = Path(__file__).parents[1]


def run_fuzzers(seconds: float, counts: Path) -> list[dict[str, object]]:
    """Return a row a fuzzer, as each wrote it; one that found something has written none, and says what it found."""
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-m", "long", "--show-capture=no", "tests/fuzz"],
        cwd=ROOT,
        env={**os.environ, "ADALLAVA_FUZZ_SECONDS": str(seconds), "ADALLAVA_FUZZ_RESULTS": str(counts)},
        check=False,
    )
    rows = [json.loads(line) for line in counts.read_text().splitlines()] if counts.exists() else []
    return rows if ended.returncode == 0 else [*rows, {"error": f"pytest ended with {ended.returncode}"}]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=300.0, help="for all fuzzers together")
    parser.add_argument("--output", type=Path, help="file for the figures")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = run_fuzzers(args.seconds, Path(folder) / "counts.jsonl")
    finish(figures(seconds=args.seconds, rows=rows), args.output)


if __name__ == "__main__":
    main()
