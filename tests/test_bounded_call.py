import threading

import pytest

from adallava.processors.bounded_call import call_within


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_stop_that_is_lost_in_a_destructor_comes_again() -> None:
    class Slow:
        def __del__(self) -> None:
            while True:
                pass

    def endless() -> None:
        Slow()
        while True:
            pass

    before = threading.active_count()
    with pytest.raises(TimeoutError, match=r"within 0.2 s"):
        call_within(endless, limit_s=0.2, limit_bytes=2**30)
    assert threading.active_count() == before
