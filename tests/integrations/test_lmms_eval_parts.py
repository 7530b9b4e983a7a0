"""The parts of the plug-in that lmms-eval itself is not needed for, by small examples."""

from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from models import tiny_processor
from PIL import Image

from adallava.budget import Latency, TokenBudget
from adallava.errors import AdallavaError, BudgetError, InputError, UnsupportedModeError
from adallava.integrations.lmms_eval.device import choose_device
from adallava.integrations.lmms_eval.empty_answers import Outcomes, check_empties, most_answers
from adallava.integrations.lmms_eval.generation import batches_alike, cut_at, generation_arguments, stop_strings
from adallava.integrations.lmms_eval.messages import check_nothing_is_left_out, read_messages
from adallava.integrations.lmms_eval.settings import Settings, join_arguments
from adallava.integrations.lmms_eval.totals import Totals, over_processes
from adallava.report.seen import cut_words
from adallava.runs.ranks import Ranks


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
        (None, "auto", 0, 1, 0, "cpu"),
        (None, "auto", 0, 1, 1, "cuda"),
        ("cpu", "auto", 0, 1, 1, "cpu"),
        (None, "auto", 1, 2, 0, "cpu"),
        (None, "", 0, 1, 1, "cuda"),
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
        ([{"type": "text", "text": "left:"}, picture(1), {"type": "text", "text": "?"}], "needs a chat template"),
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


def outcomes(task: str, with_text: int, empty: int) -> Outcomes:
    return Counter({(task, None): with_text, (task, "first-token-eos"): empty})


def test_each_task_is_judged_by_its_own_answers():
    good, bad = outcomes("good", 5000, 0), outcomes("bad", 0, 50)
    assert check_empties(good, 0.01) == []
    with pytest.raises(AdallavaError, match=r"^bad: 50 of 50 answers are empty \(50 first-token-eos\), more than"):
        check_empties(good + bad, 0.01)  # of both together, less than 1 %
    with pytest.raises(AdallavaError, match=r"^bad: 50 of 50 .*; worse: 3 of 3 answers"):
        check_empties(good + bad + outcomes("worse", 0, 3), 0.01)


@pytest.mark.parametrize(("empty", "share"), [(1, 0.01), (29, 0.29), (57, 0.57)])
def test_exactly_the_share_passes_and_is_told(empty, share):
    told = [f"a: {empty} of 100 answers are empty ({empty} first-token-eos)"]
    assert check_empties(outcomes("a", 100 - empty, empty), share) == told
    with pytest.raises(AdallavaError, match="max_empty_share=1"):
        check_empties(outcomes("a", 99 - empty, empty + 1), share)


def test_answers_to_come_can_make_up_for_empty_ones_until_they_are_too_few():
    most = {"a": 1000}
    assert check_empties(outcomes("a", 90, 10), 0.01, most) == [
        "a: 10 of 100 answers so far are empty (10 first-token-eos)"
    ]
    with pytest.raises(AdallavaError, match="a: 11 of 101 answers so far are empty"):
        check_empties(outcomes("a", 90, 11), 0.01, most)
    assert check_empties(outcomes("a", 80, 19), 0.01, most, enough=100) == []
    with pytest.raises(AdallavaError, match="a: 19 of 100 answers so far"):
        check_empties(outcomes("a", 81, 19), 0.01, most, enough=100)


@given(
    empty=st.lists(st.booleans(), min_size=1, max_size=60),
    world_size=st.integers(1, 9),
    repeats=st.integers(1, 3),
    max_share=st.sampled_from([0.0, 0.01, 0.1, 0.3, 0.5, 1.0]),
)
def test_no_process_fails_a_run_that_passes_as_a_whole(empty, world_size, repeats, max_share):
    """Documents go to processes in turns; each judges its own answers, after every one of them."""
    answers = [outcomes("a", not one, one) for one in empty for _ in range(repeats)]
    try:
        check_empties(sum(answers, Counter()), max_share)
    except AdallavaError:
        return
    for rank in range(world_size):
        documents = range(rank, len(empty), world_size)
        own = [answers[document * repeats + repeat] for document in documents for repeat in range(repeats)]
        most = most_answers({"a": len(own)}, repeats, world_size)
        for seen in range(1, len(own) + 1):
            check_empties(sum(own[:seen], Counter()), max_share, most)


def test_arguments_are_read_as_lmms_eval_gives_them():
    settings = Settings.read(
        "tiny",
        method="cdpruner",
        token_budget=0.25,
        latency="24",
        scheduler="fixed",
        scheduler_adapter=None,
        scheduler_prefix_layers=2,
        scheduler_plans="6/4+7",
        relevance="llm-embeddings",
        batch_size="8",
        device="cpu",
    )
    config = settings.config
    assert config.scheduler_options == {"fixed": {"prefix_layers": 2, "plans": "6/4+7"}}
    assert config.method_options == {"cdpruner": {"relevance": "llm-embeddings"}}
    assert (config.model, config.batch_size, config.device, settings.scheduler_adapter) == ("tiny", 8, "cpu", None)
    assert settings.cell.cell == "cdpruner@0.25/fixed@24"
    assert settings.cell.call() == {
        "token_budget": TokenBudget(ratio=0.25),
        "latency": Latency(count=24),
        "positions": "original",
    }
    plain = Settings.read("tiny")
    assert (plain.cell.cell, plain.config.batch_size, plain.max_empty_share) == ("full@1.0", 1, 0.01)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"latency": 0.5}, "latency=0.5 leaves layers of the LLM out"),
        ({"token_budget": 0.5}, "method=full, which keeps every token"),
        ({"scheduler_prefix_layers": 2}, "scheduler_prefix_layers without a scheduler"),
        ({"scheduler_adapter": "here"}, "scheduler_adapter without a scheduler"),
        ({"batch_size": "auto"}, "batch_size='auto' is not supported"),
        ({"seed": "abc"}, "seed='abc' is refused"),
        ({"seed": True}, "seed=True is refused"),
        ({"verbose": "yes"}, "verbose='yes' is refused: Input should be a valid boolean"),
        ({"max_empty_share": 7}, "max_empty_share=7 is refused: Input should be less than or equal to 1"),
        ({"positions": "kept"}, "positions='kept' is refused: Input should be 'original' or 'compact'"),
        ({"tokenbudget": 0.5}, r"tokenbudget \(did you mean token_budget\?\) is not an argument here"),
        ({"layers": 4}, "layers is not an argument here, and method=full has no options: the arguments are pretrained"),
    ],
)
def test_arguments_that_mean_nothing_together_are_refused(given, message):
    with pytest.raises((BudgetError, InputError), match=message):
        Settings.read("tiny", **given)


def test_a_folder_may_have_a_number_for_a_name():
    assert Settings.read(2026, scheduler_adapter=None) == Settings.read("2026")  # type: ignore[arg-type]


def test_arguments_come_from_one_place():
    assert join_arguments({"pretrained": "tiny", "seed": 1}, {"batch_size": "8", "device": None}) == {
        "pretrained": "tiny",
        "seed": 1,
        "batch_size": "8",
    }
    with pytest.raises(InputError, match="device='cpu' is one of --model_args, and --device says 'cuda'"):
        join_arguments({"pretrained": "tiny", "device": "cpu"}, {"device": "cuda"})
    with pytest.raises(InputError, match="names no model"):
        join_arguments({"method": "uniform"}, {"batch_size": "8"})


def test_a_question_may_say_where_its_pictures_stand():
    text = {"type": "text", "text": "left: <image> right: <image> same?"}
    prompt = read_messages(tiny_processor(), [{"role": "user", "content": [picture(1), picture(2), text]}])
    assert prompt.text == "USER: left: <image> right: <image> same? ASSISTANT:"
    assert [image.getpixel((0, 0)) for image in prompt.images] == [(1, 1, 1), (2, 2, 2)]
    with pytest.raises(InputError, match="a question holds <image> 2 times, and has 1 images: 'left: <image>"):
        read_messages(tiny_processor(), [{"role": "user", "content": [picture(1), text]}])


def test_a_question_may_have_no_picture():
    prompt = read_messages(tiny_processor(), [{"role": "user", "content": [{"type": "text", "text": "2 + 2?"}]}])
    assert (prompt.text, prompt.images) == ("USER: 2 + 2? ASSISTANT:", ())


@pytest.mark.parametrize("before", ["Be brief.", "Q: 1 + 1?\nA: 2\n\n"])
def test_text_that_lmms_eval_gives_to_no_chat_model_is_refused(before):
    messages = [{"role": "user", "content": [picture(1), {"type": "text", "text": "what?"}]}]
    check_nothing_is_left_out("what?", messages)
    check_nothing_is_left_out("worded otherwise for other models", messages)
    with pytest.raises(UnsupportedModeError, match="should come before the question"):
        check_nothing_is_left_out(before + "what?", messages)


def answered(length: int, kept: int, cause: str | None = None) -> SimpleNamespace:
    ran = SimpleNamespace(num_vision_tokens=16, tokens_kept=kept, answer_length=length, prompt_length=10 + kept)
    return SimpleNamespace(task="a", empty_cause=cause, ran=ran)


def test_totals_are_sums_and_their_metrics_means():
    first = Totals.of([answered(2, 4), answered(1, 8, "first-token-eos")], 2.0)
    both = first.then(Totals.of([answered(3, 4)], 1.0))
    seen = outcomes("a", 2, 1)
    assert both == Totals(seen, new_tokens=6, vision_tokens=48, tokens_kept=16, prompt_tokens=46, seconds=3.0)
    assert both.metrics() == {
        "mean_num_vision_tokens": 16,
        "mean_tokens_kept": 16 / 3,
        "mean_prompt_length": 46 / 3,
        "num_answers": 3,
        "num_empty": 1,
    }
    assert over_processes(both) == both


def test_totals_know_how_much_of_the_pictures_was_seen():
    one = Totals.of([answered(2, 4)], 1.0, [0.25, 1.0])
    both = one.then(Totals.of([answered(2, 4)], 1.0, [0.25]))
    assert cut_words(both.seen, "pad_to_square=True in --model_args") == (
        "2 of 3 images are cut by the processor's center crop, the worst to 25 %: evidence may be cut off; "
        "pad_to_square=True in --model_args shows all of each"
    )
    assert Totals().seen is None
