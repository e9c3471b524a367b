"""A training that two processes share is the training of one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from sharded import CASES, alone, start
from torch import Tensor, nn
from toys import Toy, same_state

from evaluators.shards import ALONE, Shards, _replace, _synchronise_norms

if TYPE_CHECKING:
    from collections.abc import Iterator

Found = dict[str, list[dict[str, Tensor]]]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Found]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield start(tmp_path_factory.mktemp("shards"))


@pytest.mark.parametrize("name", CASES)
def test_all_processes_end_with_equal_tensors(found: Found, name: str) -> None:
    first, second = found[name]
    assert first
    assert same_state(first, second)


@pytest.mark.parametrize("name", ["sgd", "adamw", "few"])
def test_two_processes_train_as_one(found: Found, name: str) -> None:
    wanted = alone(name)
    for key, tensor in found[name][0].items():
        assert torch.allclose(tensor, wanted[key], rtol=1e-9, atol=1e-12), key


def test_dropout_learns_but_draws_its_own_numbers(found: Found) -> None:
    one, two = alone("dropout")["first.weight"], found["dropout"][0]["first.weight"]
    assert not torch.equal(one, two)
    assert (one - two).abs().max() < 0.2


def test_norms_train_with_the_statistics_of_their_rows(found: Found) -> None:
    trained = found["norms"][0]
    assert trained["bn1.num_batches_tracked"] == 18
    assert trained["bn1.running_var"].isfinite().all()
    assert not torch.equal(trained["bn1.running_mean"], torch.zeros(6))


def test_an_interrupted_training_goes_on_in_all_processes(found: Found) -> None:
    undisturbed, resumed = found["dropout"][0], dict(found["gone on"][0])
    assert resumed.pop("steps").tolist() == list(range(9, 16))
    assert same_state(resumed, undisturbed)


def test_a_checkpoint_that_not_all_processes_see_is_used_by_none(found: Found) -> None:
    assert found["own"][0]["steps"].tolist() == list(range(1, 6))


def test_a_loss_that_is_not_finite_in_one_process_ends_the_training_in_all(found: Found) -> None:
    assert all(each["step"] for each in found["not finite"])


@pytest.mark.parametrize(("total", "world"), [(15, 2), (4, 2), (17, 4), (16, 4)])
def test_rows_are_shared_out_once_and_weighted_by_their_number(total: int, world: int) -> None:
    rows, shared = torch.arange(total), torch.ones(3)
    parts = [Shards(rank, world).part(({"a": rows, "b": (rows, shared, "x")}, rows)) for rank in range(world)]
    assert torch.equal(torch.cat([targets for _, targets, _ in parts]), rows)
    for inputs, targets, weight in parts:
        assert torch.equal(inputs["a"], targets)
        assert torch.equal(inputs["b"][0], targets)
        assert inputs["b"][1] is shared
        assert inputs["b"][2] == "x"
        assert weight == len(targets) * world / total
    sizes = {len(targets) for _, targets, _ in parts}
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("shards", [ALONE, Shards(1, 3)])
def test_few_rows_go_whole_to_everyone(shards: Shards) -> None:
    rows = torch.arange(5)
    inputs, targets, weight = shards.part((rows, rows))
    assert torch.equal(inputs, rows)
    assert torch.equal(targets, rows)
    assert weight == 1


def test_norms_are_replaced_on_the_same_tensors_and_put_back() -> None:
    class Own(nn.BatchNorm2d):
        """Does more than normalise."""

    shared = nn.BatchNorm2d(3)
    model = nn.Sequential(Toy(), nn.ModuleDict({"a": shared, "b": shared, "own": Own(3)}))
    before, tensors = dict(model.named_modules()), dict(model.state_dict(keep_vars=True))
    norms = _synchronise_norms(model)
    assert set(norms) == {"0.bn1", "0.bn2", "1.a", "1.b"}
    assert all(type(model.get_submodule(name)) is nn.SyncBatchNorm for name in norms)
    assert model[1]["a"] is model[1]["b"]
    assert type(model[1]["own"]) is Own
    assert all(model.state_dict(keep_vars=True)[name] is tensor for name, tensor in tensors.items())
    for name, norm in norms.items():
        _replace(model, name, norm)
    assert dict(model.named_modules()) == before


@pytest.mark.parametrize(("rank", "world"), [(2, 2), (-1, 1), (0, 0)])
def test_a_rank_outside_of_the_world_is_refused(rank: int, world: int) -> None:
    with pytest.raises(ValueError, match="`rank` must be from 0 to `world` - 1"):
        Shards(rank, world)
