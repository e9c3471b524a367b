"""Copies equal those of ``copy.deepcopy``: the same content, the same sharing inside, none with the model."""

from __future__ import annotations

import copy
from collections import OrderedDict, defaultdict, deque
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import torch
from copies import Comparison, storage
from torch import Tensor, nn

from spaces.duplicate import duplicate

if TYPE_CHECKING:
    from collections.abc import Callable


def tensors_of(model: nn.Module) -> list[Tensor]:
    kept = [value for module in model.modules() for value in vars(module).values()]
    return [*model.parameters(), *model.buffers(), *(x for x in kept if isinstance(x, Tensor))]


def assert_apart(model: nn.Module, twin: nn.Module) -> None:
    """No tensor of one lies in the memory of the other."""
    mine, theirs = (
        {storage(x) for x in tensors_of(some) if not nn.parameter.is_lazy(x) and x.numel()}
        for some in (model, twin)
    )
    assert mine
    assert not mine & theirs


# -- models with something that is not plain ----------------------------------------------------------


def shared_parameter() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    model[2].bias = model[0].bias
    return model


def shared_module() -> nn.Module:
    layer = nn.Linear(4, 4)
    model = nn.Sequential(layer, nn.ReLU(), layer)
    model.again = {"layer": layer, "all": [layer, (layer,)]}
    return model


def shared_memory() -> nn.Module:
    """Two buffers and one plain tensor are views of the same memory."""
    model, memory = nn.Sequential(nn.Linear(4, 4)), torch.randn(6, 2)
    model.register_buffer("all", memory)
    model.register_buffer("some", memory[2:4])
    model.register_buffer("turned", memory.t(), persistent=False)
    model.plain = memory.flatten()[1:3]
    return model


def frozen_and_in_part_trained() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).eval()
    model[0].weight.requires_grad_(False)
    model[2].train()
    model(torch.randn(3, 4)).sum().backward()
    model[0].plain = torch.randn(3, requires_grad=True)
    model[0].plain.pow(2).sum().backward()
    return model


def parametrised() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 4), nn.Conv1d(4, 4, 1), nn.Linear(4, 4))
    nn.utils.parametrizations.weight_norm(model[0])
    nn.utils.parametrizations.spectral_norm(model[1])
    nn.utils.parametrize.register_parametrization(model[2], "weight", nn.Tanh())
    return model


def recurrent() -> nn.Module:
    model = nn.ModuleList([nn.LSTM(4, 3, 2, bidirectional=True), nn.GRU(4, 3), nn.RNNCell(4, 3)])
    model.append(nn.LSTM(4, 3, proj_size=2))
    return model


class Counted(nn.Linear):
    """Copies know that they are."""

    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes)
        self.copies = 0

    def __deepcopy__(self, memo: dict[int, Any]) -> Counted:
        twin = Counted(self.in_features, self.out_features)
        memo[id(self)] = twin
        twin.load_state_dict(self.state_dict())
        twin.copies = self.copies + 1
        return twin


class Revived(nn.Module):
    """Leaves something out of its state, and makes it again."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.table = nn.Linear(4, 4), torch.arange(4)
        self.made = 0

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "table"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.table, self.made = torch.arange(4), self.made + 1


class OnlySet(nn.Module):
    """A state of PyTorch's own, revived in a way of one's own."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.made = nn.Linear(4, 4), 0

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.made += 1


class Reduced(nn.Linear):
    def __reduce_ex__(self, protocol: Any) -> Any:
        return Reduced, (self.in_features, self.out_features), vars(self) | {"reduced": True}


class Slotted(nn.Module):
    __slots__ = ("extra",)

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.extra = [1, 2]


class Watching(nn.Module):
    """Hooks of many kinds, and the handles by which they may be taken off."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.seen = nn.Linear(4, 4), []
        self.handle = self.layer.register_forward_hook(self.note)
        self.layer.register_forward_pre_hook(_nothing)
        self.layer.register_full_backward_hook(partial(_named, "backward"))
        self.register_load_state_dict_post_hook(_nothing)
        self.callbacks = OrderedDict(first=self.note, second=self.layer.forward)

    def note(self, *_: Any) -> None:
        self.seen.append(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


def _nothing(*_: Any) -> None:
    return None


def _named(name: str, *_: Any) -> None:
    del name


def containers() -> nn.Module:
    model = nn.ModuleDict({"a": nn.ModuleList([nn.Linear(4, 4)]), "b": nn.Sequential(nn.Conv1d(4, 4, 1))})
    model["c"] = nn.ParameterList([torch.randn(3), torch.randn(2)])  # type: ignore[assignment]
    model["d"] = nn.ParameterDict({"x": torch.randn(3), "none": None})  # type: ignore[assignment]
    model.lists = [[1, [2]], ({3: [4]},), {5, 6}, defaultdict(list, {"x": [7]}), OrderedDict(y=[8])]
    model.own = model.lists[0]
    model.lists.append(model.lists)
    model.dtypes = (torch.float32, torch.device("cpu"), torch.Size([2, 3]), slice(1, 2), range(3), ..., 1j)
    return model


def lazy() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 4), nn.LazyLinear(3), nn.LazyConv1d(2, 1))


def norms_of_old() -> nn.Module:
    """These keep what they made last, as an attribute."""
    model = nn.Sequential(nn.utils.spectral_norm(nn.Linear(4, 4)), nn.Dropout(0.2), nn.Embedding(5, 4))
    model[0].weight = model[0].weight.detach()
    return model


MODELS: dict[str, Callable[[], nn.Module]] = {
    "shared parameter": shared_parameter,
    "shared module": shared_module,
    "shared memory": shared_memory,
    "frozen and in part trained": frozen_and_in_part_trained,
    "parametrised": parametrised,
    "recurrent": recurrent,
    "deepcopy": lambda: nn.Sequential(Counted(4, 4), nn.Sequential(Counted(4, 4))),
    "getstate": lambda: nn.Sequential(Revived()),
    "setstate": lambda: nn.Sequential(OnlySet()),
    "reduce": lambda: nn.Sequential(Reduced(4, 4)),
    "slots": lambda: nn.Sequential(Slotted(), nn.Linear(4, 4)),
    "hooks": lambda: nn.Sequential(Watching(), nn.ReLU()),
    "containers": containers,
    "lazy": lazy,
    "norms of old": norms_of_old,
    "transformer": lambda: nn.TransformerEncoderLayer(8, 2, 8),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_copy_is_what_deepcopy_makes(name: str) -> None:
    torch.manual_seed(0)
    model = MODELS[name]()
    twin, deep = duplicate(model), copy.deepcopy(model)
    comparison = Comparison()
    comparison.walk(model, twin, deep)
    assert comparison.num_objects > 10
    assert_apart(model, twin)


@pytest.mark.parametrize("name", ["getstate", "setstate", "deepcopy", "reduce"])
def test_ways_of_ones_own_to_be_copied_are_respected(name: str) -> None:
    twin = duplicate(MODELS[name]())[0]
    found = {
        "getstate": lambda: twin.made == 1,
        "setstate": lambda: twin.made == 1,
        "deepcopy": lambda: twin.copies == 1,
        "reduce": lambda: twin.reduced,
    }
    assert found[name]()


@pytest.mark.parametrize("layer", [nn.LSTM(4, 3, 2), nn.GRU(4, 3, bidirectional=True), nn.RNN(4, 3)])
def test_copies_of_recurrent_layers_run_on_their_own_weights(layer: nn.RNNBase) -> None:
    x = torch.randn(5, 2, 4)
    before = layer(x)[0]
    twin = duplicate(layer)
    assert torch.equal(twin(x)[0], before)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert not twin(x)[0].any()
    assert torch.equal(layer(x)[0], before)


def test_hooks_of_a_copy_act_on_the_copy() -> None:
    model = Watching()
    twin = duplicate(model)
    twin(torch.randn(2, 4))
    assert (twin.seen, model.seen) == ([1], [])
    twin.handle.remove()
    twin(torch.randn(2, 4))
    assert twin.seen == [1]
    model(torch.randn(2, 4))
    assert model.seen == [1]


# -- activations, which copy.deepcopy refuses ---------------------------------------------------------


class Keeps(nn.Module):
    """Keeps an activation in one way or another."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.layer, self.where = nn.Linear(4, 4), where
        self.inner = nn.Sequential(nn.Linear(4, 4))

    def forward(self, x: Tensor) -> Tensor:
        made = self.inner(self.layer(x))
        if self.where == "attribute":
            self.last = made
        elif self.where == "twice":
            self.last = self.inner.last = made
        elif self.where == "list":
            self.last = [made]
        elif self.where == "dict":
            self.last = {"nested": {"made": made}}
        elif self.where == "tuple":
            self.last = (made, made)
        elif self.where == "buffer":
            self.register_buffer("last", made)
        elif self.where == "object":
            self.last = Box(made)
        elif self.where == "deque":
            self.last = deque([made], maxlen=2)
        elif self.where == "recurrent layer":
            self.recurrent = nn.GRU(4, 3)
            self.recurrent.last = made
        elif self.where == "parametrised layer":
            self.recurrent = nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))
            self.recurrent.last = made
        return made


class Box:
    """Somebody's own class."""

    def __init__(self, made: Tensor) -> None:
        self.made = made


def activation_of(model: Keeps) -> Tensor:
    if "layer" in model.where:
        return model.recurrent.last
    last = model.last
    if isinstance(last, Box):
        return last.made
    if isinstance(last, dict):
        return last["nested"]["made"]
    return last if isinstance(last, Tensor) else last[0]


WHERE = ["attribute", "twice", "list", "dict", "tuple", "buffer"]
WHERE += ["object", "deque", "recurrent layer", "parametrised layer"]


@pytest.mark.parametrize("where", WHERE)
def test_an_activation_that_a_module_keeps_is_copied_without_its_history(where: str) -> None:
    model = Keeps(where)
    made = model(torch.randn(2, 4))
    with pytest.raises(RuntimeError, match="deepcopy protocol"):
        copy.deepcopy(model)
    twin = duplicate(model)
    last = activation_of(twin)
    assert torch.equal(last, made)
    assert not last.requires_grad
    assert storage(last) != storage(made)
    assert made.requires_grad
    if where == "twice":
        assert twin.inner.last is twin.last


# -- tensors that take the place of others ------------------------------------------------------------


def test_replaced_tensors_stand_wherever_the_models_own_stood() -> None:
    model = shared_parameter()
    model.also = [model[0].weight]
    small = nn.Parameter(torch.zeros(2, 2))
    twin = duplicate(model, {id(model[0].weight): small})
    assert twin[0].weight is twin[1].weight is twin.also[0] is small
    assert twin[0].bias is twin[2].bias
    assert model[0].weight.shape == (4, 4)
    assert twin[1].bias is not model[1].bias


def test_replaced_weights_of_recurrent_layers_are_those_that_run() -> None:
    model = nn.Sequential(nn.GRU(4, 3))
    replaced = {id(p): nn.Parameter(torch.zeros_like(p)) for p in model.parameters()}
    twin = duplicate(model, replaced)
    assert {id(p) for p in twin.parameters()} == {id(p) for p in replaced.values()}
    assert not twin(torch.randn(2, 1, 4))[0].any()


def test_replaced_activations_are_taken_too() -> None:
    model = Keeps("attribute")
    model(torch.randn(2, 4))
    other = torch.zeros(1)
    assert duplicate(model, {id(model.last): other}).last is other
