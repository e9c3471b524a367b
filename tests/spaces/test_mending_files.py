"""Integers that a cut changed come back from files, which can change nothing else."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
from headed import Attributes, List, Mixes, OnlyBuilt, PositionsAndHeads, Property, Tuple, TwoAttributes, own
from rightness import assert_equal
from torch import nn
from traps import TOKENS

from spaces import Space, cut, describe, rebuild, trace, write_architecture

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad")

Written = tuple[Space, nn.Module, nn.Module, "Path"]


def written(model: nn.Module, units: dict[str, list[int]], folder: Path) -> Written:
    """Space, dense and cut network, and the folder that describes the cut."""
    space = trace(model, TOKENS)
    kept = {name: torch.tensor(some) for name, some in units.items()}
    small = cut(model, space, kept)
    write_architecture(folder, describe(space, kept, {}, model), small.state_dict())
    return space, model, small, folder


@pytest.mark.parametrize("build", [Attributes, TwoAttributes, Tuple, List, Property, PositionsAndHeads])
def test_a_cut_with_mended_integers_comes_back_from_its_files(
    build: Callable[[], Mixes], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    units = {"q": [0, 3], "hidden": [2]}
    _, model, small, folder = written(build().double().eval(), units, tmp_path)
    document = json.loads((folder / "architecture.json").read_text())
    assert document["attributes"]
    again = rebuild(lambda: build().double().eval(), folder)
    assert_equal(again(TOKENS), small(TOKENS))
    assert own(again) == own(small)
    (folder / "weights.safetensors").unlink()
    assert_equal(rebuild(model, folder)(TOKENS), small(TOKENS))


def test_an_architecture_from_before_integers_were_mended_is_read(tmp_path: Path) -> None:
    _, model, small, folder = written(OnlyBuilt().double().eval(), {"enter": [1, 4]}, tmp_path)
    document = json.loads((folder / "architecture.json").read_text())
    assert document.pop("attributes") == []
    (folder / "architecture.json").write_text(json.dumps(document))
    assert_equal(rebuild(model, folder)(TOKENS), small(TOKENS))


class Holder(Tuple):
    """Besides what is mended, many things that no file may set."""

    limit = 16  # of the class

    def __init__(self) -> None:
        super().__init__()
        self.table, self.flag, self.text, self.bits = {"heads": 4}, True, "four", b"four"
        self.count, self.spare = torch.tensor(4), 9

    @property
    def heads(self) -> int:
        return self.sizes[0]


ENTRY = {"module": "", "name": "sizes", "index": 0, "dense": 4, "value": 2}

REFUSED: dict[str, Any] = {
    "no list": 5,
    "nothing": None,
    "no entries": ["sizes"],
    "module missing": [{key: value for key, value in ENTRY.items() if key != "module"}],
    "index missing": [{key: value for key, value in ENTRY.items() if key != "index"}],
    "module unknown": [ENTRY | {"module": "nowhere"}],
    "module is no module": [ENTRY | {"module": "table"}],
    "module is a parameter": [ENTRY | {"module": "q.weight"}],
    "name unknown": [ENTRY | {"name": "shape"}],
    "name of a method": [ENTRY | {"name": "split", "index": None}],
    "index too large": [ENTRY | {"index": 2}],
    "index too small": [ENTRY | {"index": -3}],
    "index is a text": [ENTRY | {"index": "0"}],
    "index is real": [ENTRY | {"index": 0.0}],
    "index is true": [ENTRY | {"index": True, "dense": 3}],
    "index is a list": [ENTRY | {"index": [0]}],
    "index is missing for a tuple": [ENTRY | {"index": None}],
    "index of an integer": [ENTRY | {"name": "limit", "dense": 16}],
    "value grows": [ENTRY | {"value": 5}],
    "value is zero": [ENTRY | {"value": 0}],
    "value is negative": [ENTRY | {"value": -1}],
    "value is real": [ENTRY | {"value": 2.0}],
    "value is a text": [ENTRY | {"value": "2"}],
    "value is true": [ENTRY | {"value": True, "dense": 1}],
    "value is nothing": [ENTRY | {"value": None}],
    "dense differs": [ENTRY | {"dense": 3}],
    "dense is real": [ENTRY | {"dense": 4.0}],
    "a flag": [ENTRY | {"name": "flag", "index": None, "dense": 1, "value": 1}],
    "training": [ENTRY | {"name": "training", "index": None, "dense": 0, "value": 0}],
    "a text": [ENTRY | {"name": "text"}],
    "a byte": [ENTRY | {"name": "bits", "dense": b"four"[0]}],
    "a tensor": [ENTRY | {"name": "count", "index": None}],
    "a parameter": [ENTRY | {"module": "q", "name": "bias"}],
    "a dictionary": [ENTRY | {"name": "table", "index": "heads"}],
    "the fields": [ENTRY | {"name": "__dict__", "index": "spare", "dense": 9}],
    "a property": [ENTRY | {"name": "heads", "index": None}],
}


@pytest.fixture(scope="module")
def holder(tmp_path_factory: pytest.TempPathFactory) -> Written:
    torch.manual_seed(0)
    return written(Holder().double().eval(), {"q": [0, 3]}, tmp_path_factory.mktemp("holder"))


@pytest.mark.parametrize("case", REFUSED)
def test_attributes_that_no_description_writes_are_refused_in_one_line(
    holder: Written, case: str, tmp_path: Path
) -> None:
    _, model, _, folder = holder
    document = json.loads((folder / "architecture.json").read_text())
    document["attributes"] = REFUSED[case]
    (tmp_path / "architecture.json").write_text(json.dumps(document))
    with pytest.raises(ValueError, match=r"architecture\.json") as caught:
        rebuild(model, tmp_path)
    assert "\n" not in str(caught.value)


def test_what_a_description_writes_is_read(holder: Written) -> None:
    _, model, small, folder = holder
    assert json.loads((folder / "architecture.json").read_text())["attributes"] == [ENTRY]
    assert_equal(rebuild(model, folder)(TOKENS), small(TOKENS))
    assert model.sizes == (4, 3)
