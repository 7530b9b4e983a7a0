"""A packed question is the question alone: same logits, same targets, whatever stands beside it."""

import torch
from models import tiny_base, tiny_image
from tiny_qwen import tiny_qwen_base, tiny_qwen_processor

from adallava import AdaLlava
from adallava.families import wrap_model
from adallava.families.capabilities.of_pictures import take_pictures
from adallava.families.picture_inputs import PictureInputs
from adallava.processors.stock_processor import build_prompt, make_inputs
from adallava.selection.selector_contract import Selection
from adallava.training.base_stage import run_packed
from adallava.training.examples import QuestionTokenizer
from adallava.training.packing import IGNORE, TokenizedQuestion, pack, packed_mask, packed_positions, shared_positions

FIRST = TokenizedQuestion(prefix_ids=(7,), suffix_ids=(11, 12, 13), answer_ids=(21, 2))
SECOND = TokenizedQuestion(prefix_ids=(7,), suffix_ids=(14, 15), answer_ids=(22, 23, 2))


def test_rows_hold_one_question_after_another():
    packed = pack([[FIRST, SECOND], [SECOND]], pad_token_id=0)
    assert packed.prefix_ids.tolist() == [[7], [7]]
    assert packed.text_ids.tolist() == [[11, 12, 13, 21, 14, 15, 22, 23], [14, 15, 22, 23, 0, 0, 0, 0]]
    assert packed.segment.tolist() == [[0, 0, 0, 0, 1, 1, 1, 1], [0, 0, 0, 0, -1, -1, -1, -1]]
    assert packed.offset.tolist() == [[0, 1, 2, 3, 0, 1, 2, 3], [0, 1, 2, 3, 0, 0, 0, 0]]
    # The target at a place is the id that follows it; a question's own words are not learned.
    assert packed.targets.tolist() == [
        [IGNORE, IGNORE, 21, 2, IGNORE, 22, 23, 2],
        [IGNORE, 22, 23, 2, IGNORE, IGNORE, IGNORE, IGNORE],
    ]


def test_a_question_sees_the_picture_and_itself_and_nothing_of_its_neighbours():
    packed = pack([[FIRST, SECOND]], pad_token_id=0)
    sees = packed_mask(packed, num_kept=2)[0, 0]
    #             prefix, 2 kept, question 1 (4), question 2 (4)
    assert sees[1].tolist() == [True, True] + [False] * 9
    assert sees[5].tolist() == [True, True, True, True, True, True, False, False, False, False, False]
    assert sees[8].tolist() == [True, True, True, False, False, False, False, True, True, False, False]


def test_positions_are_those_of_the_unpruned_prompt():
    packed = pack([[FIRST, SECOND]], pad_token_id=0)
    shared = shared_positions(wrap_model(tiny_base()), packed, PictureInputs(torch.zeros(1, 3, 28, 28)))
    positions = packed_positions(packed, torch.tensor([[3, 9]]), shared)
    assert positions.tolist() == [[0, 4, 10, 17, 18, 19, 20, 17, 18, 19, 20]]


def test_packed_logits_equal_those_of_each_question_alone_in_the_stock_model():
    base = tiny_base()
    family = wrap_model(base)
    torch.manual_seed(0)
    with torch.no_grad():
        pictures = PictureInputs(torch.randn(2, 3, 28, 28))
        features = family.encode(pictures).features
        kept_indices = torch.tensor([[1, 4, 9], [0, 7, 15]])
        kept = family.project(Selection(kept_indices, (3, 3)).apply(features))
        rows = [[FIRST, SECOND], [SECOND]]
        packed = pack(rows, pad_token_id=0)
        run = run_packed(family, kept, kept_indices, packed, shared_positions(family, packed, pictures))

        alone = []
        for row, questions in enumerate(rows):
            for question in questions:
                text = torch.tensor([[*question.suffix_ids, *question.answer_ids[:-1]]])
                embed = base.get_input_embeddings()
                embeds = torch.cat([embed(torch.tensor([[7]])), kept[row : row + 1], embed(text)], dim=1)
                places = [0, *(1 + kept_indices[row]).tolist(), *range(17, 17 + text.shape[1])]
                output = base(
                    inputs_embeds=embeds,
                    attention_mask=torch.ones(embeds.shape[:2], dtype=torch.int64),
                    position_ids=torch.tensor([places]),
                )
                alone.append(output.logits[0, -len(question.answer_ids) :])
    assert run.targets.tolist() == [21, 2, 22, 23, 2, 22, 23, 2]
    torch.testing.assert_close(run.logits, torch.cat(alone), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_packed_logits_of_rows_and_columns_equal_those_of_each_question_alone_in_the_stock_model():
    """M-RoPE: the stock model itself places the picture's tokens and the text behind them."""
    model = AdaLlava(tiny_qwen_base("qwen2_5_vl"), tiny_qwen_processor("qwen2_5_vl"))
    family, processor = model.family, model.processor
    questions, images = ("what is it?", "is it red?"), [tiny_image(seed, (40, 24)) for seed in range(2)]
    prompts = [build_prompt(processor, question) for question in questions]
    tokenize = QuestionTokenizer(processor)
    packed = pack([[tokenize(question, "yes") for question in questions]] * 2, pad_token_id=0)
    given, _ = take_pictures(family, make_inputs(processor, images, prompts))
    assert given is not None
    features = family.encode(given).features
    everything = torch.arange(features.shape[1]).expand(2, -1)
    shared = shared_positions(family, packed, given)
    run = run_packed(family, family.project(features), everything, packed, shared)

    alone = []
    for image in images:
        for prompt, question in zip(prompts, questions, strict=True):
            made = make_inputs(processor, [image], [prompt])
            made.pop("mm_token_type_ids", None)
            answer = torch.tensor([tokenize(question, "yes").answer_ids])
            ids = torch.cat([made["input_ids"], answer[:, :-1]], dim=1)
            pixels = {"pixel_values": made["pixel_values"], "image_grid_thw": made["image_grid_thw"]}
            types = (ids == family.image_token_id).int()
            mask = torch.ones_like(ids)
            logits = model.base(input_ids=ids, attention_mask=mask, mm_token_type_ids=types, **pixels).logits
            alone.append(logits[0, -answer.shape[1] :])
    torch.testing.assert_close(run.logits, torch.cat(alone), atol=1e-4, rtol=1e-4)
