"""How much of its pictures a run's model saw."""

from collections.abc import Iterable, Mapping, Sequence

from adallava.picture_frames import CUT_BELOW
from adallava.records import SampleRecord, SeenPictures


def seen_shares(records: Iterable[SampleRecord]) -> dict[str, float]:
    """Return, by sample id, the share of its picture that the model saw, where it is recorded."""
    shares = ((record.sample_id, record.seen_share) for record in records)
    return {sample_id: share for sample_id, share in shares if share is not None}


def sum_up_seen(cells: Sequence[Mapping[str, float]]) -> SeenPictures | None:
    """Count the pictures of all cells, each once; None where nothing is known of any."""
    shares: dict[str, float] = {}
    for cell in cells:
        shares |= cell
    if not shares:
        return None
    num_cut = sum(share < CUT_BELOW for share in shares.values())
    return SeenPictures(num_pictures=len(shares), num_cut=num_cut, least_share=min(shares.values()))
