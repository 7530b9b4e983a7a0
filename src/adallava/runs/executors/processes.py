"""Several processes of one host, each with a model of its own: rank 0 leads, the others answer their share.

Which units are whose is arithmetic (`ranks.is_own`), so nothing is handed out; they meet in files (`shares`).
"""

from collections.abc import Mapping, Sequence
from functools import partial

from adallava.records import SampleRecord
from adallava.records.journal import Journal, read_done
from adallava.runs.executors.in_process import LocalExecutor, keep_answers
from adallava.runs.executors.shares import Lead, Share
from adallava.runs.load_sweep import load_sweep
from adallava.runs.observer import SweepObserver
from adallava.runs.ranks import Ranks, is_own
from adallava.runs.request import SweepRequest
from adallava.runs.units import answer_units
from adallava.tasks import Task


class ProcessesExecutor(LocalExecutor):
    """Rank 0's side."""

    def __init__(self, request: SweepRequest, methods: Mapping[str, bool], task: Task, *, ranks: Ranks) -> None:
        """Take what a local one does, and which process this is among which."""
        super().__init__(request, methods, task)
        self._ranks = ranks

    def answer(self, journal: Journal, observer: SweepObserver) -> None:
        """Answer rank 0's share, wait for the others', and put all of it into the journal; see `Executor.answer`."""
        work = self.loaded.work()
        observer.begin(work.num_answers, len(journal.done))
        with Lead(self._request.output, self._ranks) as lead:

            def keep(records: Sequence[SampleRecord]) -> None:
                """Keep records, and look after the other processes."""
                keep_answers(journal, observer, records)
                lead.look(observer)

            answer_units(work, journal.done, keep, observer, partial(is_own, self._ranks, len(work.batches)))
            lead.wait(observer)
        journal.gather()


def join_sweep(request: SweepRequest, share: Share, ranks: Ranks) -> None:
    """Answer this process's share of a sweep that rank 0 leads.

    Args:
        request: the same as the leader's, but for the device.
        share: of this process, entered.
        ranks: of this process, which does not lead.

    Raises:
        AdallavaError: for a mistake in the request.
        ProcessEndedError: if the leader ends first.
    """
    work = load_sweep(request, SweepObserver()).work()
    share.begin()
    is_ours = partial(is_own, ranks, len(work.batches))
    answer_units(work, read_done(request.output), share.append, SweepObserver(), is_ours)
    share.finish()
