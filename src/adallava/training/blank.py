"""An untrained checkpoint with its processor, of the family that can make one."""

import math
from pathlib import Path

import torch

from adallava.families import family_from_nothing
from adallava.training.recipe import BlankModel
from adallava.training.tokenizer import chat_template, learn_tokenizer, scenes_corpus


def write_blank(shape: BlankModel, folder: Path, seed: int) -> None:
    """Write an untrained checkpoint with its processor into `folder`, with a tokenizer learned on scenes."""
    family = family_from_nothing(shape.family)
    tokenizer = learn_tokenizer(scenes_corpus(), shape.vocab_size, family.blank_tokens)
    processor = family.blank_processor(tokenizer, shape, chat_template(family.blank_picture))
    ids = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    # A multiple of 64 keeps the output matrix well shaped; the spare rows are never produced.
    vocab_size = math.ceil(len(tokenizer) / 64) * 64
    torch.manual_seed(seed)
    token_ids = {name: tokenizer.convert_tokens_to_ids(text) for name, text in family.blank_tokens.items()}
    model = family.blank_model(shape, vocab_size, token_ids, ids)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
