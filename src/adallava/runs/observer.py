"""Who hears how a sweep goes."""


class SweepObserver:
    """Hears how a sweep goes. Every method does nothing; override those of interest."""

    def note(self, message: str) -> None:
        """Something a person should know."""

    def begin(self, num_answers: int, num_done: int) -> None:
        """All cells together have `num_answers` answers, of which a resumed run has `num_done` already."""

    def cell(self, cell: str, number: int, num_cells: int) -> None:
        """The cell with this number, from 1, begins."""

    def answered(self, num_answers: int, num_failed: int) -> None:
        """So many more answers are on disk."""

    def timing(self, batch_size: int, num_cells: int) -> None:
        """All answers are there; so many cells are about to be timed at this batch size."""
