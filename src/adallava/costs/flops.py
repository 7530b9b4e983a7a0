"""Floating-point operations of an answer, by part, from what a token and a pair cost in each part of the model.

The convention is that of `torch.utils.flop_counter`, and of most published figures: one multiply-add is 2
FLOPs, and only matrix products, convolutions and the two products of attention are counted. Norms,
activations, softmax, rotary positions, biases and residual sums are not: 0.04 % of LLaVA-1.5-7B's prefill.

Attention of L tokens is counted in full, L x L, as the counter does, although a causal mask lets a kernel
skip nearly half of it: a layer truly needs L * (L + 1) / 2 of those L * L query-key pairs.

Every figure is for one sample without padding. A batch of equal lengths costs the sum of its samples; in a
padded batch the machine also computes the padding, which is not a sample's own cost.
"""

from collections.abc import Sequence
from fractions import Fraction

from adallava.costs.parts import LayerCosts, LLMCosts, ModelCosts, TowerCosts
from adallava.errors import InputError


def vision_flops(vision: TowerCosts, *, num_images: int = 1) -> int:
    """Return the FLOPs of the vision tower: making N patches tokens, and every layer over S = N + extra tokens.

    Raises:
        InputError: for a negative number of images.
    """
    _require_at_least("num_images", num_images, 0)
    tokens = vision.sequence_length
    pairs = tokens * (tokens + vision.other_patches)
    layers = vision.per_token * tokens + vision.per_pair * pairs + vision.per_window_pair * vision.window_pairs
    return num_images * (vision.fixed + vision.per_patch * (vision.num_vision_tokens + vision.padding_patches) + layers)


def tower_layer_flops(vision: TowerCosts) -> int:
    """Return the FLOPs of one layer's keys of every token, and of the class token's query: what some methods read.

    The tower has computed both and lets go of them; computing them again is cheaper than an eager kernel. A tower that
    methods read has no token besides its patches but a class token.
    """
    rows = vision.sequence_length + (vision.extra_tokens > 0)
    return _product_flops(rows, vision.width, vision.width)


def received_attention_flops(vision: TowerCosts, *, of_class_token: bool) -> int:
    """Return the FLOPs of what patches receive of one layer's attention: keys and queries of all tokens, and all pairs.

    Args:
        vision: the tower.
        of_class_token: whether its query alone is asked, in a tower that has one.
    """
    tokens = vision.sequence_length
    queries = 1 if of_class_token and vision.extra_tokens > 0 else tokens
    projections = _product_flops(tokens + queries, vision.width, vision.width)
    return projections + _product_flops(queries, tokens, vision.width)


def projector_flops(model: ModelCosts, num_tokens: int) -> int:
    """Return the FLOPs of the projector over `num_tokens` vision tokens: only the kept ones reach it.

    Raises:
        InputError: for a negative number of tokens.
    """
    _require_at_least("num_tokens", num_tokens, 0)
    return num_tokens * model.projector_per_token


def prefill_flops(
    llm: LLMCosts,
    sequence_length: int | Sequence[int],
    *,
    logits_for: int = 1,
    layer_shares: Sequence[Fraction] | None = None,
) -> int:
    """Return the FLOPs of one pass of the LLM over a prompt of L tokens, vision tokens included.

    Args:
        llm: of the LLM.
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
    by_layer = [
        layer.per_token * length + layer.per_pair * length**2 for layer, length in zip(llm.layers, lengths, strict=True)
    ]
    return _of_shares(llm, by_layer, layer_shares) + logits_for * llm.per_logits


def decode_flops(
    llm: LLMCosts,
    prompt_length: int | Sequence[int],
    new_tokens: int,
    *,
    layer_shares: Sequence[Fraction] | None = None,
) -> int:
    """Return the FLOPs of all decoding steps of an answer of A new tokens after a prompt of P, with a cache.

    The first new token comes from prefill's logits and the last is never fed back, so there are A - 1 steps;
    step i = 1 … A - 1 attends to P + i keys, or to as many as the layer's window has.

    Args:
        llm: of the LLM.
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
    by_layer = [
        layer.per_token * steps + layer.per_pair * _decoded_pairs(layer, length, steps)
        for layer, length in zip(llm.layers, lengths, strict=True)
    ]
    return _of_shares(llm, by_layer, layer_shares) + steps * llm.per_logits


def kv_bytes(
    llm: LLMCosts,
    prompt_length: int | Sequence[int],
    new_tokens: int,
    *,
    bytes_per_value: int,
    layer_shares: Sequence[Fraction] | None = None,
) -> int:
    """Return the bytes of keys and values when an answer ends. What a layer does not run, it does not keep.

    A layer with a window keeps one token less than that: the next one is attended to as well.

    Args:
        llm: of the LLM.
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
    tokens = [length + max(0, new_tokens - 1) for length in lengths]
    held = [
        bytes_per_value * layer.cache_values * (count if layer.window is None else min(count, layer.window - 1))
        for layer, count in zip(llm.layers, tokens, strict=True)
    ]
    return _of_shares(llm, held, layer_shares)


def asked_attention_flops(llm: LLMCosts, sequence_length: int, num_asked: int) -> int:
    """Return the FLOPs of a few tokens' attention in one layer, computed in addition to the layer.

    Keys are computed for all L tokens, queries and their products with the keys for the asked ones. LLMs whose layers
    are driven from outside have layers that are all alike, with keys as wide as values.

    Args:
        llm: of the LLM.
        sequence_length: L, tokens that the layer reads.
        num_asked: R, tokens whose attention is computed.

    Raises:
        InputError: for an empty sequence, or a negative number of tokens.
    """
    _require_at_least("sequence_length", sequence_length, 1)
    _require_at_least("num_asked", num_asked, 0)
    query_width = llm.layers[0].per_pair // 4
    keys = keys_flops(llm, sequence_length)
    queries = _product_flops(num_asked, llm.width, query_width)
    return keys + queries + _product_flops(num_asked, query_width, sequence_length)


def keys_flops(llm: LLMCosts, sequence_length: int) -> int:
    """Return the FLOPs of one layer's keys of L tokens, computed in addition to the layer."""
    return _product_flops(sequence_length, llm.width, llm.layers[0].cache_values // 2)


def answer_flops(
    model: ModelCosts,
    *,
    num_images: int,
    num_vision_tokens: int,
    tokens_kept_per_image: int | Sequence[int],
    prompt_length: int,
    answer_length: int,
    selector_flops: int,
    tokens_kept_by_layer: Sequence[int] | None = None,
    tokens_per_image: Sequence[int] | None = None,
    towers: Sequence[TowerCosts] | None = None,
    tower_layers_read: int = 0,
    attentions_read: Sequence[bool] = (),
    projects_all: bool = False,
    layer_shares: Sequence[Fraction] | None = None,
    scheduler_flops: int = 0,
) -> dict[str, int]:
    """Return the FLOPs of one greedy or sampled answer by part: `records.PART_NAMES`, in that order.

    Args:
        model: what its parts cost; `model.with_budget_token()` for a method with a budget token in the tower.
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
        attentions_read: for each layer whose attention to patches the method reads, whether the class token's alone.
        projects_all: True if the projector runs over all N tokens, because the method chooses after it.
        layer_shares: the share of each LLM layer that ran; None if all did.
        scheduler_flops: of making a latency token and choosing the layers, which is part of prefill.

    Raises:
        InputError: for counts that contradict the model or each other.
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
    return {
        "vision": _read_tower_flops(encoded if tokens_kept else [], tower_layers_read, attentions_read),
        "selector": selector_flops,
        "projector": projector_flops(model, num_vision_tokens if projects_all and tokens_kept else tokens_kept)
        + tokens_kept * model.added_per_token,
        "prefill": prefill_flops(model.llm, lengths, layer_shares=layer_shares) + scheduler_flops,
        "decode": decode_flops(model.llm, lengths, answer_length, layer_shares=layer_shares),
    }


def _read_tower_flops(towers: Sequence[TowerCosts], layers_read: int, attentions_read: Sequence[bool]) -> int:
    """Return what the towers of an answer cost, and what a method reads between their layers."""
    flops = sum(vision_flops(tower) + layers_read * tower_layer_flops(tower) for tower in towers)
    return flops + sum(
        received_attention_flops(tower, of_class_token=own) for tower in towers for own in attentions_read
    )


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


def _lengths_by_layer(llm: LLMCosts, name: str, lengths: int | Sequence[int]) -> Sequence[int]:
    by_layer = [lengths] * len(llm.layers) if isinstance(lengths, int) else lengths
    if len(by_layer) != len(llm.layers):
        raise InputError(
            f"{name} has {len(by_layer)} lengths for an LLM of {len(llm.layers)} layers: give one for each"
        )
    for length in by_layer:
        _require_at_least(name, length, 1)
    return by_layer


def _of_shares(llm: LLMCosts, by_layer: Sequence[int], layer_shares: Sequence[Fraction] | None) -> int:
    """Return the sum over the layers of what a whole one costs, times the share of it that runs.

    Heads and neurons are split evenly, so that a share of them is the same share of every product.
    """
    if layer_shares is None:
        return sum(by_layer)
    if len(layer_shares) != len(llm.layers) or not all(0 <= share <= 1 for share in layer_shares):
        raise InputError(
            f"layer_shares are {[str(share) for share in layer_shares]}: give one in [0, 1] for each of "
            f"{len(llm.layers)} layers"
        )
    return int(sum((cost * share for cost, share in zip(by_layer, layer_shares, strict=True)), Fraction(0)))


def _decoded_pairs(layer: LayerCosts, prompt_length: int, steps: int) -> int:
    """Return the pairs of a query and a key over all steps: P + 1, P + 2, … keys, and none beyond the window."""
    growing = steps if layer.window is None else max(0, min(steps, layer.window - prompt_length))
    pairs = growing * prompt_length + growing * (growing + 1) // 2
    return pairs if layer.window is None else pairs + (steps - growing) * layer.window


def _product_flops(rows: int, inner: int, columns: int) -> int:
    """Return the FLOPs of [rows, inner] @ [inner, columns]."""
    return 2 * rows * inner * columns


def _require_at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise InputError(f"{name} is {value}: it must be at least {least}")
