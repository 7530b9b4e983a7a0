"""What a parquet file says of a column, read in a process of its own: over odd statistics Arrow ends the process."""

import subprocess
import sys
from pathlib import Path

_SECONDS = 60.0

SAYS = """
import sys, pyarrow.parquet
metadata = pyarrow.parquet.ParquetFile(sys.argv[1]).metadata
groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
columns = [group.column(number) for group in groups for number in range(metadata.num_columns)]
said = [column.statistics for column in columns if column.path_in_schema == sys.argv[2]]
lacks = [one is None or not one.has_null_count or one.null_count > 0 for one in said]
sys.exit(0 if said and not any(lacks) else 1)
"""


def has_all(path: Path, leaf: str) -> bool:
    """Return whether a file says of a leaf column that no value of it is missing; False where it is not known.

    Args:
        path: of a parquet file.
        leaf: the column's path, such as `image.bytes`.
    """
    command = [sys.executable, "-I", "-c", SAYS, str(path.absolute()), leaf]
    try:
        ended = subprocess.run(command, capture_output=True, timeout=_SECONDS, stdin=subprocess.DEVNULL, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return ended.returncode == 0
