"""This project's VQA accuracy in lmms-eval's variant, against lmms-eval's own code over odd texts."""

import random

import pytest

pytest.importorskip("lmms_eval")

from adallava.tasks.vqa_accuracy import lmms_vqa_accuracy

pytestmark = pytest.mark.lmms

PIECES = (
    *("yes", "Yes", "no", "two", "2", "Zero", "ten", "none", "a", "the", "An", "dont", "don't", "isnt", "it's"),
    *("couldnt've", "somebody'd", "1,000", "1,,2", "3.5", "u.s.", "U.S.A.", "red;", "(blue)", "50%", "$5", "@", "_"),
    *("/", "?", "!", " ", ",", ".", "-", "'", "\n", "\t"),
)


def odd_text(draw: random.Random) -> str:
    return "".join(draw.choice(PIECES) + draw.choice(("", " ")) for _ in range(draw.randint(0, 5)))


def test_every_score_is_lmms_evals():
    from lmms_eval.tasks.vqav2.utils import vqav2_process_results

    draw = random.Random(3)
    scores = set()
    for _ in range(400):
        said = [odd_text(draw) for _ in range(draw.randint(1, 4))]
        answers = [draw.choice(said) for _ in range(10)]
        response = draw.choice([*said, odd_text(draw), draw.choice(said).upper()]).strip()
        people = [{"answer": answer, "answer_id": number} for number, answer in enumerate(answers, 1)]
        theirs = vqav2_process_results({"answers": people, "question_id": 1}, [response])["exact_match"]
        assert lmms_vqa_accuracy(response, answers) == pytest.approx(theirs, abs=1e-12), (response, answers)
        scores.add(round(theirs, 3))
    assert {0.0, 0.3, 0.6, 0.9, 1.0} <= scores
