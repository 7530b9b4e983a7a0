"""The auxiliary losses against stock attention, literal cases and the bundled tokenizer."""

import math

import pytest
import torch
from models import tiny_base

from adallava.families import wrap_model
from adallava.families.picture_inputs import PictureInputs
from adallava.processors.stock_processor import AdaLlavaProcessor
from adallava.tasks.scenes import make_questions, make_scene
from adallava.training.align import WORD_GROUPS, match_scales
from adallava.training.examples import QuestionTokenizer, SceneExamples
from adallava.training.grounding import grounding_loss
from adallava.training.policy import evidence_loss


def test_recomputed_attention_is_what_the_stock_layer_attends_to():
    family = wrap_model(tiny_base(attn_implementation="eager"))
    llm = family.llm_of(family.model)
    torch.manual_seed(0)
    embeds = torch.randn(2, 6, 48)
    places = torch.tensor([[0, 2, 3, 7, 8, 9], [0, 1, 4, 5, 8, 9]])
    causal = torch.ones(6, 6, dtype=torch.bool).tril().expand(2, 6, 6)
    bias = torch.zeros(2, 1, 6, 6).masked_fill(~causal[:, None], torch.finfo(torch.float32).min)
    rows = torch.tensor([[0, 5], [1, 3]])
    with torch.no_grad():
        out = llm(
            inputs_embeds=embeds,
            attention_mask=bias,
            position_ids=places,
            use_cache=False,
            output_attentions=True,
            output_hidden_states=True,
        )
        shares = family.decoder().attention_shares(1, out.hidden_states[1], places, causal, rows)
    expected = torch.stack([out.attentions[1][0, :, 5], out.attentions[1][1, :, 3]])
    torch.testing.assert_close(shares, expected, atol=1e-6, rtol=1e-5)


def test_a_question_without_kept_evidence_teaches_nothing():
    decoder = wrap_model(tiny_base()).decoder()
    causal = torch.ones(1, 1, 4, 4, dtype=torch.bool).tril()
    arguments = (decoder, 0, torch.randn(1, 4, 48), torch.arange(4)[None], causal, torch.tensor([[0, 3]]), slice(0, 2))
    assert grounding_loss(*arguments, torch.tensor([[False, False]])).item() == 0.0
    one, both = (grounding_loss(*arguments, torch.tensor([seen])) for seen in ([True, False], [True, True]))
    assert one > both > 0


def test_evidence_loss_is_the_chance_of_looking_elsewhere_first():
    scores = torch.tensor([[0.0, math.log(3.0)], [5.0, 1.0]])
    loss = evidence_loss(scores, torch.tensor([[False, True], [False, False]]))
    assert loss.item() == pytest.approx(-math.log(3 / 4))


def test_nouns_of_a_relation_are_found_and_point_at_their_objects():
    tokenize = QuestionTokenizer(AdaLlavaProcessor.from_pretrained("tiny"))
    example = SceneExamples(0, 1, 1, ["relation"])[0]
    question = tokenize(example.questions[0], example.answers[0])
    first, second = example.references[0]
    words = example.questions[0].removesuffix("?").split()
    decode = tokenize.tokenizer.decode
    places = [tokenize.place_of(question, reference) for reference in (first, second)]
    assert [decode([question.suffix_ids[place]]).strip() for place in places] == [words[3], words[-1]]
    assert places[0] < places[1]
    (asked,) = make_questions(make_scene("train", 0), ["relation"])
    assert set(asked.patches) == set((first.patches | second.patches).nonzero()[0].tolist())


def test_every_word_that_patches_learn_is_one_token_of_the_bundled_tokenizer():
    tokenizer = AdaLlavaProcessor.from_pretrained("tiny").tokenizer
    forms = [form for group in WORD_GROUPS.values() for value in group for form in value]
    assert [form for form in forms if len(tokenizer(form, add_special_tokens=False)["input_ids"]) != 1] == []


def test_scales_are_matched_without_turning_anything():
    base = tiny_base()
    pixels = torch.randn(3, 3, 28, 28)
    family = wrap_model(base)
    with torch.no_grad():
        before = family.project(family.encode(PictureInputs(pixels)).features)
        match_scales(family, PictureInputs(pixels))
        after = family.project(family.encode(PictureInputs(pixels)).features)
    words = base.get_input_embeddings().weight
    assert after.square().mean().sqrt().item() == pytest.approx(words.square().mean().sqrt().item(), rel=1e-4)
    torch.testing.assert_close(
        torch.nn.functional.normalize(after, dim=-1), torch.nn.functional.normalize(before, dim=-1), atol=1e-5, rtol=0
    )
