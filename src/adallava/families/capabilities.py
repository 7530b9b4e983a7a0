"""What a family may be able to do beside the core of `contract`: one protocol a capability, and one function that asks.

A family that has the methods has the capability; nothing is registered. What code can do stands here; what one loaded
model has (its tower a class token, say) is told by `Family.provides`.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable

from torch import Tensor

from adallava.errors import InputError, UnsupportedModeError
from adallava.families.costed_parts import CostedParts, on_meta
from adallava.families.family_contract import DecoderLayers, Family, TextTower, VisionFeatures
from adallava.families.layer_inputs import LayerInputs
from adallava.families.picture_inputs import PictureInputs
from adallava.registry import family_names, load_family_class
from adallava.selection.selector_contract import AskedAttention, Need

_OF_PICTURES = {"pixel_values", "image_sizes", "batch_num_images", "image_grid_thw", "pixel_attention_mask"}
"""What processors make of pictures, of whatever family: not to be taken for an argument of `generate`."""

_OF_VIDEOS = {"pixel_values_videos", "image_sizes_videos", "video_grid_thw"}


def take_pictures(family: Family, given: Mapping[str, Any]) -> tuple[PictureInputs | None, dict[str, Any]]:
    """Return what a processor gave of the pictures, and what else was given; tokens' own inputs are made anew.

    Args:
        family: whose processor it is.
        given: by name, `input_ids` among them; None is as if it were not given.

    Raises:
        InputError: for what belongs to pictures that are not there, or to those of other families.
    """
    pixels, *beside = family.picture_inputs
    rest = {name: value for name, value in given.items() if name not in family.picture_inputs}
    for name in (_OF_PICTURES | _OF_VIDEOS) & rest.keys():
        if rest.pop(name) is not None and name in _OF_VIDEOS:
            raise InputError(f"only pictures are taken, and {name} is of a video: give its frames as pictures")
        if given[name] is not None:
            raise InputError(f"models of type {family.name!r} take no {name}: give what their own processor makes")
    if isinstance(family, GivesCompanions):
        rest = {name: value for name, value in rest.items() if name not in family.token_inputs}
    pictures = PictureInputs.of(given.get(pixels), **{name: given.get(name) for name in beside})
    input_ids = rest.pop("input_ids", None)
    if pictures is not None and input_ids is not None and isinstance(family, ReadsPrompts):
        pictures = family.with_prompts(pictures, input_ids.cpu())
    return pictures, rest


@runtime_checkable
class ReadsPrompts(Protocol):
    """What its processor made of the pictures, it says in the prompts alone."""

    def with_prompts(self, pictures: PictureInputs, input_ids: Tensor) -> PictureInputs:
        """Return the pictures with what the prompts, [B, L], tell of them beside their pixels. On the host.

        Raises:
            InputError: if prompts and pictures do not fit together.
        """
        ...


@runtime_checkable
class DrivesDecoder(Protocol):
    """The LLM's layers can be driven one by one: for methods inside the LLM, and schedules."""

    def decoder(self) -> DecoderLayers:
        """Return them.

        Raises:
            UnsupportedModeError: for an LLM whose layers are not known.
        """
        ...


def decoder_of(family: Family) -> DecoderLayers:
    """Return the LLM's layers.

    Raises:
        UnsupportedModeError: for a family, or an LLM, whose layers are not known.
    """
    if not isinstance(family, DrivesDecoder):
        raise UnsupportedModeError(
            f"methods inside the LLM and schedulers cannot see the layers of models of type {family.name!r}: choose a "
            "method that selects before the LLM"
        )
    return family.decoder()


@runtime_checkable
class SplitsHeads(Protocol):
    """Decoder layers of which groups of heads can be run alone."""

    def check_splittable(self) -> None:
        """Raise `UnsupportedModeError` for layers that cannot be split into groups of heads."""
        ...

    def run_groups(
        self,
        layer: int,
        hidden: Tensor,
        inputs: LayerInputs,
        rows: Sequence[Tensor],
        gates: Tensor | None = None,
        mlp_rows: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """Return what a layer passes on of which each row runs only some groups of heads; see `head_groups`."""
        ...


def head_groups_of(decoder: DecoderLayers) -> SplitsHeads:
    """Return the layers as ones whose groups of heads can be run alone.

    Raises:
        UnsupportedModeError: if they cannot.
    """
    if not isinstance(decoder, SplitsHeads):
        raise UnsupportedModeError(
            "this model's layers cannot be split into groups of heads: choose a scheduler of whole layers"
        )
    return decoder


@runtime_checkable
class HasTextTower(Protocol):
    """The text half that its vision tower was trained with can be put beside it."""

    def load_text_tower(self, folder_or_id: str) -> TextTower:
        """Load it from a checkpoint that fits the vision tower.

        Raises:
            CheckpointError: if its files are missing or damaged, or it does not fit.
        """
        ...


def load_text_tower(family: Family, folder_or_id: str) -> TextTower:
    """Load the text half of a checkpoint that fits the vision tower.

    Raises:
        UnsupportedModeError: for a family that takes none.
        CheckpointError: if its files are missing or damaged, or it does not fit.
    """
    if not isinstance(family, HasTextTower):
        raise UnsupportedModeError(f"models of type {family.name!r} take no text tower: choose another method")
    return family.load_text_tower(folder_or_id)


@runtime_checkable
class ReadsAttention(Protocol):
    """What patches receive of attention in the tower's layers can be told, with or without a class token."""

    def encode_with_attention(
        self, pictures: PictureInputs, asked: Sequence[AskedAttention], *, needs: Collection[Need] = ()
    ) -> VisionFeatures:
        """Run the tower as `encode` does, and give `attention_received`.

        Args:
            pictures: as for `encode`.
            asked: of which layers.
            needs: as for `encode`.
        """
        ...


def with_attention(
    family: Family, pictures: PictureInputs, asked: Sequence[AskedAttention], needs: Collection[Need]
) -> VisionFeatures:
    """Run the tower, and give what patches receive of attention.

    Raises:
        UnsupportedModeError: for a family that cannot tell.
    """
    if not isinstance(family, ReadsAttention):
        raise UnsupportedModeError(f"models of type {family.name!r} tell no attention: choose another method")
    return family.encode_with_attention(pictures, asked, needs=needs)


@runtime_checkable
class ReadsBudgetToken(Protocol):
    """One more token can pass through the tower."""

    def some_pictures(self, pictures: PictureInputs, images: Sequence[int]) -> PictureInputs:
        """Return the pictures of some images, by their numbers."""
        ...

    def encode_with_token(self, pictures: PictureInputs, budget_token: Tensor) -> VisionFeatures:
        """Run the tower with a token, [I, C], at the end of its input; `budget_features` are what comes out there."""
        ...


def with_budget_token(family: Family, pictures: PictureInputs, budget_token: Tensor) -> VisionFeatures:
    """Run the tower with a budget token, [I, C].

    Raises:
        UnsupportedModeError: for a family, or a tower, that takes none.
    """
    if not isinstance(family, ReadsBudgetToken):
        raise UnsupportedModeError(f"models of type {family.name!r} take no budget token: choose another method")
    return family.encode_with_token(pictures, budget_token)


@runtime_checkable
class ResizesPictures(Protocol):
    """The tower takes smaller pictures than it was trained with."""

    def some_pictures(self, pictures: PictureInputs, images: Sequence[int]) -> PictureInputs:
        """Return the pictures of some images, by their numbers."""
        ...

    def encode_resized(self, pictures: PictureInputs, grid: tuple[int, int]) -> VisionFeatures:
        """Run the tower on pictures resized to (rows, columns) of patches."""
        ...


def resized(family: Family, pictures: PictureInputs, grid: tuple[int, int]) -> VisionFeatures:
    """Run the tower on pictures resized to (rows, columns) of patches.

    Raises:
        UnsupportedModeError: for a family whose pictures cannot be resized.
    """
    if not isinstance(family, ResizesPictures):
        raise UnsupportedModeError(f"models of type {family.name!r} take no resized picture: choose another method")
    return family.encode_resized(pictures, grid)


def some_pictures(family: Family, pictures: PictureInputs, images: Sequence[int]) -> PictureInputs:
    """Return the pictures of some images, by their numbers, for a family that takes a budget token or resizes."""
    assert isinstance(family, ReadsBudgetToken | ResizesPictures)
    return family.some_pictures(pictures, images)


@runtime_checkable
class ShowsTiles(Protocol):
    """An image may be seen by the tower in several pictures."""

    def tower_runs(self, pictures: PictureInputs) -> tuple[int, ...]:
        """Return how many pictures go through the tower for each image. On the host, from shapes alone."""
        ...


def tower_runs(family: Family, pictures: PictureInputs) -> tuple[int, ...]:
    """Return how many pictures go through the tower for each image: 1, or as many as it has tiles."""
    return family.tower_runs(pictures) if isinstance(family, ShowsTiles) else (1,) * len(family.grids(pictures))


@runtime_checkable
class GivesCompanions(Protocol):
    """Tokens carry more into the LLM than a count of their place: several rows of positions, say, or types.

    Attributes:
        token_inputs: what its processor gives of each token beside ids and mask, by name. `companions` makes it anew,
            from ids that are what this call makes of them; what a caller gives is not read.
    """

    token_inputs: ClassVar[tuple[str, ...]]

    def companions(
        self, input_ids: Tensor, attention_mask: Tensor | None, pictures: PictureInputs | None
    ) -> Mapping[str, Tensor]:
        """Return what each token of the full prompts carries, [B, L] or [R, B, L] int64, by the LLM's arguments.

        On the host. What is called `position_ids`, [R, B, L], takes the place of the count.

        Args:
            input_ids: [B, L].
            attention_mask: [B, L], or None.
            pictures: of all prompts, or None.
        """
        ...


def companions_of(
    family: Family, input_ids: Tensor, attention_mask: Tensor | None, pictures: PictureInputs | None
) -> Mapping[str, Tensor]:
    """Return what each token of the full prompts carries beside its place; nothing, for most families."""
    return family.companions(input_ids, attention_mask, pictures) if isinstance(family, GivesCompanions) else {}


@runtime_checkable
class AdaptsGenerate(Protocol):
    """The stock class has a `generate` that must be told of embeddings."""

    def generating(self, model: Any) -> Any:
        """Return the stock model, or a view of it, as one whose `generate` takes embeddings. Good for one call."""
        ...


def generating(family: Family, model: Any) -> Any:
    """Return the stock model, or a view of it, as one whose `generate` takes embeddings; for most families itself."""
    return family.generating(model) if isinstance(family, AdaptsGenerate) else model


@runtime_checkable
class MayHaveWindows(Protocol):
    """Some layers of the LLM may see the last so many tokens alone."""

    @property
    def window_tokens(self) -> int | None:
        """The narrowest window; None if every token sees all before it."""
        ...


def window_tokens(family: Family) -> int | None:
    """Return the narrowest sliding window among the LLM's layers; None if there is none."""
    return family.window_tokens if isinstance(family, MayHaveWindows) else None


def window_note(family: Family) -> str | None:
    """Return, in words, how windows count where tokens are dropped; None for an LLM without windows."""
    window = window_tokens(family)
    if window is None:
        return None
    return (
        f"the LLM's sliding windows of {window} tokens count the tokens that are kept: where prompt and answer would "
        "be longer with every vision token, dropped tokens are not the same as masked ones"
    )


@runtime_checkable
class HasPositionRows(GivesCompanions, Protocol):
    """The LLM reads several rows of positions, and before them one that counts the tokens that are there."""

    def recounted(self, rows: Tensor, images: Tensor, steps: Tensor) -> Tensor:
        """Return the rows counted anew over what is left, [R, B, Lc]: of everything, they are the rows themselves.

        Args:
            rows: [R, B, Lc], as they were.
            images: [B, Lc] int64, the number of each vision token's image; -1 for others.
            steps: [B, Lc] int64, 1 for a token that others read; 0 for a hidden one, and padding.
        """
        ...


@runtime_checkable
class ScattersTokens(Protocol):
    """Text may stand between the placeholders of an image, or they stand in another order than its grid."""

    def placeholder_orders(self, pictures: PictureInputs) -> tuple[Tensor | None, ...]:
        """Return of each image which of its placeholders stands for each of its tokens, [N] int64, on the host.

        Placeholders are counted in the order of the prompt. None for an image whose placeholders stand in order.
        """
        ...


def placeholder_orders(family: Family, pictures: PictureInputs) -> tuple[Tensor | None, ...] | None:
    """Return of each image which placeholder stands for each of its tokens; None if each image's are in one run."""
    return family.placeholder_orders(pictures) if isinstance(family, ScattersTokens) else None


@runtime_checkable
class AddsRows(Protocol):
    """Rows made of the vision tokens are added to their states behind some of the LLM's layers: deepstack.

    `VisionFeatures.levels` is what they are made from. The family drives its decoder, too.
    """

    def side_rows(self, level: int, features: Tensor) -> Tensor:
        """Return what is added for features of one level, counted from 0: [I, K, C] to [I, K, D]."""
        ...

    def all_side_rows(self, vision: VisionFeatures) -> Mapping[int, Tensor]:
        """Return what is added for every token, [I, N, D] by layer, to the stock model's bits."""
        ...


def side_rows(family: Family) -> AddsRows:
    """Return the family as one that adds rows.

    Raises:
        UnsupportedModeError: if it gives levels, and does not say what is added for them.
    """
    if not isinstance(family, AddsRows):
        raise UnsupportedModeError(f"family {family.name!r} gives levels of features and has no `side_rows`")
    return family


def adds_rows(family: Family) -> bool:
    """Return whether rows are added behind layers of the LLM, so that it runs in a view."""
    return isinstance(family, AddsRows)


@runtime_checkable
class MayLackGrid(Protocol):
    """The features of an image may be others than the grid of its patches, as the config of a model says."""

    @property
    def no_grid(self) -> str | None:
        """Why they are; None if each feature is a patch of the grid, over which methods choose."""
        ...


def why_no_grid(family: Family) -> str | None:
    """Return why the features of an image are not the grid of its patches; None if they are."""
    return family.no_grid if isinstance(family, MayLackGrid) else None


@runtime_checkable
class ShowsPatches(Protocol):
    """What each token looks at can be drawn."""

    def pictures(self, pictures: PictureInputs) -> tuple[Tensor, ...]:
        """Return what each image's tokens look at: [3, rows * P, columns * P], P pixels a patch.

        Args:
            pictures: as the processor made them. A token that is no patch has zeros.
        """
        ...


def shown_patches(family: Family, pictures: PictureInputs) -> tuple[Tensor, ...]:
    """Return what each image's tokens look at, to be drawn on: [3, rows * P, columns * P], P pixels a patch.

    Raises:
        UnsupportedModeError: for a family that cannot tell.
    """
    if not isinstance(family, ShowsPatches):
        raise UnsupportedModeError(f"what the tokens of models of type {family.name!r} look at cannot be drawn")
    return family.pictures(pictures)


@runtime_checkable
class NamesProcessor(Protocol):
    """Its processor is another than the one that transformers would make of its files. Asked of the class."""

    @staticmethod
    def processor_class() -> Any:
        """Return a class of processors with transformers' `from_pretrained`."""
        ...


def processor_class(model_type: str) -> Any:
    """Return what loads the processor of a model, by its `model_type`: for most, transformers' own choice."""
    from transformers import AutoProcessor

    family = load_family_class(model_type) if model_type in family_names() else None
    return family.processor_class() if isinstance(family, NamesProcessor) else AutoProcessor


@runtime_checkable
class NamesCostedParts(Protocol):
    """Names the parts of a model without values, so that their products are counted. Asked of the class."""

    @staticmethod
    def costed_parts(model: Any) -> CostedParts:
        """Return the parts of a model on the meta device; see `costs/counted.py`."""
        ...


def costed_parts(config: Any) -> CostedParts:
    """Return the parts of the model of a config, on the meta device, in eval mode.

    Attention runs as plain products, which PyTorch's counter sees on every device; a mixture runs the experts that a
    token takes, and no others. The config is left as it is.

    Raises:
        InputError: for a family that does not name its parts.
        UnknownNameError: for a `model_type` without a family.
    """
    import transformers

    family = load_family_class(config.model_type)
    if not isinstance(family, NamesCostedParts):
        raise InputError(
            f"cannot count the FLOPs of a model whose model_type is {config.model_type!r}: its family has no "
            "`costed_parts` (see docs/contributing.md)"
        )
    return family.costed_parts(on_meta(getattr(transformers, family.transformers_class), config))


class BlankShape(Protocol):
    """Sizes of a model made from nothing: pixels, widths, and numbers of layers and heads.

    `patch_px` is the side of what one vision token shows; `tower` and `llm` are `model_type`s, None = the family's own.
    """

    @property
    def tower(self) -> str | None: ...  # noqa: D102
    @property
    def llm(self) -> str | None: ...  # noqa: D102

    @property
    def image_px(self) -> int: ...  # noqa: D102
    @property
    def patch_px(self) -> int: ...  # noqa: D102
    @property
    def vision_width(self) -> int: ...  # noqa: D102
    @property
    def vision_layers(self) -> int: ...  # noqa: D102
    @property
    def vision_heads(self) -> int: ...  # noqa: D102
    @property
    def vision_mlp_width(self) -> int: ...  # noqa: D102
    @property
    def llm_width(self) -> int: ...  # noqa: D102
    @property
    def llm_layers(self) -> int: ...  # noqa: D102
    @property
    def llm_heads(self) -> int: ...  # noqa: D102
    @property
    def llm_kv_heads(self) -> int: ...  # noqa: D102
    @property
    def llm_mlp_width(self) -> int: ...  # noqa: D102


@runtime_checkable
class MadeFromNothing(Protocol):
    """An untrained model of any size, for training from nothing. Asked of the class.

    Attributes:
        blank_tokens: text of the tokens that stand for a picture and around it, by transformers' names;
            `image_token` is the placeholder's.
        blank_picture: what the chat template writes for a picture.
    """

    blank_tokens: ClassVar[Mapping[str, str]]
    blank_picture: ClassVar[str]

    @staticmethod
    def blank_model(shape: BlankShape, vocab_size: int, token_ids: Mapping[str, int], ids: dict[str, int]) -> Any:
        """Return a transformers model, initialised from torch's global generator.

        Args:
            shape: of it.
            vocab_size: rows of the embeddings.
            token_ids: of `blank_tokens`, by the same names.
            ids: of the token that ends an answer and of padding, by transformers' names.

        Raises:
            InputError: for a tower or LLM of a type that it cannot make.
        """
        ...

    @staticmethod
    def blank_processor(tokenizer: Any, shape: BlankShape, chat_template: str) -> Any:
        """Return the processor of such a model around a tokenizer."""
        ...


@runtime_checkable
class AlignsPatches(Family, Protocol):
    """Tower and projector can learn words before the LLM ever runs: the training stage `align`."""

    def project_with_summary(self, pictures: PictureInputs) -> tuple[Tensor, Tensor | None]:
        """Return each patch and the class token as the LLM would read them, [I, N, D] and [I, D], of the last layer.

        None for a tower without a class token. All pictures have as many patches.
        """
        ...

    def scale_projector(self, factor: Tensor) -> None:
        """Multiply all that the projector puts out, in place, by one number, []."""
        ...


def aligning(family: Family) -> AlignsPatches:
    """Return the family as one whose patches can be aligned with words.

    Raises:
        UnsupportedModeError: if they cannot.
    """
    if not isinstance(family, AlignsPatches):
        raise UnsupportedModeError(
            f"stage 'align' trains tower and projector apart from the LLM, which models of type {family.name!r} do not "
            "allow: start from one of another family"
        )
    return family
