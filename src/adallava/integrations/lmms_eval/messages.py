"""From the chat messages of an lmms-eval task to a prompt and its images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from PIL import Image

from adallava.errors import InputError, UnsupportedModeError
from adallava.model import build_prompt
from adallava.processors.stock_processor import prepare_picture
from adallava.tasks.images import as_rgb, open_rgb

Message = Mapping[str, Any]
"""`{"role": ..., "content": [{"type": "text", "text": ...} or {"type": "image", "url": picture or path}]}`."""


@dataclass(frozen=True)
class ChatPrompt:
    """A prompt with a placeholder for each image, and the images in that order."""

    text: str
    images: tuple[Image.Image, ...]


def read_messages(processor: Any, messages: Sequence[Message]) -> ChatPrompt:
    """Return the prompt for messages, worded as for every other question where they are one question.

    Raises:
        UnsupportedModeError: for video, audio, or a conversation that the checkpoint has no chat template for.
        InputError: for an image that cannot be read, or placeholders in the question that do not fit.
    """
    parts = [(message["role"], part) for message in messages for part in message["content"]]
    for _, part in parts:
        if part["type"] not in ("text", "image"):
            raise UnsupportedModeError(f"a message holds {part['type']}: only text and images can be answered")
    images = tuple(prepare_picture(processor, _picture(part["url"])) for _, part in parts if part["type"] == "image")
    kinds = [part["type"] for _, part in parts]
    if len(messages) == 1 and messages[0]["role"] == "user" and kinds == ["image"] * len(images) + ["text"]:
        return ChatPrompt(build_prompt(processor, parts[-1][1]["text"], len(images)), images)
    if not getattr(processor, "chat_template", None):
        raise UnsupportedModeError(
            "a conversation, or text before an image, needs a chat template, which this checkpoint's processor lacks"
        )
    conversation = [{"role": message["role"], "content": _template_parts(message)} for message in messages]
    return ChatPrompt(cast(str, processor.apply_chat_template(conversation, add_generation_prompt=True)), images)


def check_nothing_is_left_out(context: object, messages: Sequence[Message]) -> None:
    """Hold a sample's messages against its context, which is what lmms-eval gives to other kinds of models.

    Examples, a system instruction or a description are in the context alone: lmms-eval names them in its results, and
    shows them to no chat model.

    Raises:
        UnsupportedModeError: if the context is more than the one text of the messages.
    """
    texts = [part["text"] for message in messages for part in message["content"] if part["type"] == "text"]
    if not isinstance(context, str) or len(texts) != 1 or not texts[0]:
        return
    before = context.removesuffix(texts[0])
    if before and before != context:
        raise UnsupportedModeError(
            f"{before[:80]!r} should come before the question (--num_fewshot, --system_instruction or the task's "
            "description), and lmms-eval gives it to no chat model: its results would name what was not shown"
        )


def _template_parts(message: Message) -> list[dict[str, str]]:
    return [
        {"type": "image"} if part["type"] == "image" else {"type": "text", "text": part["text"]}
        for part in message["content"]
    ]


def _picture(source: object) -> Image.Image:
    if isinstance(source, Image.Image):
        return as_rgb(source)
    if isinstance(source, str):
        return open_rgb(Path(source))
    raise InputError(f"an image is given as {type(source).__name__}: only PIL images and paths can be read")
