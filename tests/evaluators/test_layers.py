from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.regnet import AnyStage, ResBottleneckBlock
from torchvision.models.resnet import BasicBlock, Bottleneck
from toys import same_state, state, toy_model

from evaluators.statistics.layers import Layer, find_layers
from evaluators.statistics.targets import collect_targets

if TYPE_CHECKING:
    from collections.abc import Callable

IMAGE = torch.randn(2, 8, 6, 6, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """``run`` is its forward pass, with two convolutions, two norms and a linear layer to run."""

    def __init__(self, run: Callable[[Net, Tensor], Tensor]) -> None:
        super().__init__()
        self.run = run
        self.a, self.b = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1, bias=False)
        self.c, self.head = nn.Conv2d(8, 8, 1), nn.Linear(8, 8)
        self.norm, self.other = nn.BatchNorm2d(8), nn.BatchNorm2d(8)
        self.scale = nn.Parameter(torch.full((8, 1, 1), 0.1))

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)


def layers_of(run: Callable[[Net, Tensor], Tensor], inputs: Tensor = IMAGE) -> dict[str, Layer]:
    return find_layers(Net(run), inputs)


def norm_of(run: Callable[[Net, Tensor], Tensor]) -> str | None:
    return layers_of(run)["a"].norm


def joining(found: dict[str, Layer]) -> list[str]:
    return [name for name, layer in found.items() if layer.joins]


class TestNorms:
    def test_one_that_alone_reads_is_the_layers(self) -> None:
        found = layers_of(lambda n, x: n.head(n.other(n.b(n.norm(n.a(x)).relu_())).mean((2, 3))))
        assert {name: layer.norm for name, layer in found.items()} == {
            "a": "norm",
            "b": "other",
            "head": None,
        }
        assert [layer.name for layer in found.values()] == list(found)

    def test_one_beside_another_reader_is_not(self) -> None:
        def twofold(n: Net, x: Tensor) -> Tensor:
            y = n.a(x)
            return n.norm(y) * y.sigmoid()

        assert norm_of(twofold) is None

    def test_two_of_them_are_not(self) -> None:
        def both(n: Net, x: Tensor) -> Tensor:
            y = n.a(x)
            return n.norm(y) * n.other(y)

        assert norm_of(both) is None

    @pytest.mark.parametrize("same", [True, False])
    def test_one_that_runs_twice_is_not(self, same: bool) -> None:
        def twice(n: Net, x: Tensor) -> Tensor:
            y = n.a(x)
            return n.norm(y) * n.norm(y if same else n.b(y))

        assert norm_of(twice) is None

    def test_one_behind_something_else_is_not(self) -> None:
        assert norm_of(lambda n, x: n.norm(n.a(x).relu())) is None

    def test_one_without_running_statistics_is_not(self) -> None:
        model = Net(lambda n, x: n.norm(n.a(x)))
        model.norm = nn.BatchNorm2d(8, track_running_stats=False)
        assert find_layers(model, IMAGE)["a"].norm is None

    def test_a_layer_norm_is_not(self) -> None:
        model = Net(lambda n, x: n.norm(n.head(x.mean((2, 3)))))
        model.norm = nn.LayerNorm(8)
        assert find_layers(model, IMAGE)["head"].norm is None

    def test_one_behind_a_linear_layer_is_its_own(self) -> None:
        model = Net(lambda n, x: n.norm(n.head(x.mean((2, 3)))))
        model.norm = nn.BatchNorm1d(8)
        assert find_layers(model, IMAGE)["head"].norm == "norm"


def shortcut_sum(n: Net, x: Tensor) -> Tensor:
    return (n.norm(n.b(n.a(x).relu())) + x).relu()


#: Forward passes in which only the named layer joins.
SUMS: dict[str, tuple[Callable[[Net, Tensor], Tensor], list[str]]] = {
    "branch first": (shortcut_sum, ["b"]),
    "branch second": (lambda n, x: x + n.norm(n.b(n.a(x).relu())), ["b"]),
    "torch.add": (lambda n, x: torch.add(x, n.a(x)), ["a"]),
    "without a norm": (lambda n, x: n.a(x) + x, ["a"]),
    "into the branch": (lambda n, x: n.norm(n.a(x)).add_(x).relu_().mul_(2), ["a"]),
    "into the shortcut": (lambda n, x: x.clone().add_(n.norm(n.a(x))).relu_(), ["a"]),
    "a linear layer": (lambda n, x: n.head(x.movedim(1, -1)) + x.movedim(1, -1), ["head"]),
    # The shortcut is the branch with fewer layers, whichever runs first; else the one that runs last.
    "long branch first": (lambda n, x: n.b(n.a(x).relu()) + n.c(x), ["b"]),
    "long branch last": (lambda n, x: n.c(x) + n.b(n.a(x).relu()), ["b"]),
    "equally long": (lambda n, x: n.a(x) + n.b(x), ["a"]),
    # Three in place, one after the other: the first sum has two ends, the second one another.
    "a chain in place": (lambda n, x: n.a(x).add_(n.b(x)).add_(n.c(x)), ["a", "c"]),
    # No residual sums:
    "read twice": (lambda n, x: (lambda y: (y + x) * y)(n.a(x)), []),
    "read before a sum in place": (lambda n, x: (lambda y: (y * 2, y.add_(x))[1])(n.a(x)), []),
    "through a rectifier": (lambda n, x: n.a(x).relu() + x, []),
    "through one in place": (lambda n, x: n.a(x).relu_() + x, []),
    "scaled": (lambda n, x: n.scale * n.a(x) + x, []),
    "scaled by alpha": (lambda n, x: torch.add(x, n.a(x), alpha=2), []),
    "concatenated": (lambda n, x: torch.cat([n.a(x), x], 1), []),
    "broadcast": (lambda n, x: n.a(x) + x.mean((2, 3), keepdim=True), []),
    "with a number": (lambda n, x: n.a(x) + 1, []),
    "with itself": (lambda n, x: (lambda y: y + y)(n.a(x)), []),
    "a difference": (lambda n, x: n.a(x) - x, []),
}


@pytest.mark.parametrize(("run", "wanted"), SUMS.values(), ids=SUMS)
def test_which_layers_join_a_sum(run: Callable[[Net, Tensor], Tensor], wanted: list[str]) -> None:
    assert joining(layers_of(run)) == wanted


class Stages(nn.Module):
    """Blocks of torchvision's, whose sums and rectifiers are in place."""

    def __init__(self, block: type[BasicBlock | Bottleneck]) -> None:
        super().__init__()

        def made(channels_in: int, planes: int, stride: int) -> nn.Module:
            out = planes * block.expansion
            down = None
            if stride > 1 or channels_in != out:
                down = nn.Sequential(nn.Conv2d(channels_in, out, 1, stride, bias=False), nn.BatchNorm2d(out))
            return block(channels_in, planes, stride, down)

        width = 4 * block.expansion
        self.blocks = nn.Sequential(
            made(8, 4, 1), made(width, 4, 1), made(width, 8, 2), made(width * 2, 8, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x)


@pytest.mark.parametrize(("block", "last"), [(BasicBlock, 2), (Bottleneck, 3)])
def test_the_last_convolution_of_every_torchvision_block_joins(
    block: type[BasicBlock | Bottleneck], last: int
) -> None:
    found = find_layers(Stages(block), IMAGE)
    assert joining(found) == [f"blocks.{i}.conv{last}" for i in range(4)]
    assert all(
        layer.norm == name.replace("conv", "bn").replace("downsample.0", "downsample.1")
        for name, layer in found.items()
    )
    shortcuts = [name for name in found if "downsample" in name]
    assert shortcuts == [f"blocks.{i}.downsample.0" for i in (0, 2)]
    assert [name for name, layer in found.items() if not layer.rectified] == shortcuts


def test_the_branch_of_a_regnet_joins_though_its_shortcut_runs_first() -> None:
    stage = AnyStage(8, 8, 2, 2, ResBottleneckBlock, nn.BatchNorm2d, nn.ReLU, 4, 1.0, 0.25)
    found = find_layers(stage, IMAGE)
    assert next(iter(found)) == "block0-0.proj.0"
    assert joining(found) == ["block0-0.f.c.0", "block0-1.f.c.0"]


#: Forward passes, and the layers of which only the positive part matters.
RECTIFIED: dict[str, tuple[Callable[[Net, Tensor], Tensor], list[str]]] = {
    "itself": (lambda n, x: n.b(n.a(x).relu()), ["a"]),
    "itself in place": (lambda n, x: n.b(n.a(x).relu_()), ["a"]),
    "the norm": (lambda n, x: n.b(n.norm(n.a(x)).relu_()), ["a"]),
    "the sum": (shortcut_sum, ["a", "b"]),
    "the sum in place": (lambda n, x: n.norm(n.a(x)).add_(x).relu_().mul_(2), ["a"]),
    "read after a rectifier in place": (lambda n, x: (lambda y: y * y)(n.a(x).relu_()), ["a"]),
    "not the shortcut": (lambda n, x: (n.b(n.a(x).relu()) + n.c(x)).relu(), ["a", "b"]),
    "read beside": (lambda n, x: (lambda y: y.relu() * y)(n.a(x)), []),
    "read before one in place": (lambda n, x: (lambda y: (y * 2) * y.relu_())(n.a(x)), []),
    "a sum that is read beside": (lambda n, x: (lambda y: y.relu() * y)(n.a(x) + x), []),
    "a sum in place, read before": (lambda n, x: (lambda y: (y * 2) * y.relu_())(n.a(x).add_(x)), []),
    "with an upper bound": (lambda n, x: F.relu6(n.a(x)), []),
    "smooth": (lambda n, x: F.gelu(n.a(x)), []),
    "no longer after a pool": (lambda n, x: F.max_pool2d(n.a(x), 2).relu(), []),
}


@pytest.mark.parametrize(("run", "wanted"), RECTIFIED.values(), ids=RECTIFIED)
def test_of_which_layers_only_the_positive_part_matters(
    run: Callable[[Net, Tensor], Tensor], wanted: list[str]
) -> None:
    assert [name for name, layer in layers_of(run).items() if layer.rectified] == wanted


def test_layers_that_run_twice_or_never_are_left_out() -> None:
    assert list(layers_of(lambda n, x: n.b(n.a(n.a(x))))) == ["b"]


class Standardised(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight - self.weight.mean(), padding=1)


def test_layers_whose_weight_serves_elsewhere_or_is_computed_are_left_out() -> None:
    def tie(model: Net) -> None:
        model.b.weight = model.c.weight

    def use(model: Net) -> None:
        model.run = lambda n, x: F.conv2d(n.b(n.a(x)), n.b.weight) + n.c(x).relu()

    def parametrise(model: Net) -> None:
        nn.utils.parametrizations.weight_norm(model.a)

    def standardise(model: Net) -> None:
        model.a = Standardised(8, 8, 3)

    for change, gone in ((tie, {"b", "c"}), (use, {"b"}), (parametrise, {"a"}), (standardise, {"a"})):
        model = Net(lambda n, x: n.c(n.b(n.a(x))))
        assert list(find_layers(model, IMAGE)) == ["a", "b", "c"]
        change(model)
        assert {"a", "b", "c"} - find_layers(model, IMAGE).keys() == gone


def test_a_layer_called_by_keyword_is_left_out() -> None:
    assert list(layers_of(lambda n, x: n.b(n.a(input=x)))) == ["b"]


def test_the_model_is_left_as_it_was_also_when_it_fails() -> None:
    model = toy_model().train()
    model.bn2.eval()
    before = state(model)
    find_layers(model, torch.randn(4, 1, 6, 6))
    with pytest.raises(RuntimeError):
        find_layers(model, torch.randn(4, 2, 6, 6))
    assert same_state(before, state(model))
    assert [model.training, model.bn1.training, model.bn2.training] == [True, True, False]
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


class TestTargets:
    """What the dense network puts out where a layer is judged."""

    def found(self, model: nn.Module, count: int = 10**6) -> dict[str, Tensor]:
        targets = collect_targets(model, find_layers(model, IMAGE), IMAGE, lambda _: count, seed=0)
        self.sites = {name: target.sites for name, target in targets.items()}
        return {name: target.values for name, target in targets.items()}

    def at(self, name: str, values: Tensor) -> Tensor:
        return values.movedim(1, -1)[self.sites[name]]

    def test_they_are_read_behind_the_norm_and_at_the_sum(self) -> None:
        model = Net(shortcut_sum).eval()
        nn.init.uniform_(model.norm.running_mean)
        with torch.no_grad():
            found = self.found(model)
            inner = model.a(IMAGE)
            total = model.norm(model.b(inner.relu())) + IMAGE
        assert torch.equal(found["a"], self.at("a", inner))
        assert torch.equal(found["b"], self.at("b", total))

    @pytest.mark.parametrize("block", [BasicBlock, Bottleneck])
    def test_sums_and_rectifiers_in_place_do_not_blur_them(
        self, block: type[BasicBlock | Bottleneck]
    ) -> None:
        model = Stages(block).eval()
        with torch.no_grad():
            found, x = self.found(model), IMAGE
            for number, inner in enumerate(model.blocks):
                total = x if inner.downsample is None else inner.downsample(x)
                y = inner.bn1(inner.conv1(x))
                torch.testing.assert_close(
                    found[f"blocks.{number}.conv1"], self.at(f"blocks.{number}.conv1", y)
                )
                y = inner.bn2(inner.conv2(y.relu()))
                last = f"blocks.{number}.conv2"
                if block is Bottleneck:
                    y, last = inner.bn3(inner.conv3(y.relu())), f"blocks.{number}.conv3"
                torch.testing.assert_close(found[last], self.at(last, y + total))
                x = inner(x)

    def test_the_seed_decides_the_places(self) -> None:
        model = Net(shortcut_sum).eval()
        one, again = self.found(model, 10), self.found(model, 10)
        assert all(torch.equal(one[name], again[name]) for name in one)
        assert {len(values) for values in one.values()} == {10}
        draw = partial(collect_targets, model, find_layers(model, IMAGE), IMAGE, lambda _: 10)
        assert not torch.equal(draw(seed=1)["a"].values, one["a"])
