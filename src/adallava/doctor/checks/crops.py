"""Additional check: did the model see all of its images?"""

from adallava.doctor.answers import AnswerFile
from adallava.doctor.findings import Observation, found, passed
from adallava.records.picture_frames import CUT_BELOW


def says_what_was_seen(file: AnswerFile) -> bool:
    """Return whether any answer says how much of its image the model saw; older folders and lmms-eval's do not."""
    return any(answer.seen_share is not None for answer in file.answers)


def check_pictures_cut(file: AnswerFile) -> Observation:
    """Additional: the processor cut images, and what was asked about may have been on the part that is gone."""
    shares = {answer.sample_id: answer.seen_share for answer in file.answers if answer.seen_share is not None}
    cut = sorted((share, sample_id) for sample_id, share in shares.items() if share < CUT_BELOW)
    if not cut:
        return passed(f"the model saw all of {len(shares):,} images")
    evidence = (
        f"{len(cut):,} of {len(shares):,} images are cut, the worst to {100 * cut[0][0]:.0f} %: what was asked about "
        "may be in the part that was cut off"
    )
    return found("cannot-tell", [evidence], [sample_id for _, sample_id in cut])
