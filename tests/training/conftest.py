"""Tokenizers of models from nothing."""

from collections.abc import Iterator
from functools import partial

import pytest


@pytest.fixture(scope="session", autouse=True)
def few_scenes_to_learn_words_from() -> Iterator[None]:
    """A byte-level tokenizer reads any text, however few it learned from; 400 scenes take longer than the training."""
    from adallava.training import blank

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blank, "scenes_corpus", partial(blank.scenes_corpus, 20))
        yield
