"""What the leader and the other ranks of a sweep take from each other's files, without processes."""

import gc
from contextlib import contextmanager, nullcontext

import pytest
from run_records import sample_record

from adallava.records.file_locks import is_locked
from adallava.records.journal import share_file
from adallava.runs.executors import shares
from adallava.runs.executors.shares import Lead, ProcessEndedError, Share, read_standing
from adallava.runs.observer import SweepObserver
from adallava.runs.ranks import Ranks


@pytest.fixture
def silent():
    return SweepObserver()


def finished_share(folder, rank=1):
    with Share(folder, Ranks(rank=rank)) as share:
        share.begin()
        share.append([sample_record()])
        share.finish()
    return share


@contextmanager
def kernel_closing(share):
    """Let go of a rank's file, as its process's end does."""
    share._file.close()
    yield
    share._file = None


def test_a_rank_that_begins_while_the_leader_looks_is_not_taken_for_dead(tmp_path, monkeypatch, silent):
    with Lead(tmp_path, Ranks(world_size=2)) as lead, Share(tmp_path, Ranks(rank=1)) as share:

        def begin_behind(look):
            def looked(*arguments):
                seen = look(*arguments)
                monkeypatch.undo()
                share.begin()
                return seen

            return looked

        # Whichever the leader looks at first, the file or what the rank says: it begins right behind that.
        monkeypatch.setattr(shares, "is_locked", begin_behind(is_locked))
        monkeypatch.setattr(shares, "read_standing", begin_behind(read_standing))
        assert not lead.look(silent)
        assert read_standing(tmp_path, 1) == shares.RankStanding(), "it has begun"
        assert not lead.look(silent)


def test_a_rank_is_gone_only_once_its_process_has_ended(tmp_path, silent):
    """Its model is on the device up to then, and what the leader times is to have the device alone."""
    with Lead(tmp_path, Ranks(world_size=2)) as lead:
        share = finished_share(tmp_path)
        del share
        gc.collect()
        assert read_standing(tmp_path, 1).ended == "finished"
        assert is_locked(share_file(tmp_path, 1)), "this process has not ended"
        assert not lead.look(silent)


def test_a_finished_rank_whose_process_has_ended_is_gone(tmp_path, silent):
    with Lead(tmp_path, Ranks(world_size=2)) as lead, Share(tmp_path, Ranks(rank=1)) as share:
        share.begin()
        share.finish()
        with kernel_closing(share):
            assert lead.look(silent)


def test_a_rank_that_lost_its_leader_has_not_finished(tmp_path):
    share = Share(tmp_path, Ranks(rank=1))
    with Lead(tmp_path, Ranks(world_size=2)):
        share.begin()
    with pytest.raises(ProcessEndedError, match="process 0"), share:
        share.finish()


TORCHRUN = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500", "TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "2"}
"""Alike in every plain launch."""


@pytest.mark.parametrize(
    ("orphan", "leader", "may_join"),
    [
        ("/tmp/a/none_1/attempt_0/1/error.json", "/tmp/a/none_1/attempt_0/0/error.json", True),
        ("/tmp/a/none_1/attempt_0/1/error.json", "/tmp/b/none_2/attempt_0/0/error.json", False),
        ("/tmp/a/none_1/attempt_0/1/error.json", "/tmp/a/none_1/attempt_1/0/error.json", False),
    ],
    ids=["same launch", "next launch", "restarted"],
)
def test_only_a_leader_of_the_same_torchrun_is_joined(tmp_path, monkeypatch, orphan, leader, may_join):
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)

    def refuse_to_wait(_):
        raise AssertionError("it waits")

    monkeypatch.setattr(shares.time, "sleep", refuse_to_wait)
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", leader)
    with Lead(tmp_path, Ranks(world_size=2)), Share(tmp_path, Ranks(rank=1)) as share:
        monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", orphan)
        with nullcontext() if may_join else pytest.raises(AssertionError, match="it waits"):
            share.begin()
    assert share_file(tmp_path, 1).exists() == may_join


@pytest.mark.parametrize("launcher_pid", [-1, -2], ids=["its own", "another"])
def test_without_torchrun_an_orphan_joins_a_leader_of_its_own_launcher_and_else_ends(tmp_path, launcher_pid):
    """The orphan's launcher has ended."""
    share = Share(tmp_path, Ranks(rank=1, world_size=2, launcher_pid=-1))
    ends = nullcontext() if launcher_pid == -1 else pytest.raises(ProcessEndedError, match="launcher ended")
    with Lead(tmp_path, Ranks(world_size=2, launcher_pid=launcher_pid)), ends, share:
        share.begin()
    assert share_file(tmp_path, 1).exists() == (launcher_pid == -1)


def test_a_leader_without_its_launcher_does_not_wait_for_who_has_not_begun(tmp_path, silent):
    ends = pytest.raises(ProcessEndedError, match=r"launcher ended before process 1 had begun")
    with Lead(tmp_path, Ranks(world_size=2, launcher_pid=-1)) as lead, ends:
        lead.wait(silent)


def test_a_rank_whose_disk_is_full_ends_by_its_own_error(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    with Lead(tmp_path, Ranks(world_size=2)):
        share = Share(tmp_path, Ranks(rank=1))
        share.begin()
    monkeypatch.setattr(shares, "_write_standing", full)
    with pytest.raises(ValueError, match="its own"), share:
        raise ValueError("its own")
