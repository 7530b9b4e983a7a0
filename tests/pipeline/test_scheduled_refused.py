"""What cannot be scheduled, and a scheduler against the contract, is refused with the reason."""

from typing import Any

import pytest
import torch
from models import scheduled, six_layers

from adallava import AdaLlava
from adallava.errors import AdallavaError, BudgetError, UnsupportedModeError
from adallava.scheduling.first import FirstScheduler
from adallava.scheduling.heads import HeadsScheduler
from adallava.scheduling.scheduler_contract import Schedule


class _TooMany(FirstScheduler):
    def schedule(self, inputs: Any) -> Schedule:
        return Schedule(torch.ones(len(inputs.unit_counts), inputs.units.count, dtype=torch.bool))


def test_a_scheduler_against_the_contract_is_an_error(six: AdaLlava, inputs: dict[str, Any]) -> None:
    with pytest.raises(AdallavaError, match=r"asked to run \(1, 1, 1\) of 3 units and returned \[3, 3, 3\]"):
        six.with_scheduler(_TooMany()).generate(**inputs, latency=4, max_new_tokens=1)


def test_what_cannot_be_scheduled_is_refused(six: AdaLlava, full: AdaLlava, inputs: dict[str, Any]) -> None:
    with pytest.raises(BudgetError, match="no scheduler says which"):
        six.generate(**inputs, latency=0.9, max_new_tokens=1)
    with pytest.raises(BudgetError, match="2 latencies for a batch of 3"):
        scheduled(six, "first").generate(**inputs, latency=[0.5, 1.0], max_new_tokens=1)
    with pytest.raises(UnsupportedModeError, match="'olmo2'"):
        six_layers(full, llm="olmo2").with_scheduler("first")
    with pytest.raises(UnsupportedModeError, match="o_proj of this model's layers is a Linear with a bias"):
        scheduled(six_layers(full, llm="llama", attention_bias=True), "heads")
    with pytest.raises(UnsupportedModeError, match="2 key-value heads and 96 neurons cannot be split into 4"):
        six.with_scheduler(HeadsScheduler(six.family.decoder().shape, groups=4))
    for name in ("output_hidden_states", "output_attentions"):
        with pytest.raises(UnsupportedModeError, match=f"{name}=True is not supported"):
            scheduled(six, "first").generate(**inputs, latency=0.5, **{name: True})
        with pytest.raises(UnsupportedModeError, match=f"{name}=True is not supported"):
            scheduled(six, "first").forward(**inputs, latency=0.5, **{name: True})
