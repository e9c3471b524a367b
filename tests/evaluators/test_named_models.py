"""Models by name, and example inputs from text."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
import torch
from refusals import refused
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from evaluators.models import CifarResNet
from evaluators.models.inputs import example_inputs
from evaluators.models.named import load_model

if TYPE_CHECKING:
    from pathlib import Path


def test_inputs_have_the_shapes_and_types_of_the_text() -> None:
    one = example_inputs("1x3x4x4")
    assert isinstance(one, Tensor)
    assert (one.shape, one.dtype) == ((1, 3, 4, 4), torch.float32)
    two = example_inputs("2x3, 1x16:int64,4:bool")
    assert isinstance(two, tuple)
    assert [(tuple(x.shape), x.dtype) for x in two] == [
        ((2, 3), torch.float32),
        ((1, 16), torch.int64),
        ((4,), torch.bool),
    ]
    assert two[1].min() >= 0
    assert 10 < two[1].max() < 100


def test_inputs_are_the_same_each_time_and_leave_the_random_state_alone() -> None:
    state = torch.get_rng_state()
    assert torch.equal(example_inputs("3x3"), example_inputs("3x3"))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", "must be sizes such as 1x3x224x224"),
        ("1x3x", "must be sizes such as 1x3x224x224"),
        ("1,", "must be sizes such as 1x3x224x224"),
        ("-1x3", "must be sizes such as 1x3x224x224"),
        ("1x0", "1x0 must hold between one and"),
        ("99999x99999", "99999x99999 must hold between one and"),
        ("1x3:int7", "'int7' is no type; choose one of float32"),
        ("1x3:", "'' is no type"),
    ],
)
def test_other_texts_are_refused(text: str, rule: str) -> None:
    with refused("input", rule):
        example_inputs(text)


def shapes(inputs: object) -> list[tuple[int, ...]]:
    return [tuple(x.shape) for x in pytree.tree_leaves(inputs)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet20", [(1, 3, 32, 32)]),
        ("vgg16_bn", [(1, 3, 32, 32)]),
        ("digits", [(1, 1, 8, 8)]),
        ("torchvision:squeezenet1_1", [(1, 3, 224, 224)]),
        ("torchvision:inception_v3", [(1, 3, 299, 299)]),
        ("torchvision:mc3_18", [(1, 3, 16, 112, 112)]),
        ("torchvision:raft_small", [(1, 3, 128, 128), (1, 3, 128, 128)]),
        ("torchvision:lraspp_mobilenet_v3_large", [(1, 3, 224, 224)]),
    ],
)
def test_a_model_knows_what_it_is_made_for(name: str, expected: list[tuple[int, ...]]) -> None:
    found = load_model(name)
    assert found.name == name
    assert shapes(found.example_inputs) == expected
    assert sum(p.numel() for p in found.model.parameters()) > 1000


def test_a_detector_takes_a_list_of_images() -> None:
    name = "torchvision:ssdlite320_mobilenet_v3_large"
    assert shapes(load_model(name).example_inputs) == [(3, 224, 224)]
    (images,) = load_model(name, inputs="2x3x64x96").example_inputs
    assert [tuple(image.shape) for image in images] == [(3, 64, 96), (3, 64, 96)]


def test_timm_says_what_its_models_take() -> None:
    pytest.importorskip("timm")
    assert shapes(load_model("timm:test_vit").example_inputs) == [(1, 3, 160, 160)]
    with refused("model", "unknown model; did you mean timm:test_vit"):
        load_model("timm:test_vti")


def test_timm_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with refused("model", "needs timm, which is not installed: pip install timm."):
        load_model("timm:resnet18")


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("resnet50", "unknown model; did you mean torchvision:resnet50?"),
        ("nothing", "unknown model; choose one of digits, resnet110, "),
        ("nothing", "or torchvision:NAME, timm:NAME or path/to/file.py:function."),
        ("torchvision:resnet5O", "unknown model; did you mean torchvision:resnet50"),
        ("tensorflow:resnet50", "unknown model; choose one of digits"),
        ("no/such.py:network", "there is no file no/such.py."),
    ],
)
def test_other_names_are_refused(name: str, rule: str) -> None:
    with refused("model", rule):
        load_model(name)


def test_models_are_the_same_each_time_and_leave_the_random_state_alone() -> None:
    state = torch.get_rng_state()
    one, two = load_model("resnet20").model, load_model("resnet20").model
    assert torch.equal(one.conv1.weight, two.conv1.weight)
    assert torch.equal(torch.get_rng_state(), state)


def test_weights_are_those_of_the_file(tmp_path: Path) -> None:
    model = CifarResNet(20)
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    loaded = load_model("resnet20", weights=tmp_path / "weights.pt").model
    assert torch.equal(loaded.conv1.weight, model.conv1.weight)
    with refused("weights", "does not fit the model"):
        load_model("resnet32", weights=tmp_path / "weights.pt")


USERS = """
import torch
from torch import nn

def network():
    return nn.Linear(3, 2)

def pair():
    return nn.Linear(3, 2), {"input": torch.zeros(1, 3)}

def number():
    return 3
"""


def test_a_users_function_returns_a_module_or_a_module_and_inputs(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(USERS)
    mine = f"{tmp_path}/mine.py"
    found = load_model(f"{mine}:pair")
    assert isinstance(found.model, nn.Linear)
    assert list(found.example_inputs) == ["input"]
    assert shapes(load_model(f"{mine}:pair", inputs="5x3").example_inputs) == [(5, 3)]
    assert shapes(load_model(f"{mine}:network", inputs="1x3").example_inputs) == [(1, 3)]
    with refused("input is missing:", "name the shapes that"):
        load_model(f"{mine}:network")
    with refused("model", "must return a module, or a module and its inputs, got int."):
        load_model(f"{mine}:number")
    with refused("model", "has no function 'netwrok'; did you mean network?"):
        load_model(f"{mine}:netwrok")
