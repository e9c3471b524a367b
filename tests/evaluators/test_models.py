from __future__ import annotations

import os
import pickle
import random
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision import models as torchvision_models

from evaluators.models import CIFAR_MODELS, CifarResNet, DigitsCnn, load_weights
from evaluators.models.initialise import image_classifier, kaiming
from evaluators.options import OptionError

if TYPE_CHECKING:
    from pathlib import Path


class Code:
    """Pickles to a call that leaves a file behind when it is executed."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


def refusal(model: nn.Module, path: Path) -> str:
    with pytest.raises(OptionError) as raised:
        load_weights(model, path)
    message = str(raised.value)
    assert message.startswith(f"--weights {path}: ")
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("resnet20", 269_722),
        ("resnet32", 464_154),
        ("resnet44", 658_586),
        ("resnet56", 853_018),
        ("resnet110", 1_727_962),
        # By hand: 3x3 kernels 14,710,464, norms 2 * 4,224, classifier 5,130.
        ("vgg16_bn", 14_710_464 + 8_448 + 5_130),
    ],
)
def test_models_have_the_published_number_of_parameters(name: str, parameters: int) -> None:
    assert sum(p.numel() for p in CIFAR_MODELS[name]().parameters()) == parameters


def test_resnet_keys_are_those_of_the_public_checkpoints() -> None:
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    expected = ["conv1.weight", *(f"bn1.{leaf}" for leaf in norm)]
    for layer in (1, 2, 3):
        for block in (0, 1, 2):
            for part in (1, 2):
                prefix = f"layer{layer}.{block}"
                expected += [f"{prefix}.conv{part}.weight", *(f"{prefix}.bn{part}.{leaf}" for leaf in norm)]
    assert list(CifarResNet(20).state_dict()) == [*expected, "linear.weight", "linear.bias"]


def test_vgg_numbers_its_convolutions_as_torchvision_does() -> None:
    ours = CIFAR_MODELS["vgg16_bn"]().state_dict()
    with torch.device("meta"):
        theirs = torchvision_models.vgg16_bn(init_weights=False).state_dict()
    shapes = {name: tensor.shape for name, tensor in ours.items() if name.startswith("features.")}
    assert shapes == {name: theirs[name].shape for name in shapes}
    assert sum(tensor.ndim == 4 for tensor in ours.values()) == 13


def test_shortcut_takes_every_second_pixel_and_centres_the_channels() -> None:
    x = torch.randn(2, 16, 4, 4)
    out = CifarResNet(8).layer2[0].shortcut(x)
    expected = torch.zeros(2, 32, 2, 2)
    for channel in range(16):
        expected[:, channel + 8] = x[:, channel, ::2, ::2]
    assert torch.equal(out, expected)


def test_resnet_depth_must_be_six_n_plus_two() -> None:
    with pytest.raises(ValueError, match=r"`depth` must be 6 n \+ 2 .* got depth=21"):
        CifarResNet(21)


def test_kaiming_draws_with_the_variance_of_the_fan_in() -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(64, 256, 3)
    kaiming(layer)
    assert layer.weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.01)


def test_image_classifier_draws_everything_that_arrives_as_nan() -> None:
    block = torchvision_models.convnext.CNBlock(8, layer_scale=1.0, stochastic_depth_prob=0.0)
    attention = nn.MultiheadAttention(8, 2)
    for parameter in (block.layer_scale, attention.in_proj_weight, attention.in_proj_bias):
        nn.init.constant_(parameter, torch.nan)
    image_classifier(nn.ModuleList([block, attention]))
    assert torch.equal(block.layer_scale, torch.full((8, 1, 1), 1e-6))
    assert attention.in_proj_weight.std().item() == pytest.approx(0.02, rel=0.2)
    assert not attention.in_proj_bias.any()


@pytest.mark.parametrize("wrapping", ["plain", "state_dict", "module", "safetensors"])
def test_every_wrapping_of_a_state_dict_loads(tmp_path: Path, model: nn.Module, wrapping: str) -> None:
    wanted = {name: torch.rand_like(tensor.float()) for name, tensor in model.state_dict().items()}
    # Old checkpoints have no batch counter.
    del wanted["1.num_batches_tracked"]
    stored = {f"module.{name}": t for name, t in wanted.items()} if wrapping == "module" else wanted
    path = tmp_path / ("w.safetensors" if wrapping == "safetensors" else "w.th")
    if wrapping == "safetensors":
        save_file(stored, path)
    else:
        torch.save(stored if wrapping == "plain" else {"state_dict": stored, "best_prec1": 91.7}, path)
    load_weights(model, path)
    state = model.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in wanted.items())


@pytest.mark.parametrize("write", ["torch.save", "pickle 0", "pickle 4"])
def test_code_in_a_weights_file_is_named_and_never_executed(
    tmp_path: Path, model: nn.Module, write: str, recwarn: pytest.WarningsRecorder
) -> None:
    path, mark = tmp_path / "evil.th", tmp_path / "executed"
    content = {"state_dict": {"0.weight": Code(mark)}}
    if write == "torch.save":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content, protocol=int(write[-1])))
    message = refusal(model, path)
    assert "code" in message
    assert "never executed" in message
    assert ("posix.mkdir" in message) == (write == "torch.save")
    assert not mark.exists()
    assert not recwarn.list
    pickle.loads(pickle.dumps(content))
    assert mark.exists(), "the file would have done it"


def test_misfit_names_the_first_keys_and_counts_the_others(tmp_path: Path, model: nn.Module) -> None:
    path = tmp_path / "w.th"
    torch.save({"0.weight": torch.zeros(4, 3, 5, 5), "fc.weight": torch.zeros(1)}, path)
    assert refusal(model, path).endswith(
        "does not fit the model: missing: 0.bias, 1.weight, 1.bias and 2 more; unexpected: fc.weight; "
        "wrong shape: 0.weight is 4x3x5x5 for 4x3x3x3."
    )


def test_a_misfit_leaves_the_model_as_it_was(tmp_path: Path, model: nn.Module) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    path = tmp_path / "w.th"
    torch.save({"0.weight": torch.zeros(4, 3, 3, 3)}, path)
    refusal(model, path)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (torch.zeros(3), "holds no state dict."),
        ({}, "holds no state dict."),
        ({"epoch": 3, "optimizer": {}}, "holds no state dict: it must map names to tensors."),
    ],
)
def test_a_file_without_a_state_dict_is_refused(
    tmp_path: Path, model: nn.Module, content: Tensor | dict[str, object], rule: str
) -> None:
    path = tmp_path / "w.th"
    torch.save(content, path)
    assert refusal(model, path).endswith(rule)


@pytest.mark.parametrize("suffix", ["th", "safetensors"])
def test_a_damaged_file_is_refused(tmp_path: Path, model: nn.Module, suffix: str) -> None:
    path = tmp_path / f"w.{suffix}"
    for content in (b"", b"hello there", random.Random(0).randbytes(500)):
        path.write_bytes(content)
        assert "read" in refusal(model, path) or "never executed" in refusal(model, path)


def test_a_missing_file_is_refused(tmp_path: Path, model: nn.Module) -> None:
    assert refusal(model, tmp_path / "none.th").endswith("no such file.")


def test_digits_model_keeps_the_identity_where_shapes_allow() -> None:
    blocks = DigitsCnn().blocks
    assert [isinstance(block.shortcut, nn.Identity) for block in blocks] == [True, True, False, False]
