"""Where a model's files are, its stock processor, and the wording of a prompt."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from adallava.checkpoints.bundled import is_bundled, model_folder
from adallava.checkpoints.files import CONFIG_FILE, check_processor
from adallava.checkpoints.hub import PROCESSOR_FILES, find_folder
from adallava.checkpoints.json_files import read_json
from adallava.checkpoints.schemas import MAX_TEMPLATE_CHARS, check_model_config
from adallava.errors import CheckpointError, InputError, in_short
from adallava.families.capabilities.of_classes import processor_class
from adallava.processors.bounded_call import call_within
from adallava.processors.picture_cuts import pad_to_square as padding_to_square
from adallava.processors.picture_cuts import pads_to_square, with_pixel_limits
from adallava.processors.picture_tokens import complete_processor
from adallava.tasks.images import MAX_IMAGE_PIXELS, with_clear_axes

if TYPE_CHECKING:
    from PIL import Image

_PARTS = ("tokenizer", "image_processor", "image_token")
"""Of a processor that makes prompts with images."""

_TEMPLATE_LIMIT_S = 10.0
_TEMPLATE_LIMIT_BYTES = 2**30
"""For one prompt, which takes a millisecond and a few kilobytes."""


class AdaLlavaProcessor:
    """Loads a model's stock processor. Settings that its files lack come from the model's config."""

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str,
        *,
        pad_to_square: bool = False,
        least_pixels: int | None = None,
        most_pixels: int | None = None,
    ) -> Any:
        """Return the processor of a bundled name, a folder or a hub id.

        Args:
            name_or_path: as for the model.
            pad_to_square: pad every image to a square in the processor's mean color, so that no edge is cut off, as
                LLaVA does with `image_aspect_ratio` pad; otherwise as the processor's files say.
            least_pixels: smaller images are enlarged to this, for a model with native image sizes; None = as its files
                say.
            most_pixels: larger images are shrunk to this; None = as its files say.

        Raises:
            CheckpointError: if its files are missing or damaged.
            UnsupportedModeError: if it cannot pad, or need not.
        """
        from transformers import AutoConfig

        folder = find_folder(folder_or_id_of(name_or_path), PROCESSOR_FILES)
        check_processor(folder)
        check_model_config(folder / CONFIG_FILE, read_json(folder / CONFIG_FILE))
        try:
            config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            loader = processor_class(config.model_type)
            processor = loader.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except Exception as error:  # whatever a damaged file makes transformers or tokenizers raise
            raise CheckpointError(f"cannot load the processor of {name_or_path!r}: {in_short(error)}") from error
        missing = [name for name in _PARTS if getattr(processor, name, None) is None]
        if missing:
            raise CheckpointError(
                f"the files of {name_or_path!r} make a {type(processor).__name__}, which has no "
                f"{' and no '.join(missing)}: one of processor_config.json, preprocessor_config.json and "
                "tokenizer_config.json names a class of another model"
            )
        complete_processor(processor, config)
        if least_pixels is not None or most_pixels is not None:
            processor = with_pixel_limits(processor, least_pixels, most_pixels)
        return padding_to_square(processor) if pad_to_square else processor


def given_processor(processor: Any) -> Any:
    """Return what a caller hands over as a model's processor; None, for a model that only runs `forward`, is itself.

    Raises:
        InputError: for a tokenizer or an image processor alone, and what is neither, naming what to give.
    """
    kinds = {cls.__name__ for cls in type(processor).__mro__}
    if processor is not None and ("PreTrainedTokenizerBase" in kinds or not hasattr(processor, "batch_decode")):
        raise InputError(
            f"a {type(processor).__name__} cannot be the processor, which needs a tokenizer and must read images: "
            "AdaLlavaProcessor.from_pretrained, or transformers' AutoProcessor, loads the model's by name or folder"
        )
    return processor


def prepare_picture(processor: Any, image: "Image.Image") -> "Image.Image":
    """Return an image as a processor can take it.

    Args:
        processor: of the model.
        image: RGB.

    Raises:
        InputError: if the processor would pad it to a square of more pixels than an image may have.
    """
    side = max(image.size)
    if pads_to_square(processor) and side * side > MAX_IMAGE_PIXELS:
        raise InputError(
            f"an image of {image.width}x{image.height} padded to a square is over the limit of {MAX_IMAGE_PIXELS} "
            "pixels: make it smaller"
        )
    return with_clear_axes(image)


def make_inputs(processor: Any, images: "Sequence[Image.Image] | None", prompts: Sequence[str]) -> dict[str, Any]:
    """Return the tensors that a processor makes of a batch.

    Args:
        processor: of the model.
        images: RGB, in the order of the prompts; None without any.
        prompts: with a placeholder for each of their images.

    Raises:
        CheckpointError: if its settings make it fail.
    """
    given = None if images is None else _by_prompt(images, [text.count(processor.image_token) for text in prompts])
    # A template that writes the token of a text's beginning leaves none to the tokenizer, as in transformers' own call.
    begin = processor.tokenizer.bos_token
    begun = {"add_special_tokens": False} if begin and all(text.startswith(begin) for text in prompts) else {}
    try:
        return dict(processor(images=given, text=list(prompts), return_tensors="pt", padding=True, **begun))
    except Exception as error:  # whatever odd settings of its files make transformers, tokenizers or Pillow raise
        raise CheckpointError(
            f"the model's processor cannot prepare image and question: {in_short(error)} "
            f"(a {type(processor).__name__} with a {type(processor.image_processor).__name__}: are its files this "
            "model's own?)"
        ) from error


def sound_inputs(processor: Any, images: "Sequence[Image.Image]", prompts: Sequence[str]) -> dict[str, Any]:
    """Return the tensors of a batch, with or without pictures; see `make_inputs`.

    Raises:
        InputError: if some value of the pictures is no number; see `check_pixels`.
        CheckpointError: if the processor's settings make it fail.
    """
    inputs = make_inputs(processor, images or None, prompts)
    if images:
        check_pixels(inputs["pixel_values"])
    return inputs


def _by_prompt(images: "Sequence[Image.Image]", counts: Sequence[int]) -> "list[Any]":
    """Return the images in a list for each prompt, which some processors insist on; all take it.

    Where prompts and images do not fit, in one list: the processor, or the model, says how they do not.
    """
    if sum(counts) != len(images):
        return list(images)
    rest = iter(images)
    return [[next(rest) for _ in range(count)] for count in counts]


def check_pixels(pixel_values: Any) -> None:
    """Refuse what a processor made of images if a value is not a finite number: a model would answer with nothing.

    Args:
        pixel_values: a tensor, of one image or several.

    Raises:
        InputError: naming where the settings are.
    """
    if not bool(pixel_values.isfinite().all()):
        raise InputError(
            "the processor makes NaN or infinite values of the image: look at image_mean, image_std and "
            "rescale_factor in its preprocessor_config.json"
        )


def build_prompt(processor: Any, question: str, num_images: int = 1) -> str:
    """Return the prompt for a question about images: the processor's chat template, or LLaVA-1.5's wording.

    A question may hold a placeholder for each of its images; otherwise images come first.

    Raises:
        InputError: if it holds another number of placeholders.
        CheckpointError: for a template that is damaged, does not end, or refuses a user's question.
    """
    num_placed = question.count(processor.image_token)
    if num_placed not in (0, num_images):
        raise InputError(
            f"a question holds {processor.image_token} {num_placed} times, and has {num_images} images: {question!r}"
        )
    num_images -= num_placed
    if getattr(processor, "chat_template", None):
        content = [{"type": "image"}] * num_images + [{"type": "text", "text": question}]
        conversation = [{"role": "user", "content": content}]

        def render() -> str:
            """Return the prompt by the chat template."""
            return cast(str, processor.apply_chat_template(conversation, add_generation_prompt=True))

        try:
            prompt = call_within(render, limit_s=_TEMPLATE_LIMIT_S, limit_bytes=_TEMPLATE_LIMIT_BYTES)
        except Exception as error:  # whatever a damaged template makes jinja or transformers raise
            raise CheckpointError(f"the processor's chat template cannot be used: {in_short(error)}") from error
        if len(prompt) > MAX_TEMPLATE_CHARS + len(question):
            raise CheckpointError(
                f"the processor's chat template cannot be used: of a question of {len(question)} characters it makes a "
                f"prompt of {len(prompt)}"
            )
        _check_made(prompt, processor.image_token, num_images + num_placed)
        return prompt
    images = f"{processor.image_token}\n" * num_images
    return f"USER: {images}{question} ASSISTANT:"


def _check_made(prompt: str, image_token: str, num_images: int) -> None:
    """Refuse what a chat template makes if no tokenizer takes it, or it shows another number of images."""
    if prompt.count(image_token) != num_images:
        raise CheckpointError(
            f"the processor's chat template cannot be used: of a question with {num_images} images it makes a prompt "
            f"with {prompt.count(image_token)} {image_token}"
        )
    try:
        prompt.encode()
    except UnicodeEncodeError:
        raise CheckpointError(
            "the processor's chat template cannot be used: it makes half a surrogate pair, which is not a character"
        ) from None


def question_frame(processor: Any) -> tuple[str, str]:
    """Return what a prompt holds before and after its question, without images, as decoding its tokens gives it."""
    mark = "\N{BLACK STAR}"
    prompt = build_prompt(processor, mark, 1).replace(processor.image_token, "")
    before, _, behind = prompt.partition(mark)
    for token in processor.tokenizer.all_special_tokens:
        before, behind = before.replace(token, ""), behind.replace(token, "")
    return before.strip(), behind.strip()


def folder_or_id_of(name_or_path: str) -> str:
    """Return the folder of a bundled model's name; a folder or a hub id is returned as it is."""
    return str(model_folder(name_or_path)) if is_bundled(name_or_path) else name_or_path
