"""What every scheduler promises in training: what inference computes, with gradients to the token and every gate."""

import copy
from typing import Any

import pytest
import torch
from models import SCHEDULERS, WHOLE_LAYERS, rest_is_long, sample_of, scheduled, tiny_inputs, tiny_tokens
from stock_reference import stock_positions

from adallava import AdaLlava
from adallava.pipeline.latency_token import token_places
from adallava.scheduling.scheduler_contract import Schedule

NEW = 3
# Of six layers, three of them the prefix: one or two more run, or all. One sample of three runs everything.
LATENCIES = [4 / 6, 1.0, 5 / 6]
BUDGETS = [5, 1.0, 0.5]


@pytest.fixture(params=rest_is_long(SCHEDULERS, set(SCHEDULERS) - set(WHOLE_LAYERS)))
def model(request: pytest.FixtureRequest, six_by_scheduler: dict[str, AdaLlava]) -> AdaLlava:
    return scheduled(six_by_scheduler[request.param], request.param).with_method("uniform")  # type: ignore[no-any-return]


@pytest.mark.newest
def test_training_computes_what_inference_computes(model: AdaLlava, inputs: dict[str, Any]) -> None:
    """Uncached and padded on the right equals cached and padded on the left."""
    options: dict[str, Any] = {"token_budget": BUDGETS, "latency": LATENCIES, "seed": [1, 2, 3]}
    generated = model.generate(**inputs, **options, max_new_tokens=NEW, do_sample=False, output_logits=True)
    for row, answer in enumerate(generated.answer_ids):
        sample = sample_of(inputs, row)
        whole = torch.cat([sample["input_ids"], torch.tensor([answer])], dim=1)
        labels = torch.cat([torch.full_like(sample["input_ids"], -100), torch.tensor([answer])], dim=1)
        output = model.forward(
            **{**sample, "input_ids": whole, "attention_mask": None},
            labels=labels,
            **{name: values[row] for name, values in options.items()},
        )
        first = generated.prompt_lengths[row] - 1
        steps = output.logits[0, first : first + len(answer)]
        expected = torch.stack(generated.transformers_output.logits, dim=1)[row, : len(answer)]
        torch.testing.assert_close(steps, expected, atol=2e-4, rtol=2e-4)


def test_labels_positions_and_lengths_around_the_token_fit_in_a_mixed_batch(six: AdaLlava) -> None:
    model = scheduled(six, "layers").with_method("uniform")
    batch = tiny_inputs(model.processor, ["what is it?", "why?", "is the colour red or blue?"])
    labels = torch.full_like(batch["input_ids"], -100)
    for row, length in enumerate((2, 4, 3)):
        labels[row, -length:] = batch["input_ids"][row, -length:]
    output = model.forward(**batch, labels=labels, token_budget=[3, 16, 9], latency=[0.5, 1.0, 5 / 6])
    assert output.batch.labels is not None
    for row, (kept, answer, has_token) in enumerate([(3, 2, True), (16, 4, False), (9, 3, True)]):
        tokens = sum(tiny_tokens(model, [row]))
        length = int(batch["attention_mask"][row].sum()) - tokens + kept + has_token
        assert output.layout.lengths[row] == length
        # No token reads the latency token, and it takes no position of its own.
        assert int(output.batch.attention_mask[row].sum()) == length - has_token
        learned = (output.batch.labels[row] != -100).nonzero().flatten().tolist()
        # The answer stands at the end, and its tokens are the same.
        assert learned == list(range(length - answer, length))
        assert torch.equal(output.batch.labels[row, learned], batch["input_ids"][row, -answer:])
        assert torch.equal(output.batch.input_ids[row, learned], batch["input_ids"][row, -answer:])
        readable = output.batch.attention_mask[row, :length].bool()
        positions = output.batch.position_ids[..., row, :length][..., readable]
        if positions.dim() == 1:
            assert bool((positions.diff() >= 1).all())
        last = stock_positions(model.base, sample_of(batch, row))[..., -1].flatten()
        assert positions[..., -1].flatten()[-len(last) :].tolist() == last.tolist()
        places = token_places(output.layout)
        assert places is not None
        assert int(places[row]) == (length - answer - 2 if has_token else -1)
        if has_token:
            place = int(places[row])
            assert output.batch.labels[row, place] == -100
            # The token is the prompt's last one again, with the latency on top, right before it.
            assert output.batch.input_ids[row, place] == output.batch.input_ids[row, place + 1]
            of_token, of_last = output.batch.position_ids[..., row, place : place + 2].reshape(-1, 2).T
            assert torch.equal(of_token, of_last)
            assert not torch.equal(output.batch.inputs_embeds[row, place], output.batch.inputs_embeds[row, place + 1])
    expected = torch.nn.functional.cross_entropy(
        output.logits[:, :-1].flatten(0, 1), output.batch.labels[:, 1:].flatten(), ignore_index=-100
    )
    torch.testing.assert_close(output.loss, expected)


def test_gradients_reach_the_token_and_every_gate(six: AdaLlava, inputs: dict[str, Any]) -> None:
    """With gates, everything is computed and only the active part is let through: the values do not change."""
    labels = torch.full_like(inputs["input_ids"], -100)
    labels[:, -2:] = inputs["input_ids"][:, -2:]
    for name in ("heads", "layers"):
        model = scheduled(six, name)
        options: dict[str, Any] = {**inputs, "labels": labels, "latency": LATENCIES}
        plain = model.forward(**options)
        scheduler: Any = model.scheduler
        gated = model.with_scheduler(_gated(scheduler)).forward(**options)
        torch.testing.assert_close(gated.logits, plain.logits, atol=2e-4, rtol=2e-4)
        assert plain.schedule is not None
        assert gated.schedule is not None
        assert gated.schedule.gates is not None
        assert gated.loss is not None
        weights = [scheduler.head.weight, scheduler.latency_mlp[2].weight, gated.schedule.gates]
        for gradient in torch.autograd.grad(gated.loss, weights):
            assert gradient.isfinite().all()
            assert gradient.abs().sum() > 0


def _gated(scheduler: Any) -> Any:
    """Return a learned scheduler whose choice is passed on as gates with a gradient, its weights shared."""

    class Gated(type(scheduler)):  # type: ignore[misc]
        def schedule(self, inputs: Any) -> Schedule:
            made = super().schedule(inputs)
            soft = made.logits.softmax(dim=-1)
            return Schedule(made.active, made.logits, gates=soft - soft.detach() + made.active.float())

    twin = copy.copy(scheduler)
    twin.__class__ = Gated
    return twin
