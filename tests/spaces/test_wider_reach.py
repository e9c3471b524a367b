"""Code as model libraries have it, of which a naive trace would freeze too much."""

from __future__ import annotations

import pytest
import torch
from rightness import names, right
from torch import Tensor, nn
from torch.nn import functional as F
from traps import IMAGE, VECTOR

from spaces import cut, trace
from spaces.double import full_precision

HEADS, WIDTH = 4, 6


class InSingle(nn.Module):
    """Normalises in ``float32`` whatever it is given, as most language models do."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        long = x.float()
        return self.weight * (long * torch.rsqrt(long.pow(2).mean(-1, keepdim=True) + 1e-6)).to(x.dtype)


def test_a_cast_to_single_precision_does_not_pass_for_a_wrong_cut() -> None:
    model = nn.Sequential(nn.Linear(6, 8), InSingle(8), nn.Linear(8, 7), nn.ReLU(), nn.Linear(7, 3))
    space = trace(model, VECTOR.float())
    assert {"0", "2"} <= names(space)
    assert not space.warnings
    model = model.double()
    with full_precision(model):
        precise = model(VECTOR)
    assert precise.dtype == torch.float64
    assert 0 < (model(VECTOR) - precise).abs().max() < 1e-5  # and the model casts by itself again


def test_what_is_written_in_place_stays_what_it_is() -> None:
    single, model = torch.zeros(3), nn.Linear(2, 2).double()
    with full_precision(model):
        assert single.add_(1) is single
        assert single.dtype == torch.float32
        assert torch.zeros(3, dtype=torch.float16).dtype == torch.float64
    assert torch.zeros(3, dtype=torch.float16).dtype == torch.float16
    with full_precision(model.float()):
        assert torch.zeros(3, dtype=torch.float16).dtype == torch.float16


@pytest.mark.parametrize(("groups", "made"), [(2, 12), (2, 8), (4, 8)])
@pytest.mark.parametrize("layer", [nn.Conv2d, nn.ConvTranspose2d])
def test_few_wide_conv_groups_become_narrower(layer: type[nn.Conv2d], groups: int, made: int) -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 12, 1), nn.ReLU(), layer(12, made, 3, groups=groups), nn.ReLU(), nn.Conv2d(made, 3, 1)
    )
    space = right(model, IMAGE)
    widths = {group.name: group.width for group in space.groups}
    per_group = 12 // groups
    if per_group > groups:
        assert widths == {"0": per_group, "2": made // groups}
        half = cut(model, space, {"2": torch.arange(made // groups)[-2:]})
        assert half[2].groups == groups
        assert (half[2].in_channels, half[2].out_channels) == (12, 2 * groups)
    else:
        assert widths == {"0": groups}


class Table(nn.Module):
    """A table of biases whose shape is an integer of its own; its method is called, not the module."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(5 * 5, HEADS))
        self.bias_shape = (5, 5, HEADS)

    def get(self) -> Tensor:
        return self.table.reshape(self.bias_shape).permute(2, 0, 1)


class Biased(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.heads = HEADS
        self.enter = nn.Linear(6, 10)
        self.qkv, self.proj = nn.Linear(10, 3 * HEADS * WIDTH), nn.Linear(HEADS * WIDTH, 3)
        self.bias = Table()

    def forward(self, x: Tensor) -> Tensor:
        # Heads first, and in each its queries, keys and values.
        parts = self.qkv(self.enter(x)).view(x.shape[0], -1, self.heads, 3 * WIDTH).transpose(1, 2)
        q, k, v = parts.chunk(3, dim=-1)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=self.bias.get())
        return self.proj(mixed.transpose(1, 2).flatten(2))


def test_integers_of_a_module_whose_method_is_called_are_mended() -> None:
    space = right(Biased(), torch.randn(2, 5, 6, dtype=torch.float64))
    heads = next(group for group in space.groups if group.name == "qkv")
    assert heads.width == HEADS
    assert {(mend.attribute.module, mend.attribute.name) for mend in space.mends} == {
        ("", "heads"),
        ("bias", "bias_shape"),
    }


class Stage(nn.Module):
    """Attention of one class with other numbers of heads: of a single head the width shrinks."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads, self.head_width = heads, 16 // heads
        self.qkv, self.proj = nn.Linear(16, 48), nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.qkv(x).view(x.shape[0], -1, self.heads, 3 * self.head_width).transpose(1, 2)
        q, k, v = parts.chunk(3, dim=-1)
        weights = torch.relu(q @ k.transpose(-1, -2))
        return x + self.proj((weights @ v).transpose(1, 2).flatten(2))


def test_other_integers_of_modules_of_one_class_may_follow_the_widths() -> None:
    model = nn.Sequential(nn.Linear(6, 16), Stage(1), Stage(4), Stage(4), nn.Linear(16, 3))
    space = right(model, torch.randn(2, 5, 6, dtype=torch.float64))
    mended = {(mend.attribute.module, mend.attribute.name) for mend in space.mends}
    assert mended == {("1", "head_width"), ("2", "heads"), ("3", "heads")}


class Reduced(nn.Module):
    """Attention over fewer positions, which reads the width of what it is given again and again."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.head_width = 4, 2
        self.q, self.kv = nn.Linear(8, 8), nn.Linear(8, 16)
        self.fewer, self.proj = nn.Conv2d(8, 8, 2, stride=2), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        q = self.q(x).reshape(batch, length, self.heads, -1).transpose(1, 2)
        image = self.fewer(x.transpose(1, 2).reshape(batch, width, 4, 4)).reshape(batch, width, -1)
        pairs = self.kv(image.transpose(1, 2)).reshape(batch, -1, 2, self.heads, self.head_width)
        k, v = pairs.permute(2, 0, 3, 1, 4)
        weights = torch.relu(q @ k.transpose(-1, -2))
        return x + self.proj((weights @ v).transpose(1, 2).reshape(batch, length, width))


def test_all_widths_that_code_equates_are_tied_where_one_does_not_help() -> None:
    model = nn.Sequential(nn.Linear(6, 8), Reduced(), nn.Linear(8, 3))
    space = right(model, torch.randn(2, 16, 6, dtype=torch.float64))
    assert space.macs(space.smallest) < 0.5 * space.macs(space.dense)


def test_two_units_stay_where_a_deviation_would_be_divided_by_zero() -> None:
    class Scaled(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x / x.std(1, keepdim=True)

    model = nn.Sequential(nn.Linear(6, 8), Scaled(), nn.Linear(8, 7), nn.ReLU(), nn.Linear(7, 3))
    space = trace(model, VECTOR.float())
    groups = {group.name: group for group in space.groups}
    assert (groups["0"].fewest, groups["0"].smallest, groups["2"].fewest) == (2, 2, 1)
    with pytest.raises(ValueError, match="'0' needs 2 to 8 distinct ascending units"):
        cut(model, space, {"0": torch.tensor([3])})


class Written(nn.Module):
    """Constants that are written through views, and a mean that is divided by the width of something else."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Linear(6, 16), nn.Linear(6, 16), nn.Linear(1, 3)
        self.table = torch.zeros(4)

    def forward(self, x: Tensor) -> Tensor:
        scale = torch.tensor([0.0, 0.0])
        scale[0] = 2.0
        self.table[:2] = 1.0
        mean = torch.relu(self.a(x)).sum(1, keepdim=True) / self.b(x).shape[1]
        return self.head(mean * scale.sum() / self.table[:2].sum()) + 0 * self.b(x).sum()


def test_writing_through_views_is_not_lost() -> None:
    model = Written()
    with full_precision(model.double()):
        assert model(VECTOR).abs().sum() > 0
        assert model.table.tolist() == [1, 1, 0, 0]
    space = trace(model.float(), VECTOR.float())
    assert names(space) == {"a"}  # the width of `b` divides


def test_conv_groups_of_a_tied_weight_are_counted() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enter, self.leave = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 3, 1)
            self.one, self.other = (nn.Conv2d(16, 16, 3, padding=1, groups=8) for _ in range(2))
            self.other.weight = self.one.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.leave(self.other(torch.relu(self.one(torch.relu(self.enter(x))))))

    space = right(Tied(), IMAGE)
    assert [group.width for group in space.groups] == [8]
