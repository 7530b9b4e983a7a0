"""How a running sweep looks: a progress bar on a terminal, a line a cell elsewhere."""

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from adallava.runs.observer import SweepObserver

from .console import make_console


class ProgressDisplay(SweepObserver):
    """Shows cell, answers done, rate and remaining time on stderr."""

    def __init__(self) -> None:
        """Prepare; nothing is shown before `begin`."""
        self._console = make_console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.fields[cell]}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("answers, {task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._progress.add_task("sweep", total=None, cell="loading", rate="")
        self._num_failed = 0

    def __enter__(self) -> "ProgressDisplay":
        """Begin to draw."""
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Leave the last state on the screen."""
        self._progress.stop()

    def note(self, message: str) -> None:
        """Print the note above the bar."""
        self._console.print(f"note: {message}", markup=False, highlight=False, soft_wrap=True)

    def begin(self, num_answers: int, num_done: int) -> None:
        """Set the bar's ends."""
        self._progress.update(self._task, total=num_answers, completed=num_done)
        if num_done:
            self.note(f"resuming: {num_done} of {num_answers} answers are there already")

    def cell(self, cell: str, number: int, num_cells: int) -> None:
        """Name the cell."""
        self._progress.update(self._task, cell=f"{cell} ({number}/{num_cells})")
        if not self._console.is_terminal:
            self._console.print(f"[{number}/{num_cells}] {cell}", markup=False, highlight=False)

    def answered(self, num_answers: int, num_failed: int) -> None:
        """Advance the bar."""
        self._num_failed += num_failed
        self._progress.advance(self._task, num_answers)
        speed = self._progress.tasks[0].speed
        failed = f", {self._num_failed} failed" if self._num_failed else ""
        self._progress.update(self._task, rate=f"{speed or 0.0:.1f}/s{failed}")

    def timing(self, batch_size: int, num_cells: int) -> None:
        """Say what is being timed: the bar is full by now."""
        self._progress.update(self._task, cell=f"timing at batch size {batch_size}")
        if not self._console.is_terminal:
            self._console.print(f"timing {num_cells} cells at batch size {batch_size}", markup=False, highlight=False)
