import math
from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from models import tiny_image, tiny_processor
from PIL import Image

from adallava.errors import InputError
from adallava.pipeline.prompt_limit import PromptLimit, max_prompt_tokens, warn_of_positions
from adallava.runs.batches import BatchStore, PreparedBatch, prepare_batch
from adallava.tasks import TaskSample


def sample(number, load_images=None):
    return TaskSample(str(number), "What is it?", ("a",), None, load_images or (lambda: [tiny_image(number)]))


def broken():
    raise InputError("no such\npicture")


def test_a_picture_that_cannot_be_read_leaves_the_others_in_order():
    batch = prepare_batch(tiny_processor(), [sample(0), sample(1, broken), sample(2)])
    assert [s.id for s in batch.samples] == ["0", "2"]
    assert [(s.id, reason) for s, reason in batch.failures] == [("1", "InputError: no such picture")]
    alone = prepare_batch(tiny_processor(), [sample(2)])
    assert torch.equal(batch.inputs["pixel_values"][1], alone.inputs["pixel_values"][0])


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (StopIteration(), "StopIteration: without a message"),
        (OSError("no \ud83d.png"), "OSError: no \\ud83d.png"),
    ],
)
def test_a_failure_is_told_in_words_that_a_file_can_hold(error, said):
    def load():
        raise error

    ((_, reason),) = prepare_batch(tiny_processor(), [sample(0, load)]).failures
    assert reason == said


def test_a_batch_without_any_picture_has_no_inputs():
    batch = prepare_batch(tiny_processor(), [sample(0, broken)])
    assert (batch.samples, batch.inputs, len(batch.failures)) == ((), {}, 1)


@pytest.mark.parametrize("height", [1, 2, 3, 4])
def test_rows_of_a_flat_picture_are_not_taken_for_channels(height):
    colours = [(250, 0, 0), (0, 250, 0)] * 5
    flat = Image.new("RGB", (10, height))
    for place in range(10 * height):
        flat.putpixel((place % 10, place // 10), colours[place % 10])
    (pixels,) = prepare_batch(tiny_processor(), [sample(0, lambda: [flat])]).inputs["pixel_values"]
    red, green, blue = pixels
    assert red.std() > 0.5, "the columns differ in red"
    assert green.std() > 0.5
    assert blue.std() < 0.05, "and not in blue"


def test_the_suffix_is_part_of_the_prompt():
    processor = tiny_processor()
    (ids,) = prepare_batch(processor, [sample(0)], question_suffix=" One word.").inputs["input_ids"]
    assert "What is it? One word." in processor.decode(ids)


@pytest.mark.parametrize(("limit_bytes", "prepared"), [(10_000, [1, 1, 1]), (850, [1, 1, 3]), (0, [3, 3, 3])])
def test_the_first_batches_are_kept_as_far_as_memory_allows(limit_bytes, prepared):
    calls = Counter()

    def prepare(samples):
        calls[samples[0].id] += 1
        return PreparedBatch(tuple(samples), (), {"pixel_values": torch.zeros(100)})

    store = BatchStore([sample(number) for number in range(5)], 2, prepare, limit_bytes)
    assert [[s.id for s in batch] for batch in store.batches] == [["0", "1"], ["2", "3"], ["4"]]
    for _cell in range(3):
        for number in range(3):
            assert store.prepared(store.batches[number]).samples == tuple(store.batches[number])
    assert [calls[name] for name in ("0", "2", "4")] == prepared


def test_a_prompt_beyond_the_positions_fails_alone_and_is_not_padded_to():
    processor = tiny_processor()
    alone = prepare_batch(processor, [sample(0)])
    length = alone.inputs["input_ids"].shape[1]
    long_text = TaskSample("text", "a" * 100_000, ("a",), None, lambda: [tiny_image(1)])
    longer = TaskSample("tokens", "What is it? Or not?", ("a",), None, lambda: [tiny_image(2)])
    batch = prepare_batch(processor, [long_text, sample(0), longer], limit=PromptLimit(length))
    assert [s.id for s in batch.samples] == ["0"]
    assert batch.inputs["input_ids"].tolist() == alone.inputs["input_ids"].tolist()
    reasons = {s.id: reason for s, reason in batch.failures}
    assert "has 100," in reasons["text"]
    assert f"the prompt has {length + 8} tokens, and the LLM has positions for {length} " in reasons["tokens"]


def test_the_limit_is_the_positions_less_the_answer():
    config = SimpleNamespace(get_text_config=lambda: SimpleNamespace(max_position_embeddings=100))
    assert max_prompt_tokens(config, 16).tokens == 84
    with pytest.raises(InputError, match="100 new tokens leave no position"):
        max_prompt_tokens(config, 100)
    assert max_prompt_tokens(SimpleNamespace(get_text_config=SimpleNamespace), 16) is None
    with pytest.warns(UserWarning, match="a prompt of 90 tokens and 16 new ones go past the 100 positions of the LLM"):
        warn_of_positions(config, 90, 16)


def test_the_limit_is_what_memory_holds_where_an_llm_has_positions_without_end():
    text = SimpleNamespace(max_position_embeddings=2**28, num_attention_heads=32)
    config = SimpleNamespace(get_text_config=lambda: text)
    # Of 24 GiB a quarter, and 6 bytes for every two tokens of each of 8 rows: 11,585^2 * 48 is 6 GiB.
    of_batch = max_prompt_tokens(config, 16, rows=8, memory_bytes=24 * 2**30)
    assert of_batch.tokens == 11_585
    assert of_batch.holder == "memory for batches of 8 holds"
    assert max_prompt_tokens(config, 16, rows=1, memory_bytes=24 * 2**30).tokens == 32_768
    by_matrices = max_prompt_tokens(config, 16, rows=8, memory_bytes=24 * 2**30, eager=True)
    assert by_matrices.tokens == math.isqrt(6 * 2**30 // (8 * (6 + 8 * 32)))
    assert max_prompt_tokens(SimpleNamespace(get_text_config=SimpleNamespace), 16, memory_bytes=2**30) is not None


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_picture_that_a_processor_makes_no_numbers_of_fails_alone(value):
    processor = tiny_processor()

    class Breaking:
        chat_template = None
        image_token, tokenizer, image_processor = "<image>", processor.tokenizer, processor.image_processor

        def __call__(self, **given):
            inputs = processor(**given)
            for row, image in zip(inputs["pixel_values"], given["images"], strict=True):
                if image in (broken, [broken]):
                    row[0, 2, 3] = value
            return inputs

    broken = sample(1).load_images()[0]
    batch = prepare_batch(Breaking(), [sample(0), sample(1)])
    assert [s.id for s in batch.samples] == ["0"]
    assert batch.failures[0][0].id == "1"
    assert "NaN or infinite values of the image: look at image_mean" in batch.failures[0][1]
