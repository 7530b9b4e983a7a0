"""A byte-level BPE tokenizer learned from the words of a task."""

from collections.abc import Iterable, Mapping

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from adallava.tasks.scenes import KINDS, make_questions, make_scene

END_TOKEN = "</s>"
PAD_TOKEN = "<pad>"

# No beginning-of-sequence token: the image's tokens play that part. The line break ends the question.
_CHAT_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'user' %}"
    "{% for part in message['content'] if part['type'] == 'image' %}PICTURE{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}{{ '\n' }}"
    "{% else %}{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}</s>"
    "{% endif %}{% endfor %}"
)


def scenes_corpus(num_scenes: int = 400) -> Iterable[str]:
    """Yield questions and answers of training scenes: every word of the task, many times."""
    for index in range(num_scenes):
        for question in make_questions(make_scene("train", index), KINDS * 2):
            yield f"{question.text}\n"
            yield question.answer


def chat_template(picture: str) -> str:
    """Return the template of a prompt in which an image is written like that."""
    return _CHAT_TEMPLATE.replace("PICTURE", picture)


def learn_tokenizer(corpus: Iterable[str], vocab_size: int, special: Mapping[str, str]) -> PreTrainedTokenizerFast:
    """Learn a byte-level BPE with digits kept apart; any text survives encode and decode.

    Args:
        corpus: texts.
        vocab_size: of tokens in all.
        special: tokens of images, by transformers' names.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\d"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD_TOKEN, END_TOKEN, *special.values()],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD_TOKEN,
        eos_token=END_TOKEN,
        extra_special_tokens=dict(special),
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
