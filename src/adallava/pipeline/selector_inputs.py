"""What a method may read of a batch, one row an image: the family makes what is declared, and only that."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from adallava.errors import InputError
from adallava.families.family_contract import Family, VisionFeatures
from adallava.pipeline.layout import Layout
from adallava.pipeline.wording import Language, embed_words
from adallava.selection.selector_contract import Need, SelectionInput, Selector, WordsMethod


def selection_input(
    family: Family,
    layout: Layout,
    input_ids: Tensor,
    vision: VisionFeatures,
    ratios: Tensor,
    seeds: Sequence[int],
    selector: Selector | None = None,
    language: Language | None = None,
) -> SelectionInput:
    """Gather what a selector may read, one row per image.

    Args:
        family: the model.
        layout: of the batch.
        input_ids: [B, L], the original ids.
        vision: the tower's output.
        ratios: [I], K / N.
        seeds: one per sample.
        selector: whose needs are met; None for none.
        language: for methods that read the question's words.

    Raises:
        InputError: if such a method is given no `language`.
    """
    needs = frozenset() if selector is None else selector.needs
    if language is None and needs & {Need.WORDS, Need.TEXT_TOWER}:
        raise InputError("a method that reads the question's words needs the model's tokenizer: give a processor")
    samples = torch.tensor(layout.sample_of_image, dtype=torch.int64).to(family.device, non_blocking=True)
    question = family.embed_text(input_ids.gather(1, layout.question_columns))
    return SelectionInput(
        features=vision.features,
        grid=family.shape.grid,
        keep_counts=layout.keep_counts,
        budget_ratios=ratios,
        seeds=image_seeds(layout, seeds).to(family.device, non_blocking=True),
        question_embeds=question.index_select(0, samples),
        question_mask=layout.question_mask.index_select(0, samples),
        question_lengths=tuple(len(layout.prompts[sample].question_ids) for sample in layout.sample_of_image),
        budget_features=vision.budget_features,
        attention_received=vision.attention_received,
        feature_layer=vision.feature_layer,
        last_layer=vision.last_layer,
        projected=_projected(family, vision, layout) if Need.PROJECTED in needs else None,
        **_question_inputs(family, layout, vision, samples, selector, language),
    )


def _projected(family: Family, vision: VisionFeatures, layout: Layout) -> Tensor:
    """Return all tokens projected, [I, N, D], for a method to choose by: each image on its own, whatever the batch.

    Where nothing is dropped nothing is chosen, and they are the stock model's.
    """
    counts = layout.tokens_per_image
    if layout.keep_counts == counts:
        return family.project_all(vision)
    images = [family.project(vision.features[image : image + 1, :count].clone()) for image, count in enumerate(counts)]
    longest = vision.features.shape[1]
    return torch.cat([F.pad(image, (0, 0, 0, longest - image.shape[1])) for image in images])


def _question_inputs(
    family: Family,
    layout: Layout,
    vision: VisionFeatures,
    samples: Tensor,
    selector: Selector | None,
    language: Language | None,
) -> dict[str, Any]:
    """Return what a method reads of the question's words, one row per image."""
    if selector is None or language is None or not selector.needs & {Need.WORDS, Need.TEXT_TOWER}:
        return {}
    questions = language.wording.questions(layout)
    read: dict[str, Any] = {}
    if Need.WORDS in selector.needs:
        embeds, mask, lengths = embed_words(family, cast(WordsMethod, selector), questions, language.wording)
        read |= {"word_embeds": embeds.index_select(0, samples), "word_mask": mask.index_select(0, samples)}
        read["word_lengths"] = tuple(lengths[sample] for sample in layout.sample_of_image)
    if Need.TEXT_TOWER in selector.needs and language.text_tower is not None:
        of_images = [questions[sample] for sample in layout.sample_of_image]
        relevance = [
            language.text_tower.relevance(vision.features[image : image + 1].clone(), [question])
            for image, question in enumerate(of_images)
        ]
        read["text_relevance"] = torch.cat(relevance)
    return read


def image_seeds(layout: Layout, seeds: Sequence[int]) -> Tensor:
    """Return a seed for each image, [I] int64 on the host: its sample's, plus its place within the sample.

    Raises:
        InputError: if the number of seeds is not the number of samples.
    """
    if len(seeds) != len(layout.prompts):
        raise InputError(f"{len(seeds)} seeds for a batch of {len(layout.prompts)} samples: give one, or one each")
    wrapped = [
        wrap_seed(seed + place)
        for seed, prompt in zip(seeds, layout.prompts, strict=True)
        for place in range(prompt.num_images)
    ]
    return torch.tensor(wrapped, dtype=torch.int64)


def wrap_seed(seed: int) -> int:
    """Return a seed of any size as an int64."""
    return (seed + 2**63) % 2**64 - 2**63
