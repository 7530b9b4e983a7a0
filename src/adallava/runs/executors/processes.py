"""Several processes of one host, each with a model of its own: rank 0 leads, the others answer their share.

Which units are whose is arithmetic (`ranks.is_own`), so nothing is handed out; they meet in files (`shares`).
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from adallava.records import SampleRecord
from adallava.records.answer_places import AnswerPlaces
from adallava.records.journal import Journal
from adallava.runs.executors.shares import Lead, Share
from adallava.runs.observer import SweepObserver
from adallava.runs.ranks import Ranks, is_own
from adallava.runs.units import Work, answer_units


class ProcessesExecutor:
    """Rank 0's side."""

    def __init__(self, folder: Path, ranks: Ranks) -> None:
        """Take the run folder, and which process this is among which."""
        self._folder = folder
        self._ranks = ranks

    def run(self, work: Work, journal: Journal, observer: SweepObserver) -> None:
        """Answer rank 0's share, wait for the others', and put all of it into the journal; see `Executor.run`."""
        observer.begin(work.num_answers, len(journal.done))
        with Lead(self._folder, self._ranks) as lead:

            def keep(records: Sequence[SampleRecord]) -> None:
                journal.append(records)
                observer.answered(len(records), sum(record.score is None for record in records))
                lead.look(observer)

            answer_units(work, journal.done, keep, observer, partial(is_own, self._ranks, len(work.batches)))
            lead.wait(observer)
        journal.gather()


def answer_share(work: Work, done: AnswerPlaces, share: Share, ranks: Ranks) -> None:
    """Answer the share of a rank that does not lead.

    Args:
        work: the same as the leader's.
        done: in the folder by now.
        share: begun.
        ranks: of this process.
    """
    answer_units(work, done, share.append, SweepObserver(), partial(is_own, ranks, len(work.batches)))
    share.finish()
