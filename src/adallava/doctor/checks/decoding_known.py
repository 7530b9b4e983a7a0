"""Additional check: is it known how the answers were decoded?"""

from adallava.doctor.answers import AnswerFile
from adallava.doctor.findings import Observation, not_visible, passed


def check_decoding(file: AnswerFile) -> Observation:
    """Additional: a run folder of an older version, whose checkpoint could change how answers were decoded."""
    if file.form != "run-folder":
        return not_visible("lmms-eval names generation arguments in its results file, not with the samples")
    if file.config is None:
        return not_visible("there is no run.json, which names how answers were decoded")
    decoding = file.config.decoding
    if decoding is None:
        return not_visible(
            "run.json is of an older version, which did not record how answers were decoded: what the checkpoint's "
            "generation_config.json said then (repetition_penalty, num_beams, forced tokens, …) had a part in them. If "
            "it held more than token ids, run again with this version"
        )
    ends = ", ".join(map(str, decoding.eos_token_ids)) or "none"
    return passed(f"{decoding.words}; of the checkpoint: end of an answer {ends}, padding {decoding.pad_token_id}")
