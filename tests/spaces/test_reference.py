"""What a cut must equal where norms, means and extremes over channels change what the others hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
import torch
from rightness import randomised
from torch import Tensor, nn
from torch.nn import functional as F
from traps import IMAGE, TOKENS, VECTOR

from spaces import Space, cut, trace
from spaces.reference import expected
from spaces.surgery import masked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# The spread of a single channel is not a number, of which torch warns.
pytestmark = pytest.mark.filterwarnings("ignore:.*degrees of freedom is <= 0")


class Through(nn.Module):
    """A layer, something that mixes its channels, and a layer after it; beside them one that is exact.

    Args:
        mix: What mixes.
        like: An input: a vector, tokens or an image.
        width: Of the channels.
        made: Channels that the mixture has; as many as it reads where none are given.
    """

    def __init__(
        self, mix: Callable[[Tensor], Tensor], like: Tensor, width: int = 8, made: int | None = None
    ) -> None:
        super().__init__()
        image = like.dim() == 4
        layer: Callable[..., nn.Module] = nn.Linear if not image else lambda a, b: nn.Conv2d(a, b, 1)
        channels = like.shape[1 if image else -1]
        self.enter, self.head = layer(channels, width), layer(made or width, 3)
        self.side, self.side_head = layer(channels, 7), layer(7, 3)
        self.mix = mix

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.mix(self.enter(x)).tanh()) + self.side_head(self.side(x).relu())


class RMSNorm(nn.Module):
    """By hand, as language models have it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


class ChannelNorm(nn.Module):
    """A LayerNorm by hand, over the channels of an image."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.bias = (nn.Parameter(torch.ones(width, 1, 1)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(1, keepdim=True)
        return self.weight * centred / (x.var(1, keepdim=True, correction=0) + 1e-5).sqrt() + self.bias


class PermutedNorm(nn.LayerNorm):
    """A LayerNorm over the channels of an image, which it puts last."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Standardised(nn.Conv2d):
    """A convolution whose filters are standardised over all that they read."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, weight / (weight.std((1, 2, 3), keepdim=True) + 1e-5), self.bias, padding=1)


class BatchNormed(nn.Conv2d):
    """The same through a batch norm over the filters, as ResNets of timm have it."""

    def forward(self, x: Tensor) -> Tensor:
        rows = self.weight.reshape(1, len(self.weight), -1)
        weight = F.batch_norm(rows, None, None, training=True, momentum=0.0, eps=1e-6)
        return F.conv2d(x, weight.reshape_as(self.weight), self.bias, padding=1)


class Squeezes(nn.Module):
    """All channels are weighed by their mean over positions and channels."""

    def forward(self, x: Tensor) -> Tensor:
        return x * (1 + x.mean((1, 2, 3), keepdim=True))


@dataclass
class Case:
    mix: Callable[[], Callable[[Tensor], Tensor]]
    like: Tensor
    width: int = 8
    made: int | None = None


def over_channels(function: Callable[[Tensor], Tensor]) -> Callable[[], Callable[[Tensor], Tensor]]:
    return lambda: function


INEXACT: dict[str, Case] = {
    "LayerNorm": Case(lambda: nn.LayerNorm(8), TOKENS),
    "LayerNorm without parameters": Case(lambda: nn.LayerNorm(8, elementwise_affine=False), VECTOR),
    "RMSNorm without parameters": Case(lambda: nn.RMSNorm(8, elementwise_affine=False), VECTOR),
    "LayerNorm without a bias": Case(lambda: nn.LayerNorm(8, bias=False), VECTOR),
    "LayerNorm, channels put last": Case(lambda: PermutedNorm(8), IMAGE),
    "LayerNorm by hand": Case(lambda: ChannelNorm(8), IMAGE),
    "RMSNorm": Case(lambda: nn.RMSNorm(8), TOKENS),
    "RMSNorm by hand": Case(lambda: RMSNorm(8), TOKENS),
    "two norms in a row": Case(lambda: nn.Sequential(nn.LayerNorm(8), nn.Tanh(), RMSNorm(8)), TOKENS),
    "GroupNorm of one group": Case(lambda: nn.GroupNorm(1, 8), IMAGE),
    "GroupNorm of one group without parameters": Case(lambda: nn.GroupNorm(1, 8, affine=False), IMAGE),
    # No integer says how many groups there are, so each may only become narrower.
    "GroupNorm, cut inside its groups": Case(over_channels(lambda x: F.group_norm(x, 4)), IMAGE, 16),
    "weight standardisation": Case(lambda: nn.Sequential(nn.Tanh(), Standardised(8, 6, 3)), IMAGE, made=6),
    "weight standardisation by a batch norm": Case(
        lambda: nn.Sequential(nn.Tanh(), BatchNormed(8, 6, 3)), IMAGE, made=6
    ),
    "mean": Case(over_channels(lambda x: x - x.mean(-1, keepdim=True)), TOKENS),
    "mean of all": Case(Squeezes, IMAGE),
    "mean, then put back": Case(over_channels(lambda x: x * x.mean(-1)[..., None]), TOKENS),
    "var": Case(over_channels(lambda x: x * x.var(-1, correction=0, keepdim=True)), TOKENS),
    "var, then put back": Case(over_channels(lambda x: x * x.var(-1, correction=0)[..., None]), TOKENS),
    "var_mean": Case(over_channels(lambda x: x * torch.var_mean(x, -1, correction=0)[0][..., None]), TOKENS),
    "std": Case(over_channels(lambda x: x * x.std(-1, correction=0, keepdim=True)), TOKENS),
    "std_mean": Case(over_channels(lambda x: x - torch.std_mean(x, -1, keepdim=True)[1]), TOKENS),
    "amax": Case(over_channels(lambda x: x * (-1 - x**2).amax(-1, keepdim=True)), TOKENS),
    "amin": Case(over_channels(lambda x: x / (1 + x**2).amin(-1, keepdim=True)), TOKENS),
}

EXACT: dict[str, Case] = {
    "nothing": Case(nn.Identity, VECTOR),
    "BatchNorm": Case(lambda: nn.BatchNorm2d(8), IMAGE),
    "InstanceNorm": Case(lambda: nn.InstanceNorm2d(8), IMAGE),
    "InstanceNorm with parameters": Case(lambda: nn.InstanceNorm2d(8, affine=True), IMAGE),
    "InstanceNorm with statistics": Case(lambda: nn.InstanceNorm2d(8, track_running_stats=True), IMAGE),
    "GroupNorm of whole groups": Case(lambda: nn.GroupNorm(4, 8), IMAGE),
    "GroupNorm of single channels": Case(lambda: nn.GroupNorm(8, 8), IMAGE),
    "mean over positions": Case(over_channels(lambda x: x * x.mean((2, 3), keepdim=True)), IMAGE),
    "sum over channels": Case(over_channels(lambda x: x * x.sum(-1, keepdim=True)), TOKENS),
    "length": Case(over_channels(lambda x: F.normalize(x, dim=-1)), TOKENS),
}


def made(case: Case) -> tuple[nn.Module, Space]:
    torch.manual_seed(0)
    model = randomised(Through(case.mix(), case.like, case.width, case.made))
    return model, trace(model, case.like)


def cuts(space: Space) -> Iterator[dict[str, Tensor]]:
    """The mixed group to all widths, alone and with the other one."""
    generator, groups = torch.Generator().manual_seed(5), {group.name: group for group in space.groups}
    for size in range(groups["enter"].fewest, groups["enter"].width):
        for also in (False, True):
            sizes = {"enter": size, "side": 4} if also else {"enter": size}
            yield {
                name: torch.randperm(groups[name].width, generator=generator)[:some].sort().values
                for name, some in sizes.items()
            }


def distance(one: Tensor, other: Tensor) -> float:
    """Largest difference, in parts of the largest number."""
    assert one.shape == other.shape
    return float((one - other).abs().max() / other.abs().max())


@pytest.mark.parametrize("name", INEXACT)
def test_a_cut_equals_what_is_expected_and_not_the_masked_network(name: str) -> None:
    case = INEXACT[name]
    model, space = made(case)
    groups = {group.name: group for group in space.groups}
    assert {"enter", "side"} <= set(groups)
    assert not groups["enter"].exact
    assert groups["side"].exact
    changes = []
    with torch.no_grad():
        for kept in cuts(space):
            got, wanted = cut(model, space, kept)(case.like), expected(model, space, kept, ((case.like,), {}))
            assert distance(got, wanted) < 1e-10
            changes.append(distance(wanted, masked(model, space, kept)(case.like)))
    assert min(changes) > 1e-4


#: Not a number for a single channel.
SPREADS: dict[str, Case] = {
    "var": Case(over_channels(lambda x: x * x.var(-1, keepdim=True)), TOKENS),
    "var_mean": Case(over_channels(lambda x: x * torch.var_mean(x, -1, keepdim=True)[0]), TOKENS),
    "std": Case(over_channels(lambda x: x * x.std(-1, keepdim=True)), TOKENS),
    "std_mean": Case(over_channels(lambda x: x * torch.std_mean(x, -1, keepdim=True)[0]), TOKENS),
}


@pytest.mark.parametrize("name", SPREADS)
def test_the_spread_of_one_channel_is_never_what_a_choice_leads_to(name: str) -> None:
    case = SPREADS[name]
    model, space = made(case)
    least = {group.name: torch.arange(group.width)[-group.smallest :] for group in space.groups}
    assert "side" in least
    with torch.no_grad():
        got, wanted = cut(model, space, least)(case.like), expected(model, space, least, ((case.like,), {}))
    assert distance(got, wanted) < 1e-10


@pytest.mark.parametrize("name", EXACT)
def test_where_all_is_exact_the_masked_network_is_expected(name: str) -> None:
    case = EXACT[name]
    model, space = made(case)
    assert {"enter", "side"} <= {group.name for group in space.groups}
    assert all(group.exact for group in space.groups)
    with torch.no_grad():
        for kept in cuts(space):
            wanted = expected(model, space, kept, ((case.like,), {}))
            assert torch.equal(wanted, masked(model, space, kept)(case.like))
            assert distance(cut(model, space, kept)(case.like), wanted) < 1e-10


@pytest.mark.parametrize("name", ["LayerNorm", "GroupNorm of one group", "mean"])
def test_groups_that_are_exact_beside_one_that_is_not(name: str) -> None:
    case = INEXACT[name]
    model, space = made(case)
    kept = {"side": torch.tensor([0, 2, 5])}
    with torch.no_grad():
        wanted = expected(model, space, kept, ((case.like,), {}))
        assert torch.equal(wanted, masked(model, space, kept)(case.like))


@pytest.mark.parametrize("name", ["LayerNorm", "GroupNorm of whole groups", "amax", "RMSNorm by hand"])
def test_nothing_removed_is_the_dense_network(name: str) -> None:
    case = (INEXACT | EXACT)[name]
    model, space = made(case)
    whole = {group.name: torch.arange(group.width) for group in space.groups}
    with torch.no_grad():
        for kept in ({}, whole, {"enter": whole["enter"]}, {"side": whole["side"]}):
            assert distance(expected(model, space, kept, ((case.like,), {})), model(case.like)) < 1e-12
        part = {"enter": torch.tensor([0, 2]), "side": whole["side"]}
        wanted = expected(model, space, {"enter": part["enter"]}, ((case.like,), {}))
        assert distance(expected(model, space, part, ((case.like,), {})), wanted) < 1e-12


@pytest.mark.parametrize("name", ["LayerNorm", "GroupNorm of one group", "weight standardisation"])
def test_the_model_is_left_alone(name: str) -> None:
    case = INEXACT[name]
    model, space = made(case)
    model.train()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    expected(model, space, {"enter": torch.tensor([0, 2])}, ((case.like,), {}))
    assert model.training
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


class Trains(nn.Module):
    """Statistics of the batch where it trains, and a norm over channels behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.batch, self.layer = nn.Linear(6, 8), nn.BatchNorm1d(8), nn.LayerNorm(8)
        self.head, self.aux = nn.Linear(8, 3), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        x = self.layer(self.batch(self.enter(x)))
        return (self.head(x), self.aux(x)) if self.training else self.head(x)


@pytest.mark.parametrize("training", [False, True])
def test_both_modes_are_known(training: bool) -> None:
    model = randomised(Trains())
    space = trace(model, VECTOR)
    for size in range(1, 8):
        kept = {"enter": torch.arange(8)[-size:]}
        with torch.no_grad():
            wanted = expected(model, space, kept, ((), {"x": VECTOR}), training=training)
            got = cut(model, space, kept).train(training)(VECTOR)
        for a, b in zip(got, wanted, strict=True) if training else [(got, wanted)]:
            assert distance(a, b) < 1e-10 or size == 1  # one normalised channel is nothing but rounding
