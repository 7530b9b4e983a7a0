"""CLIP's text tower, next to a LLaVA: how near each patch is to the question in the space that both towers share."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from adallava.checkpoints.files import check_config, check_tokenizer, check_weights, weight_files
from adallava.checkpoints.hub import PROCESSOR_FILES, find_folder
from adallava.checkpoints.weights_header import check_claims, check_safetensors
from adallava.errors import AdallavaError, CheckpointError, in_short
from adallava.families.tower_parts import num_position_values


class ClipTextTower:
    """The text half of a CLIP model, and the projection of the vision half that LLaVA leaves out."""

    def __init__(self, clip: Any, tokenizer: Any, post_layernorm: Any) -> None:
        """Hold the parts.

        Args:
            clip: a `CLIPModel`; its vision tower is not used.
            tokenizer: its tokenizer.
            post_layernorm: of the LLaVA's own vision tower.
        """
        self._text_model, self._text_projection = clip.text_model, clip.text_projection
        self._visual_projection = clip.visual_projection
        self._tokenizer, self._post_layernorm = tokenizer, post_layernorm
        self._config = clip.config.text_config

    @torch.no_grad()
    def relevance(self, features: Tensor, questions: Sequence[str]) -> Tensor:
        """Return the cosine of each token with its image's question, [I, N] float32.

        A question too long for the tower is cut into parts that fill it, and the cosines are averaged.

        Args:
            features: [I, N, C], the tower's output.
            questions: one per image.
        """
        device = features.device
        for module in (self._text_model, self._text_projection, self._visual_projection):
            module.to(device)  # After the base went elsewhere.
        parts = [self._parts(question) for question in questions]
        ids, mask = (torch.cat([part[i] for part in parts]).to(device, non_blocking=True) for i in (0, 1))
        pooled = self._text_model(input_ids=ids, attention_mask=mask).pooler_output
        texts = F.normalize(self._text_projection(pooled).float(), dim=-1)
        patches = self._visual_projection(self._post_layernorm(features).float())
        patches = F.normalize(patches, dim=-1)
        cosines = patches @ texts.t()
        own = torch.zeros(len(questions), len(ids))
        first = 0
        for image, (part, _) in enumerate(parts):
            own[image, first : first + len(part)] = 1.0 / len(part)
            first += len(part)
        return (cosines * own.to(device, non_blocking=True)[:, None, :]).sum(dim=-1)

    def flops(self, question: str, num_vision_tokens: int) -> int:
        """Return the matrix products for one image of N patches: text tower, both projections, the comparison."""
        parts = len(self._parts(question)[0])
        width, length, shared = self._config.hidden_size, self._config.max_position_embeddings, self._shared_width
        layer = 8 * width * width + 4 * width * self._config.intermediate_size + 4 * length * width
        text = parts * (length * self._config.num_hidden_layers * layer + 2 * width * shared)
        return int(text + 2 * num_vision_tokens * shared * (self._visual_projection.in_features + parts))

    @property
    def _shared_width(self) -> int:
        return int(self._visual_projection.out_features)

    def _parts(self, question: str) -> tuple[Tensor, Tensor]:
        """Return token ids and mask, each [parts, length of the tower], padded with zeros as CDPruner's code does."""
        length = self._config.max_position_embeddings
        ids = torch.tensor(self._tokenizer(question)["input_ids"], dtype=torch.int64)
        padding = -len(ids) % length
        mask = F.pad(torch.ones_like(ids), (0, padding))
        return F.pad(ids, (0, padding)).view(-1, length), mask.view(-1, length)


def load_text_tower(folder_or_id: str, vision_tower: Any, vision_width: int, device: torch.device) -> ClipTextTower:
    """Load a CLIP checkpoint's text half from safetensors; from a folder, without any network.

    Args:
        folder_or_id: the CLIP checkpoint that the vision tower came from.
        vision_tower: the LLaVA's own.
        vision_width: C of its features.
        device: to put it on.

    Raises:
        CheckpointError: if files are missing or damaged, or the widths do not fit.
    """
    from transformers import AutoTokenizer, CLIPModel

    _check_files(folder_or_id)
    local = Path(folder_or_id).is_dir()
    try:
        clip, loading = CLIPModel.from_pretrained(
            folder_or_id,
            use_safetensors=True,
            local_files_only=local,
            trust_remote_code=False,
            output_loading_info=True,
        )
        tokenizer = AutoTokenizer.from_pretrained(folder_or_id, local_files_only=local, trust_remote_code=False)
    except Exception as error:  # whatever a damaged file makes transformers, tokenizers or safetensors raise
        raise CheckpointError(f"cannot load the text tower at {folder_or_id!r}: {in_short(error)}") from error
    unfilled = sorted(str(key) for key in loading["missing_keys"])
    if unfilled:
        raise CheckpointError(
            f"{folder_or_id!r} is not a complete CLIP checkpoint: {len(unfilled)} weights are missing, the first "
            f"{unfilled[0]!r}"
        )
    if clip.visual_projection.in_features != vision_width:
        raise CheckpointError(
            f"the text tower at {folder_or_id!r} belongs to a vision tower of width "
            f"{clip.visual_projection.in_features}, this model's features have {vision_width}: name the CLIP "
            "checkpoint that its vision tower came from"
        )
    clip = clip.float().to(device).eval().requires_grad_(False)
    return ClipTextTower(clip, tokenizer, vision_tower.post_layernorm)


def _check_files(folder_or_id: str) -> None:
    """Refuse what asks for code of its own, or cannot be whole; of a hub id all but the weights, which are not here."""
    from transformers import CLIPConfig

    try:
        folder = find_folder(folder_or_id, PROCESSOR_FILES)
        model_type = check_config(folder).get("model_type")
        if model_type != "clip":
            raise CheckpointError(f"its config is of the type {model_type!r}, not of a CLIP")
        check_tokenizer(folder)
        if Path(folder_or_id).is_dir():
            check_weights(folder)
            config = CLIPConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            check_claims(
                folder_or_id,
                config,
                [check_safetensors(path) for path in weight_files(folder)],
                tower_positions=num_position_values(config.vision_config),
            )
    except AdallavaError as error:
        raise CheckpointError(f"cannot load the text tower at {folder_or_id!r}: {error}") from error
    except Exception as error:  # of a config that transformers takes for none of its own
        raise CheckpointError(f"cannot load the text tower at {folder_or_id!r}: {in_short(error)}") from error
