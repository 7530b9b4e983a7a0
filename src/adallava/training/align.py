"""Stage `align`: every patch learns to name what it shows, in the LLM's own word embeddings.

The projected feature of a patch is compared with the input embeddings of the words of each attribute (a patch of
a red circle with "red" among the colors, "circle" among the shapes, and so on). After it, words of a question
and the patches they speak of already lie close together, and since the LLM's output matrix starts as
its embeddings (`match_scales`), naming what a patch shows is a copy. It needs no LLM pass at all.

The class token learns to name everything that is in the image, as CLIP's learns to match a caption: without a task of
its own its attention would mean nothing, and methods that select by it would be judged on noise.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adallava.errors import InputError
from adallava.families.capabilities.of_towers import AlignsPatches
from adallava.families.picture_inputs import PictureInputs
from adallava.tasks.scenes import COLORS, SHAPES, SIZES
from adallava.training.examples import PLACES
from adallava.training.pictures import Beside, picture_inputs

_TEMPERATURE = 4.0

WORD_GROUPS: dict[str, tuple[tuple[str, ...], ...]] = {
    "shape": tuple((s, f" {s}", f" {s}{'es' if s.endswith('s') else 's'}") for s in SHAPES),
    "color": tuple((c, f" {c}") for c in COLORS),
    "size": tuple((s, f" {s}") for s in SIZES),
    "digit": tuple((str(d),) for d in range(10)),
    "column": tuple((c,) for c in "abcd"),
    "row": tuple((str(r),) for r in range(1, 5)),
}
"""Attribute -> per value, the forms its word has in questions and answers."""


class AlignmentLoss(nn.Module):
    """Cross-entropy of each labeled patch against the words of each attribute.

    A digit's place in its number and "background" have no word: they get free vectors, which are thrown away.
    """

    def __init__(self, tokenizer: Any, width: int) -> None:
        """Look up the words' token ids; forms of a word that are several tokens are left out.

        Raises:
            InputError: if no form of a word is one token.
        """
        super().__init__()
        self.groups = {name: [self._ids(tokenizer, forms) for forms in group] for name, group in WORD_GROUPS.items()}
        self.absent = nn.Parameter(torch.zeros(sum(len(group) for group in WORD_GROUPS.values())))
        self.place = nn.Linear(width, PLACES)
        self.background = nn.Linear(width, 2)

    @staticmethod
    def _ids(tokenizer: Any, forms: tuple[str, ...]) -> list[int]:
        ids = [tokenizer(form, add_special_tokens=False)["input_ids"] for form in forms]
        single = [pieces[0] for pieces in ids if len(pieces) == 1]
        if not single:
            raise InputError(
                f"none of {', '.join(map(repr, forms))} is one token: use a tokenizer learned on the scenes"
            )
        return single

    def forward(
        self, projected: Tensor, summary: Tensor | None, embedding: Tensor, labels: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Return the loss per attribute.

        Args:
            projected: [B, N, D] vision tokens as the LLM reads them.
            summary: [B, D] the class token's output, projected likewise; None of a tower without one.
            embedding: [V, D] the LLM's input embeddings.
            labels: int64 [B, N] per attribute, -1 = not labeled.
        """
        # What the LLM's first RMSNorm does to a token, without its weights.
        features = F.rms_norm(projected, projected.shape[-1:])
        losses, vocabulary, present = {}, [], []
        for name, group in self.groups.items():
            words = F.normalize(torch.stack([embedding[ids].mean(0) for ids in group]), dim=-1)
            losses[name] = self._loss(_TEMPERATURE * features @ words.T, labels[name])
            vocabulary.append(words)
            values = torch.arange(len(group), device=labels[name].device)
            present.append((labels[name].unsqueeze(-1) == values).any(dim=1))
        losses["place"] = self._loss(self.place(features), labels["place"])
        losses["background"] = self._loss(self.background(features), labels["background"])
        if summary is not None:
            named = _TEMPERATURE * F.rms_norm(summary, summary.shape[-1:]) @ torch.cat(vocabulary).T
            losses["summary"] = F.binary_cross_entropy_with_logits(
                named.float() - self.absent, torch.cat(present, dim=-1).float()
            )
        return losses

    @staticmethod
    def _loss(logits: Tensor, labels: Tensor) -> Tensor:
        total = F.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), ignore_index=-1, reduction="sum")
        return total / (labels >= 0).sum().clamp(min=1)


class AlignObjective(nn.Module):
    """What the Trainer sees in stage `align`: images in, one loss out."""

    def __init__(self, family: AlignsPatches, alignment: AlignmentLoss) -> None:
        """Hold the base model and the loss."""
        super().__init__()
        self.base: Any = family.model
        self.family, self.alignment = family, alignment

    def forward(
        self, pixel_values: Tensor, labels: Mapping[str, Tensor], beside: Beside | None = None, **_: Any
    ) -> dict[str, Tensor]:
        """Return `loss` and each attribute's share of it."""
        pictures = picture_inputs(self.family, pixel_values, beside)
        projected, summary = self.family.project_with_summary(pictures)
        losses = self.alignment(projected, summary, self.base.get_input_embeddings().weight, labels)
        return {"loss": torch.stack(tuple(losses.values())).mean(), **losses}


@torch.no_grad()
def match_scales(family: AlignsPatches, pictures: PictureInputs) -> None:
    """Give vision tokens the strength of word embeddings, and let the output matrix start as the words.

    The alignment loss sees directions only. Vision tokens much stronger than words would drown them in the LLM's
    first layer, and a copied vision token should read as the words it was aligned with.

    Args:
        family: the model.
        pictures: typical ones.
    """
    words = family.model.get_input_embeddings().weight
    projected = family.project_all(family.encode(pictures))
    family.scale_projector(words.square().mean().sqrt() / projected.square().mean().sqrt())
    family.model.get_output_embeddings().weight.copy_(F.rms_norm(words, words.shape[1:]) / words.shape[1] ** 0.5)
