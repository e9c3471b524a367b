from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from toys import moments_of, random_consumer

from evaluators.reconstruct import elimination
from evaluators.reconstruct.elimination import backward_elimination, own_errors
from evaluators.statistics.records import Consumer

Reader = tuple[Tensor, Consumer]


def refit_error(readers: list[Reader], kept: list[int]) -> float:
    """The residual of fitting every reader anew, on the raw rows."""
    total = 0.0
    for x, consumer in readers:
        gone = torch.ones(len(consumer.columns), dtype=torch.bool)
        gone[kept] = False
        stays = torch.ones(x.shape[2], dtype=torch.bool)
        stays[consumer.columns[gone].flatten()] = False
        moments = consumer.moments
        for rows, weights, importance in zip(x, moments.weights, moments.importance, strict=True):
            outputs = rows @ weights
            fitted = torch.linalg.lstsq(rows[:, stays], outputs, driver="gelsd").solution
            squares = (outputs - rows[:, stays] @ fitted).square().mean(dim=0)
            total += float((squares * importance).sum())
    return total


def greedy(readers: list[Reader]) -> list[int]:
    """The order of elimination, each choice by solving everything anew."""
    kept = list(range(len(readers[0][1].columns)))
    order = []
    while kept:
        choice = min(kept, key=lambda unit: refit_error(readers, [u for u in kept if u != unit]))
        order.append(choice)
        kept.remove(choice)
    return order


CASES = {
    "one tap": [random_consumer(6, 1)],
    "nine taps": [random_consumer(6, 9, 5)],
    "two readers": [random_consumer(6, 9, 4, seed=1), random_consumer(6, 1, 7, seed=2)],
    "conv groups": [random_consumer(6, 4, 2, conv_groups=3, seed=3)],
    "other channels": [random_consumer(6, 9, 3, others=3, seed=4)],
    "importance": [random_consumer(6, 2, 8, importance=True, seed=5)],
    "all at once": [
        random_consumer(6, 9, 5, conv_groups=2, others=2, importance=True, seed=6),
        random_consumer(6, 1, 3, others=1, importance=True, seed=7),
    ],
}


@pytest.mark.parametrize("readers", CASES.values(), ids=CASES)
class TestSixChannels:
    def test_the_order_is_that_of_solving_anew(self, readers: list[Reader]) -> None:
        found = backward_elimination([consumer for _, consumer in readers], ridge=1e-10)
        assert found.order.dtype == torch.int64
        assert found.order.tolist() == greedy(readers)

    def test_the_errors_are_the_residuals_of_re_fits(self, readers: list[Reader]) -> None:
        found = backward_elimination([consumer for _, consumer in readers])
        kept = found.order.flip(0).tolist()
        wanted = [refit_error(readers, kept[:k]) for k in range(7)]
        assert found.errors[-1] == 0
        torch.testing.assert_close(found.errors.tolist(), wanted, rtol=1e-6, atol=1e-9 * wanted[0])
        torch.testing.assert_close(found.increases.flip(0).sum(), found.errors[0])

    def test_panels_change_nothing(self, readers: list[Reader], monkeypatch: pytest.MonkeyPatch) -> None:
        consumers = [consumer for _, consumer in readers]
        whole = backward_elimination(consumers)
        monkeypatch.setattr(elimination, "PANEL_COLUMNS", 2 * max(c.columns.shape[1] for c in consumers))
        parts = backward_elimination(consumers)
        assert torch.equal(whole.order, parts.order)
        torch.testing.assert_close(whole.errors, parts.errors)


@settings(max_examples=25, deadline=None)
@given(
    width=st.integers(1, 9),
    taps=st.integers(1, 4),
    outputs=st.integers(1, 5),
    others=st.integers(0, 2),
    seed=st.integers(0, 1000),
)
def test_errors_are_residuals_for_any_shape(
    width: int, taps: int, outputs: int, others: int, seed: int
) -> None:
    readers = [random_consumer(width, taps, outputs, others=others, rows=120, seed=seed)]
    found = backward_elimination([readers[0][1]])
    assert sorted(found.order.tolist()) == list(range(width))
    kept = found.order.flip(0).tolist()
    wanted = [refit_error(readers, kept[:k]) for k in range(width + 1)]
    torch.testing.assert_close(found.errors.tolist(), wanted, rtol=1e-5, atol=1e-8 * wanted[0])
    assert (found.errors.diff() <= 0).all()


@pytest.mark.parametrize("taps", [1, 9])
def test_linear_copies_lose_nothing_when_half_of_the_channels_go(taps: int) -> None:
    x, _ = random_consumer(4, taps, 5, rows=900)
    values = x[:, :, :-1]
    mixing = torch.randn(4, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    copies = (values.unflatten(2, (4, taps)).mT @ mixing).mT.flatten(2)
    doubled = torch.cat([values, copies, x[:, :, -1:]], dim=2)
    weights = torch.randn(1, 8 * taps + 1, 5, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    reader = Consumer(moments_of("layer", doubled, weights, taps), torch.arange(8 * taps).reshape(8, taps))
    found = backward_elimination([reader])
    assert found.errors[4] < 1e-8 * found.errors[0]
    assert found.errors[3] > 1e-3 * found.errors[0]


def test_silent_channels_go_first_and_cost_nothing() -> None:
    x, consumer = random_consumer(6, 4)
    x[:, :, consumer.columns[[2, 5]].flatten()] = 0
    silent = Consumer(moments_of("layer", x, consumer.moments.weights, 4), consumer.columns)
    found = backward_elimination([silent])
    assert set(found.order[:2].tolist()) == {2, 5}
    assert float(found.errors[4]) < 1e-12 * float(found.errors[0])
    x[:, :, :-1] = 0
    wholly = Consumer(moments_of("layer", x, consumer.moments.weights, 4), consumer.columns)
    assert backward_elimination([wholly]).errors.tolist() == [0] * 7


def test_a_constant_channel_is_absorbed_by_the_bias() -> None:
    x, consumer = random_consumer(5, 1)
    x[:, :, consumer.columns[3]] = 2.5
    moments = moments_of("layer", x, consumer.moments.weights, 1)
    found = backward_elimination([Consumer(moments, consumer.columns)])
    assert found.order[0] == 3
    assert float(found.errors[4]) < 1e-9 * float(found.errors[0])


def test_a_matrix_that_is_not_even_positive_gets_a_larger_ridge() -> None:
    _, consumer = random_consumer(6, 2)
    gram = consumer.moments.gram.clone()
    gram.diagonal(dim1=1, dim2=2)[:, :-1] -= 0.5
    assert torch.linalg.eigvalsh(gram).min() < 0
    dented = replace(consumer, moments=replace(consumer.moments, gram=gram))
    found = backward_elimination([dented], ridge=0.0)
    assert found.errors.isfinite().all()
    assert sorted(found.order.tolist()) == list(range(6))


def test_moments_that_are_not_finite_are_refused_by_name() -> None:
    _, consumer = random_consumer(3)
    gram = consumer.moments.gram.clone()
    gram[0, 1, 1] = torch.nan
    broken = replace(consumer, moments=replace(consumer.moments, gram=gram))
    with pytest.raises(ValueError, match=r"Layer 'layer': its second moments are not finite"):
        backward_elimination([broken])


def blocks_of(consumer: Consumer, channels: int) -> Consumer:
    """As if only what channels have among themselves had fitted into memory."""
    moments = consumer.moments
    own = torch.arange(channels * moments.taps).reshape(channels, moments.taps)
    blocks = moments.gram[:, own[:, :, None], own[:, None, :]]
    return replace(consumer, moments=replace(moments, gram=None, held=None, blocks=blocks))


@pytest.mark.parametrize(("taps", "conv_groups"), [(1, 1), (9, 1), (4, 2)])
def test_with_blocks_a_unit_costs_its_own_error(taps: int, conv_groups: int) -> None:
    x, consumer = random_consumer(5, taps, conv_groups=conv_groups, others=2, importance=True)
    moments = consumer.moments
    parts = [(x[:, :, c] @ moments.weights[:, c]).square().mean(dim=1) for c in consumer.columns]
    wanted = torch.stack([(part * moments.importance).sum() for part in parts])
    approximate = blocks_of(consumer, 7)
    for reader in (consumer, approximate):
        torch.testing.assert_close(own_errors(reader), wanted)
    found = backward_elimination([approximate])
    assert torch.equal(found.order, wanted.argsort())
    torch.testing.assert_close(found.increases, wanted.sort().values)


def test_a_reader_with_blocks_adds_to_one_with_all_moments() -> None:
    (_, whole), (_, partial) = random_consumer(5, 4, seed=1), random_consumer(5, 1, seed=2)
    found = backward_elimination([whole, blocks_of(partial, 5)])
    own = own_errors(partial)
    first = torch.tensor([_first_cost(whole, unit) for unit in range(5)], dtype=torch.float64) + own
    assert found.order[0] == first.argmin()
    torch.testing.assert_close(found.increases[0], first.min(), rtol=1e-4, atol=0)
    torch.testing.assert_close(found.errors[0], backward_elimination([whole]).errors[0] + own.sum())


def _first_cost(consumer: Consumer, unit: int) -> float:
    columns = consumer.columns[unit]
    inverse = torch.linalg.inv(consumer.moments.gram[0])[columns[:, None], columns]
    weights = consumer.moments.weights[0, columns]
    return float((weights.T @ torch.linalg.solve(inverse, weights)).trace())


def test_units_of_several_slots_may_share_a_reader_with_flattened_maps() -> None:
    x, consumer = random_consumer(6, 4)
    flattened = replace(consumer, moments=replace(consumer.moments, taps=1))
    one, other = backward_elimination([consumer]), backward_elimination([flattened])
    assert torch.equal(one.order, other.order)
    assert torch.equal(one.errors, other.errors)
    assert x.shape[2] == 25
