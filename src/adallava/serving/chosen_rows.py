"""What a method keeps of images, as rows for an LLM that runs elsewhere: tower, method and projector alone.

The tower is transformers', driven as in `AdaLlava`: so a method reads there what it reads here, and chooses the same
tokens. The LLM's layers are never loaded; its embeddings are those of the engine that asks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from adallava.adapters.learned import Asked, BaseFiles, make_selector
from adallava.budget import TokenBudget
from adallava.families import load_without_llm
from adallava.families.family_contract import Family
from adallava.families.needs import check_needs
from adallava.families.picture_inputs import PictureInputs
from adallava.pipeline.call import Request
from adallava.pipeline.language import make_language
from adallava.pipeline.prepare import choose_from_pictures
from adallava.pipeline.wording import Language
from adallava.processors.stock_processor import AdaLlavaProcessor
from adallava.selection.selector_contract import Need, Selector
from adallava.serving.serving_settings import ServingSettings


@dataclass(frozen=True)
class ChosenRows:
    """Of one image.

    Attributes:
        embeds: [K, D], what the LLM reads.
        places: [K] int64, which of its N tokens they are, ascending.
        added: [K, D] for each layer of the LLM after which something is added to the tokens' states, in order.
    """

    embeds: Tensor
    places: Tensor
    added: tuple[Tensor, ...]


class EngineEmbeddings(nn.Module):
    """The engine's embeddings of ids, which may be spread over devices, in the place of a stock model's."""

    def __init__(self, llm: Any, num_embeddings: int) -> None:
        """Hold the LLM without taking it for a part: its weights are not ours to move.

        Args:
            llm: its `embed_input_ids` takes ids [T] and returns [T, D].
            num_embeddings: of its vocabulary.
        """
        super().__init__()
        self._llm = (llm,)
        self.num_embeddings = num_embeddings

    def forward(self, ids: Tensor) -> Tensor:
        """Return the embeddings of ids of any shape, [..., D]; of none where a method reads no question."""
        embeds: Tensor = self._llm[0].embed_input_ids(ids.flatten())
        return embeds.view(*ids.shape, embeds.shape[-1])


class RowChooser:
    """Drives the stages before the LLM."""

    def __init__(self, family: Family, selector: Selector, language: Language | None = None) -> None:
        """Hold the parts.

        Raises:
            UnsupportedModeError: for a method that needs what the model lacks.
        """
        check_needs(family, selector)
        self._family, self._selector, self._language = family, selector, language

    @classmethod
    def load(
        cls, folder: Path, settings: ServingSettings, *, embeddings: nn.Module, dtype: torch.dtype, device: torch.device
    ) -> "RowChooser":
        """Load the tower, the projector and the method.

        Args:
            folder: of the checkpoint.
            settings: name the method.
            embeddings: maps ids to the LLM's input embeddings; has `num_embeddings`.
            dtype: of tower and projector.
            device: that everything goes to.

        Raises:
            CheckpointError: if files are missing or damaged, or the adapter belongs to another base.
            UnsupportedModeError: for a family that is not supported, or a method that needs what the model lacks.
        """
        family = load_without_llm(str(folder), embeddings=embeddings, dtype=dtype, device=device)
        asked = Asked(settings.method, settings.adapter, settings.allow_other_base, dict(settings.method_options))
        selector: Any = make_selector(asked, BaseFiles(str(folder)), family.shape)[0]
        check_needs(family, selector, str(folder))
        if isinstance(selector, nn.Module):
            selector.to(device)
        reads_words = selector.needs & {Need.WORDS, Need.TEXT_TOWER}
        processor = AdaLlavaProcessor.from_pretrained(str(folder)) if reads_words else None
        return cls(family, selector, make_language(family, selector, processor))

    @property
    def picture_inputs(self) -> tuple[str, ...]:
        """What it takes of images, by the processor's names."""
        return self._family.picture_inputs

    @property
    def num_tokens(self) -> int:
        """N of an image, for a family whose images are all alike."""
        return self._family.shape.num_vision_tokens

    @torch.no_grad()
    def choose(
        self,
        pictures: PictureInputs,
        keep_counts: Sequence[int],
        seeds: Sequence[int],
        questions: Sequence[Tensor],
    ) -> list[ChosenRows]:
        """Return what each image keeps.

        Args:
            pictures: as the processor made them, pixels on the model's device.
            keep_counts: K of each.
            seeds: of each.
            questions: [T] int64 of each, ids of its prompt's text, on the host; T may be 0.
        """
        family = self._family
        grids = family.grids(pictures)
        prompts = [
            torch.cat([torch.full((rows * columns,), family.image_token_id), question])
            for (rows, columns), question in zip(grids, questions, strict=True)
        ]
        width = max(map(len, prompts))
        ids = torch.full((len(prompts), width), family.pad_token_id)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, : len(prompt)], mask[row, : len(prompt)] = prompt, 1
        request = Request.parse(
            ids,
            mask,
            pictures,
            side="right",
            token_budget=[TokenBudget(count=count) for count in keep_counts],
            seed=list(seeds),
        )
        chosen = choose_from_pictures(family, self._selector, request, language=self._language)
        return [
            ChosenRows(
                chosen.embeds[image, :count],
                chosen.selection.indices[image, :count],
                tuple(rows[image, :count] for _, rows in sorted(chosen.added.items())),
            )
            for image, count in enumerate(keep_counts)
        ]
