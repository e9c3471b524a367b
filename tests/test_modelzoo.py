"""The coverage benchmark's own honesty: its list is complete, and it sees a wrong cut."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

pytest.importorskip("timm")
pytest.importorskip("transformers")
sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

from modelzoo import compare, measure, timm_models
from modelzoo.catalogue import catalogue, selected
from modelzoo.entry import Entry, Made
from modelzoo.records import append, load
from modelzoo.verdict import Verdict


def small() -> Made:
    layers = (nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.ReLU(), nn.Flatten())
    model = nn.Sequential(*layers, nn.Linear(6 * 16, 10)).eval()
    return Made(model, torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)), "8 px", 10)


SMALL = Entry("torchvision", "small", small, "torchvision")


def measured() -> dict[str, Any]:
    record: dict[str, Any] = {}
    measure.measure(SMALL, record.update)
    return record


def test_the_list_is_complete() -> None:
    assert timm_models.missing_modules() == set()
    families = [entry.family for entry in catalogue().values()]
    assert families.count("torchvision") >= 80
    assert families.count("timm") >= 98
    assert families.count("transformers") >= 16


def test_filter_takes_labels_and_names() -> None:
    assert [e.label for e in selected([], ["torchvision:resnet18"])] == ["torchvision:resnet18"]
    assert {e.family for e in selected(["timm"], ["densenet121"])} == {"timm"}
    assert selected(["timm"], ["resnet18"]) == []


def test_a_record_says_what_can_go() -> None:
    record = measured()
    assert record["stage"] == "done"
    assert record["wrong"] == []
    assert record["groups"] == 2
    assert record["smallest"] < record["half"] < 1
    # Every layer reads or makes units that can go.
    assert record["macs_prunable"] == 1


@pytest.fixture
def wrong_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """One number of a cut network is off by a millionth of its size."""
    right = compare.cut

    def wrong(*args: Any) -> nn.Module:
        model = right(*args)
        with torch.no_grad():
            model[6].weight[0, 0] *= 1 + 1e-6
        return model

    monkeypatch.setattr(compare, "cut", wrong)


@pytest.mark.usefixtures("wrong_cut")
def test_a_wrong_cut_is_seen() -> None:
    record = measured()
    assert any("differs from the masked network" in fact for fact in record["wrong"])
    assert Verdict(SMALL, record, None).wrong


def test_a_check_that_does_not_end_is_wrong() -> None:
    record = {"groups": 1, "smallest": 0.1, "wrong": [], "stage": "check", "error": "more than 120 s"}
    assert Verdict(SMALL, record, None).wrong == ("check: more than 120 s",)
    assert not Verdict(SMALL, {"stage": "trace", "error": "more than 120 s"}, None).traced


def test_wrong_macs_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    right = measure.count_macs
    monkeypatch.setattr(measure, "count_macs", lambda *args: right(*args) + 1)
    assert len(measured()["wrong"]) == 3


def test_records_survive_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    append(path, "a", "ours", {"groups": 1})
    with path.open("a") as file:
        file.write('{"label": "b", "ro')
    append(path, "c", "peer", {"half": 0.5})
    assert load(path) == {("a", "ours"): {"groups": 1}, ("c", "peer"): {"half": 0.5}}


@pytest.mark.parametrize(
    ("peer", "behind"),
    [
        ({"keeps_outputs": True, "half": 0.3, "smallest": 0.02}, 0),
        ({"keeps_outputs": True, "half": 0.3, "smallest": 0.005}, 1),
        ({"keeps_outputs": True, "half": 0.2, "smallest": 0.005}, 2),
        ({"keeps_outputs": False, "half": 0.2}, 0),
        ({"error": "more than 60 s"}, 0),
    ],
)
def test_the_peer_counts_where_it_works(peer: dict[str, Any], behind: int) -> None:
    ours = {"groups": 3, "smallest": 0.01, "half": 0.3}
    assert len(Verdict(SMALL, ours, peer).behind) == behind
