"""Floating-point operations of an answer, by part, in closed form.

The convention is that of `torch.utils.flop_counter`, and of most published figures: one multiply-add is 2
FLOPs, and only matrix products, convolutions and the two products of attention are counted. Norms,
activations, softmax, rotary positions, biases and residual sums are not: 0.04 % of LLaVA-1.5-7B's prefill.

Attention of L tokens is counted in full, L x L, as the counter does, although a causal mask lets a kernel
skip nearly half of it: a layer truly needs L * (L + 1) / 2 of those L * L query-key pairs.

Every figure is for one sample without padding. A batch of equal lengths costs the sum of its samples; in a
padded batch the machine also computes the padding, which is no sample's own cost.
"""

from collections.abc import Sequence
from fractions import Fraction

from adallava.costs.shapes import LLMShape, ModelShape, ProjectorShape, VisionTowerShape
from adallava.errors import InputError


def vision_flops(vision: VisionTowerShape, *, num_images: int = 1) -> int:
    """Return the FLOPs of the vision tower: the patch convolution and every layer, over S = N + extra tokens.

    Raises:
        InputError: for a negative number of images.
    """
    _require_at_least("num_images", num_images, 0)
    tokens, width = vision.sequence_length, vision.width
    patches = _product_flops(vision.num_vision_tokens, vision.channels * vision.patch_size**2, width)
    projections = 4 * _product_flops(tokens, width, width)
    mlp = 2 * _product_flops(tokens, width, vision.mlp_width)
    layer = projections + _attention_flops(tokens * tokens, width) + mlp
    return num_images * (patches + vision.layers * layer)


def tower_layer_flops(vision: VisionTowerShape, *, has_cls: bool = True) -> int:
    """Return the FLOPs of one layer's keys of every token, and of the class token's query: what some methods read.

    The tower has computed both and lets go of them; computing them anew is cheaper than an eager kernel.
    """
    tokens = vision.num_vision_tokens + has_cls
    return _product_flops(tokens + has_cls, vision.width, vision.width)


def projector_flops(projector: ProjectorShape, num_tokens: int) -> int:
    """Return the FLOPs of the projector over `num_tokens` vision tokens: only the kept ones reach it.

    Raises:
        InputError: for a negative number of tokens.
    """
    _require_at_least("num_tokens", num_tokens, 0)
    first = _product_flops(num_tokens, projector.in_width, projector.width)
    return first + _product_flops(num_tokens, projector.width, projector.width)


def prefill_flops(
    llm: LLMShape,
    sequence_length: int | Sequence[int],
    *,
    logits_for: int = 1,
    layer_shares: Sequence[Fraction] | None = None,
) -> int:
    """Return the FLOPs of one pass of the LLM over a prompt of L tokens, vision tokens included.

    Args:
        llm: shape of the LLM.
        sequence_length: L, tokens that enter the LLM, padding excluded; or those that each layer reads, where tokens
            are dropped inside the LLM.
        logits_for: positions that pass through the output layer: 1 in `generate`, L in a plain forward.
        layer_shares: the share of each layer's heads and neurons that runs; None = all.

    Raises:
        InputError: for an empty prompt, another number of lengths than of layers, or logits for none or more
            than L positions.
    """
    lengths = _lengths_by_layer(llm, "sequence_length", sequence_length)
    _require_at_least("logits_for", logits_for, 1)
    if logits_for > lengths[-1]:
        raise InputError(f"logits_for is {logits_for}, but the prompt has {lengths[-1]} tokens")
    layers = _of_shares(
        llm, [_layer_flops(llm, num_tokens=length, query_key_pairs=length * length) for length in lengths], layer_shares
    )
    return layers + _product_flops(logits_for, llm.width, llm.vocab_size)


def decode_flops(
    llm: LLMShape,
    prompt_length: int | Sequence[int],
    new_tokens: int,
    *,
    layer_shares: Sequence[Fraction] | None = None,
) -> int:
    """Return the FLOPs of all decoding steps of an answer of A new tokens after a prompt of P, with a cache.

    The first new token comes from prefill's logits and the last is never fed back, so there are A - 1 steps;
    step i = 1 … A - 1 attends to P + i keys.

    Args:
        llm: shape of the LLM.
        prompt_length: P, tokens that entered the LLM at prefill, padding excluded; or those that each layer read and
            keeps keys and values of.
        new_tokens: A, new tokens with EOS. No step runs for A = 1, nor for an answer that failed (A = 0).
        layer_shares: the share of each layer's heads and neurons that runs; None = all.

    Raises:
        InputError: for an empty prompt, another number of lengths than of layers, or a negative number of new
            tokens.
    """
    lengths = _lengths_by_layer(llm, "prompt_length", prompt_length)
    _require_at_least("new_tokens", new_tokens, 0)
    steps = max(0, new_tokens - 1)
    between_new = steps * (steps + 1) // 2
    layers = _of_shares(
        llm,
        [_layer_flops(llm, num_tokens=steps, query_key_pairs=steps * length + between_new) for length in lengths],
        layer_shares,
    )
    return layers + _product_flops(steps, llm.width, llm.vocab_size)


def kv_bytes(
    llm: LLMShape,
    prompt_length: int | Sequence[int],
    new_tokens: int,
    *,
    bytes_per_value: int,
    layer_shares: Sequence[Fraction] | None = None,
) -> int:
    """Return the bytes of keys and values when an answer ends. What a layer does not run, it does not keep.

    Args:
        llm: shape of the LLM.
        prompt_length: P, tokens that entered the LLM at prefill, padding excluded; or those that each layer read.
        new_tokens: A, new tokens with EOS; the last one is never fed back and has no keys.
        bytes_per_value: 2 in half precision.
        layer_shares: the share of each layer's heads that ran; None = all.

    Raises:
        InputError: for an empty prompt, another number of lengths or shares than of layers, or a negative number.
    """
    lengths = _lengths_by_layer(llm, "prompt_length", prompt_length)
    _require_at_least("new_tokens", new_tokens, 0)
    _require_at_least("bytes_per_value", bytes_per_value, 1)
    per_token = 2 * llm.kv_heads * llm.head_dim * bytes_per_value
    held = [per_token * (length + max(0, new_tokens - 1)) for length in lengths]
    return _of_shares(llm, held, layer_shares)


def asked_attention_flops(llm: LLMShape, sequence_length: int, num_asked: int) -> int:
    """Return the FLOPs of a few tokens' attention in one layer, computed beside the layer.

    Keys are computed for all L tokens, queries and their products with the keys for the asked ones.

    Args:
        llm: shape of the LLM.
        sequence_length: L, tokens that the layer reads.
        num_asked: R, tokens whose attention is computed.

    Raises:
        InputError: for an empty sequence, or a negative number of tokens.
    """
    _require_at_least("sequence_length", sequence_length, 1)
    _require_at_least("num_asked", num_asked, 0)
    query_width = llm.query_heads * llm.head_dim
    keys = _product_flops(sequence_length, llm.width, llm.kv_heads * llm.head_dim)
    queries = _product_flops(num_asked, llm.width, query_width)
    return keys + queries + _product_flops(num_asked, query_width, sequence_length)


def answer_flops(
    model: ModelShape,
    *,
    num_images: int,
    num_vision_tokens: int,
    tokens_kept_per_image: int | Sequence[int],
    prompt_length: int,
    answer_length: int,
    selector_flops: int,
    tokens_kept_by_layer: Sequence[int] | None = None,
    tokens_per_image: Sequence[int] | None = None,
    towers: Sequence[VisionTowerShape] | None = None,
    tower_layers_read: int = 0,
    projects_all: bool = False,
    layer_shares: Sequence[Fraction] | None = None,
    scheduler_flops: int = 0,
) -> dict[str, int]:
    """Return the FLOPs of one greedy or sampled answer by part: `records.PART_NAMES`, in that order.

    Args:
        model: shape of the model; `model.with_budget_token()` for a method with a budget token in the tower.
        num_images: images of the sample. If none of their tokens is kept, the tower does not run.
        num_vision_tokens: N over all those images, before selection.
        tokens_kept_per_image: K of every image, or of each: vision tokens that reach projector and LLM.
        prompt_length: tokens that enter the LLM, kept vision tokens included, padding excluded.
        answer_length: new tokens, EOS included, padding excluded.
        selector_flops: `Selector.flops` summed over the images: choosing, and merging where a method merges.
        tokens_kept_by_layer: vision tokens that each LLM layer reads, for a method inside the LLM; None if all read
            those that enter.
        tokens_per_image: N of each image, where they differ from the tower's; None = the patches of a picture.
        towers: of every picture that went through, where those are smaller or several an image; None = one for each
            image, as in `model`.
        tower_layers_read: layers whose keys and class query are computed once more for the method.
        projects_all: True if the projector runs over all N tokens, because the method chooses behind it.
        layer_shares: the share of each LLM layer that ran; None if all did.
        scheduler_flops: of making a latency token and choosing the layers, which is part of prefill.

    Raises:
        InputError: for counts that contradict the model's shape or each other.
    """
    _require_at_least("selector_flops", selector_flops, 0)
    per_image = [model.vision.num_vision_tokens] * num_images if tokens_per_image is None else tokens_per_image
    tokens_kept = _tokens_kept(per_image, num_images, num_vision_tokens, tokens_kept_per_image)
    if tokens_kept > prompt_length:
        raise InputError(f"prompt_length is {prompt_length}, less than the {tokens_kept} vision tokens that are in it")
    lengths: int | list[int] = prompt_length
    if tokens_kept_by_layer is not None:
        lengths = [prompt_length - tokens_kept + count for count in tokens_kept_by_layer]
    encoded = [model.vision] * num_images if towers is None else towers
    if not tokens_kept:
        encoded = []
    return {
        "vision": sum(vision_flops(tower) + tower_layers_read * tower_layer_flops(tower) for tower in encoded),
        "selector": selector_flops,
        "projector": projector_flops(
            model.projector, num_vision_tokens if projects_all and tokens_kept else tokens_kept
        ),
        "prefill": prefill_flops(model.llm, lengths, layer_shares=layer_shares) + scheduler_flops,
        "decode": decode_flops(model.llm, lengths, answer_length, layer_shares=layer_shares),
    }


def _tokens_kept(
    tokens_per_image: Sequence[int],
    num_images: int,
    num_vision_tokens: int,
    tokens_kept_per_image: int | Sequence[int],
) -> int:
    """Return the vision tokens kept over all images of a sample.

    Raises:
        InputError: for counts that contradict the images' tokens or each other.
    """
    _require_at_least("num_images", num_images, 0)
    counts = [tokens_kept_per_image] * num_images if isinstance(tokens_kept_per_image, int) else tokens_kept_per_image
    for name, given in (("tokens_kept_per_image", counts), ("tokens_per_image", tokens_per_image)):
        if len(given) != num_images:
            raise InputError(f"{name} has {len(given)} counts for {num_images} image(s): give one each")
    if num_vision_tokens != sum(tokens_per_image):
        sizes = " + ".join(map(str, tokens_per_image)) or "0"
        raise InputError(
            f"num_vision_tokens is {num_vision_tokens}, but {num_images} image(s) of {sizes} patches "
            f"make {sum(tokens_per_image)}: give the shape of the tower that encoded them"
        )
    for count, per_image in zip(counts, tokens_per_image, strict=True):
        _require_at_least("tokens_kept_per_image", count, 0)
        if count > per_image:
            raise InputError(f"tokens_kept_per_image is {count}, but an image has only {per_image}")
    return sum(counts)


def _lengths_by_layer(llm: LLMShape, name: str, lengths: int | Sequence[int]) -> Sequence[int]:
    by_layer = [lengths] * llm.layers if isinstance(lengths, int) else lengths
    if len(by_layer) != llm.layers:
        raise InputError(f"{name} has {len(by_layer)} lengths for an LLM of {llm.layers} layers: give one for each")
    for length in by_layer:
        _require_at_least(name, length, 1)
    return by_layer


def _of_shares(llm: LLMShape, by_layer: Sequence[int], layer_shares: Sequence[Fraction] | None) -> int:
    """Return the sum over the layers of what a whole one costs, times the share of it that runs.

    Heads and neurons are split evenly, so that a share of them is the same share of every product.
    """
    if layer_shares is None:
        return sum(by_layer)
    if len(layer_shares) != llm.layers or not all(0 <= share <= 1 for share in layer_shares):
        raise InputError(
            f"layer_shares are {[str(share) for share in layer_shares]}: give one in [0, 1] for each of {llm.layers} "
            "layers"
        )
    return int(sum((cost * share for cost, share in zip(by_layer, layer_shares, strict=True)), Fraction(0)))


def _layer_flops(llm: LLMShape, *, num_tokens: int, query_key_pairs: int) -> int:
    """Return the FLOPs of `num_tokens` through one layer."""
    query_width = llm.query_heads * llm.head_dim
    kv_width = llm.kv_heads * llm.head_dim
    # Query and output products have the queries' width; grouped heads shrink key and value products.
    projections = 2 * _product_flops(num_tokens, llm.width, query_width + kv_width)
    mlp = (3 if llm.gated_mlp else 2) * _product_flops(num_tokens, llm.width, llm.mlp_width)
    # Keys and values are repeated for every query head, so the products of attention do not shrink.
    return projections + _attention_flops(query_key_pairs, query_width) + mlp


def _product_flops(rows: int, inner: int, columns: int) -> int:
    """Return the FLOPs of [rows, inner] @ [inner, columns]."""
    return 2 * rows * inner * columns


def _attention_flops(query_key_pairs: int, query_width: int) -> int:
    """Return the FLOPs of attention's two products, scores and weighted values, over all heads."""
    return 2 * 2 * query_key_pairs * query_width


def _require_at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise InputError(f"{name} is {value}: it must be at least {least}")
