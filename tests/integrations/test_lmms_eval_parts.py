"""The parts of the plug-in that lmms-eval itself is not needed for, by small examples."""

import pytest
import torch
from models import tiny_processor
from PIL import Image

from adallava.errors import AdallavaError, InputError, UnsupportedModeError
from adallava.evaluation.ranks import Ranks
from adallava.integrations.lmms_eval.answers import EmptyWatch
from adallava.integrations.lmms_eval.generation import batches_alike, cut_at, generation_arguments, stop_strings
from adallava.integrations.lmms_eval.messages import read_messages
from adallava.integrations.lmms_eval.placement import choose_device


@pytest.mark.parametrize(
    ("device", "device_map", "local_rank", "world_size", "num_cuda", "expected"),
    [
        (None, None, 0, 1, 0, "cpu"),
        (None, None, 0, 1, 2, "cuda"),
        ("cuda:1", None, 0, 1, 2, "cuda:1"),
        (None, "cuda:1", 0, 1, 2, "cuda:1"),
        (None, 1, 0, 1, 2, "cuda:1"),
        ("cpu", "cpu", 0, 1, 2, "cpu"),
        (None, None, 3, 4, 4, "cuda:3"),
        ("cuda", None, 1, 2, 2, "cuda:1"),
        ("cpu", None, 1, 2, 2, "cpu"),
        (None, None, 1, 2, 0, "cpu"),
    ],
)
def test_each_process_has_one_device(device, device_map, local_rank, world_size, num_cuda, expected):
    ranks = Ranks(rank=local_rank, local_rank=local_rank, world_size=world_size)
    assert choose_device(device, device_map, ranks, num_cuda) == torch.device(expected)


@pytest.mark.parametrize(
    ("device", "device_map", "local_rank", "world_size", "error", "message"),
    [
        (None, "auto", 0, 1, UnsupportedModeError, "spreads one model"),
        (None, {"": 0}, 0, 1, UnsupportedModeError, "spreads one model"),
        ("cuda:0", "cuda:1", 0, 1, InputError, "two devices"),
        ("cuda:5", None, 0, 1, InputError, "has 2 CUDA devices"),
        ("cuda:0", None, 1, 2, InputError, "the models of all 2 processes"),
        (None, None, 2, 3, InputError, "local rank 2 of 3 processes"),
        ("gpu", None, 0, 1, InputError, "device='gpu' is not the name"),
    ],
)
def test_a_placement_that_cannot_be_right_is_refused(device, device_map, local_rank, world_size, error, message):
    ranks = Ranks(rank=local_rank, local_rank=local_rank, world_size=world_size)
    with pytest.raises(error, match=message):
        choose_device(device, device_map, ranks, 2)


def test_ranks_are_those_of_the_launcher(monkeypatch):
    assert Ranks.from_environment() == Ranks()
    for name, value in (("RANK", "5"), ("LOCAL_RANK", "1"), ("WORLD_SIZE", "8")):
        monkeypatch.setenv(name, value)
    assert Ranks.from_environment() == Ranks(rank=5, local_rank=1, world_size=8)


def test_requests_are_greedy_unless_a_temperature_is_asked_for():
    assert generation_arguments({}) == {"max_new_tokens": 1024, "do_sample": False}
    asked = {"max_new_tokens": 16, "temperature": 0, "top_p": None, "num_beams": 1, "until": ["\n\n"]}
    assert generation_arguments(asked) == {"max_new_tokens": 16, "num_beams": 1, "do_sample": False}
    warm = {"temperature": 0.7, "top_p": 0.9, "max_new_tokens": 4}
    assert generation_arguments(warm) == {**warm, "do_sample": True}


def test_an_answer_ends_at_the_first_stop_string():
    assert cut_at("red\n\nblue. green", (".", "\n\n")) == "red"
    assert cut_at(" red ", ()) == "red"
    assert stop_strings({"until": "\n"}) == ("\n",)
    assert stop_strings({"until": ["", "a"]}) == ("a",)
    assert stop_strings({}) == ()
    with pytest.raises(InputError, match="neither a string nor a list"):
        stop_strings({"until": [3]})


def test_only_requests_of_one_kind_share_a_batch():
    short, long = {"max_new_tokens": 1}, {"max_new_tokens": 2}
    assert batches_alike([short, long, short, short, long], 2) == [[0, 2], [3], [1, 4]]


def picture(value: int) -> dict[str, object]:
    return {"type": "image", "url": Image.new("L", (8, 8), value)}


def test_pictures_come_first_in_one_question_and_keep_their_order():
    text = {"type": "text", "text": "same?"}
    prompt = read_messages(tiny_processor(), [{"role": "user", "content": [picture(1), picture(2), text]}])
    assert prompt.text == "USER: <image>\n<image>\nsame? ASSISTANT:"
    assert [image.getpixel((0, 0)) for image in prompt.images] == [(1, 1, 1), (2, 2, 2)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([{"type": "video", "url": "a.mp4"}, {"type": "text", "text": "?"}], "a message holds video"),
        ([{"type": "text", "text": "left:"}, picture(1), {"type": "text", "text": "?"}], "takes a chat template"),
        ([{"type": "image", "url": b"bytes"}, {"type": "text", "text": "?"}], "given as bytes"),
        ([{"type": "image", "url": "/nowhere.png"}, {"type": "text", "text": "?"}], "/nowhere.png cannot be read"),
    ],
)
def test_what_cannot_be_put_into_a_prompt_is_refused(content, message):
    with pytest.raises((UnsupportedModeError, InputError), match=message):
        read_messages(tiny_processor(), [{"role": "user", "content": content}])


def test_a_conversation_goes_through_the_chat_template():
    processor = tiny_processor()
    processor.chat_template = (
        "{% for m in messages %}{{ m.role }}:{% for c in m.content %}"
        "{{ '<image>' if c.type == 'image' else c.text }}{% endfor %}|{% endfor %}"
    )
    text = [{"type": "text", "text": "left:"}, picture(1)]
    prompt = read_messages(processor, [{"role": "system", "content": text[:1]}, {"role": "user", "content": text}])
    assert prompt.text == "system:left:|user:left:<image>|"
    assert len(prompt.images) == 1


def test_a_run_of_empty_answers_is_stopped_before_its_end():
    from types import SimpleNamespace

    empty, said = SimpleNamespace(empty_cause="first-token-eos"), SimpleNamespace(empty_cause=None)
    watch = EmptyWatch(0.01)
    for answer in [empty, empty] + [said] * 97:
        watch.see(answer)
        watch.check()  # under a hundred answers are too few to judge
    watch.see(said)
    with pytest.raises(AdallavaError, match="2 of 100 answers are empty"):
        watch.check()
    lenient = EmptyWatch(0.02, seen=100, causes=watch.causes)
    assert lenient.check(finished=True) == "2 of 100 answers are empty (2 first-token-eos)"
