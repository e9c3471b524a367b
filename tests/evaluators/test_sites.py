from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from toys import every_site

from evaluators.statistics.sites import (
    draw_sites,
    empty_outputs,
    inputs_at,
    num_groups,
    num_taps,
    output_sizes,
    outputs_at,
    runs_as_written,
)

#: Spatial sizes are uneven, so that exchanged dimensions show.
LAYERS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "conv1d": (nn.Conv1d(4, 6, 3, stride=2, padding=1), (3, 4, 11)),
    "conv1d dilated": (nn.Conv1d(4, 6, 3, padding=2, dilation=2, groups=2, bias=False), (3, 4, 11)),
    "conv2d": (nn.Conv2d(3, 5, 3), (2, 3, 7, 6)),
    "conv2d strided": (nn.Conv2d(3, 5, (3, 2), stride=(2, 1), padding=(1, 0)), (2, 3, 7, 6)),
    "conv2d dilated": (nn.Conv2d(3, 5, (2, 3), dilation=(2, 3), padding=2), (2, 3, 7, 9)),
    "conv2d grouped": (nn.Conv2d(6, 4, 3, padding=1, groups=2, bias=False), (2, 6, 5, 4)),
    "conv2d depthwise": (nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=4), (2, 4, 5, 4)),
    "conv2d pointwise": (nn.Conv2d(4, 8, 1, stride=2), (2, 4, 5, 4)),
    "conv2d same": (nn.Conv2d(3, 5, (4, 3), padding="same", dilation=(1, 2)), (2, 3, 7, 6)),
    "conv2d valid": (nn.Conv2d(3, 5, (4, 3), padding="valid"), (2, 3, 7, 6)),
    "conv2d reflect": (nn.Conv2d(3, 5, 3, padding=(2, 1), padding_mode="reflect"), (2, 3, 7, 6)),
    "conv2d replicate": (nn.Conv2d(3, 5, 3, padding=(2, 1), padding_mode="replicate"), (2, 3, 7, 6)),
    "conv2d circular": (nn.Conv2d(3, 5, 3, padding="same", padding_mode="circular"), (2, 3, 7, 6)),
    "conv3d": (nn.Conv3d(2, 4, (1, 2, 3), stride=(1, 2, 1), padding=(0, 1, 1), groups=2), (2, 2, 3, 4, 5)),
    "linear": (nn.Linear(5, 3), (4, 5)),
    "linear on tokens": (nn.Linear(5, 3, bias=False), (2, 6, 5)),
    "linear on maps": (nn.Linear(5, 3), (2, 3, 4, 5)),
}


def run(name: str) -> tuple[nn.Module, Tensor, Tensor]:
    layer, size = LAYERS[name]
    layer = layer.double()
    inputs = torch.randn(size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        return layer, inputs, layer(inputs)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("name", LAYERS)
class TestEveryLayer:
    def test_unfolded_inputs_times_weights_are_the_outputs(self, name: str) -> None:
        layer, inputs, outputs = run(name)
        sites = every_site(output_sizes(layer, outputs), 0, torch.Generator())
        rows = inputs_at(layer, inputs, sites)
        weights = layer.weight.detach().flatten(1).unflatten(0, (num_groups(layer), -1))
        product = (rows @ weights.mT).movedim(0, 1).flatten(1)
        wanted = outputs_at(layer, outputs, sites)
        torch.testing.assert_close(product + (0 if layer.bias is None else layer.bias.detach()), wanted)
        assert len(wanted) == outputs.numel() // outputs.shape[-1 if isinstance(layer, nn.Linear) else 1]

    def test_some_sites_are_rows_of_all_sites(self, name: str) -> None:
        layer, inputs, outputs = run(name)
        sizes = output_sizes(layer, outputs)
        every = every_site(sizes, 0, torch.Generator())
        some = draw_sites(sizes, 3, torch.Generator().manual_seed(1))
        places = [(torch.stack(every, 1) == site).all(1).nonzero().item() for site in torch.stack(some, 1)]
        found, wanted = inputs_at(layer, inputs, some), inputs_at(layer, inputs, every)[:, places]
        assert torch.equal(found, wanted)

    def test_empty_outputs_are_like_the_outputs(self, name: str) -> None:
        layer, inputs, outputs = run(name)
        empty = empty_outputs(layer, inputs)
        assert empty.shape == outputs.shape
        assert (empty.dtype, empty.device) == (outputs.dtype, outputs.device)
        assert empty.stride() == outputs.stride()


def test_empty_outputs_keep_channels_last() -> None:
    layer = nn.Conv2d(3, 5, 3, padding=1).to(memory_format=torch.channels_last)
    inputs = torch.zeros(2, 3, 4, 4).to(memory_format=torch.channels_last)
    assert empty_outputs(layer, inputs).stride() == layer(inputs).stride()


@pytest.mark.parametrize("name", ["conv2d", "conv2d strided", "conv2d dilated", "conv2d grouped"])
def test_rows_equal_unfold(name: str) -> None:
    layer, inputs, outputs = run(name)
    rows = inputs_at(layer, inputs, every_site(output_sizes(layer, outputs), 0, torch.Generator()))
    wanted = F.unfold(inputs, layer.kernel_size, layer.dilation, layer.padding, layer.stride)
    wanted = wanted.movedim(1, 2).flatten(0, 1).unflatten(1, (layer.groups, -1)).movedim(1, 0)
    assert torch.equal(rows, wanted)


def test_columns_are_all_taps_of_the_first_channel_then_those_of_the_second() -> None:
    layer = nn.Conv2d(4, 2, (2, 3), stride=2, padding=1, dilation=(1, 2), groups=2)
    inputs = torch.arange(2 * 4 * 5 * 6.0).view(2, 4, 5, 6)
    padded = F.pad(inputs, (1, 1, 1, 1))
    sample, i, j = 1, 2, 1
    rows = inputs_at(layer, inputs, tuple(torch.tensor([x]) for x in (sample, i, j)))
    for conv_group in range(2):
        wanted = [
            padded[sample, 2 * conv_group + c, 2 * i + di, 2 * j + 2 * dj]
            for c, di, dj in itertools.product(range(2), range(2), range(3))
        ]
        assert rows[conv_group, 0].tolist() == wanted
    assert num_taps(layer) == 6


@pytest.mark.parametrize("sizes", [(5,), (5, 7), (3, 4, 6)])
def test_sites_are_in_range_seeded_and_spread_over_the_samples(sizes: tuple[int, ...]) -> None:
    def drawn(count: int, seed: int = 0) -> tuple[Tensor, ...]:
        return draw_sites(sizes, count, torch.Generator().manual_seed(seed))

    for count in (1, 4, 8, 1000):
        sites = drawn(count)
        assert [len(index) for index in sites] == [min(count, torch.Size(sizes).numel())] * len(sizes)
        for index, size in zip(sites, sizes, strict=True):
            assert 0 <= int(index.min()) <= int(index.max()) < size
        counts = torch.bincount(sites[0], minlength=sizes[0])
        assert int(counts.max() - counts.min()) <= 1
    assert all(torch.equal(a, b) for a, b in zip(drawn(4), drawn(4), strict=True))
    assert len({tuple(torch.stack(drawn(3, seed)).flatten().tolist()) for seed in range(8)}) > 1


class Standardised(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight - self.weight.mean())


class Padded(nn.Conv2d):
    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(F.pad(x, (1, 1, 1, 1)), weight, bias)


class Named(nn.Conv2d):
    """Changes nothing."""


def test_only_layers_that_run_as_torch_wrote_them_are_linear_in_their_weight() -> None:
    assert all(runs_as_written(layer) for layer, _ in LAYERS.values())
    assert runs_as_written(Named(1, 1, 1))
    refused = [
        Standardised(1, 1, 1),
        Padded(1, 1, 1),
        nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)),
        nn.ConvTranspose2d(1, 1, 1),
        nn.BatchNorm2d(1),
    ]
    assert not any(runs_as_written(layer) for layer in refused)
