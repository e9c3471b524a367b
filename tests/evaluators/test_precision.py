from __future__ import annotations

import json
import os
import re

import pytest
import torch
from toys import PLAIN, toy_model, toy_task

from evaluators import precision as module
from evaluators.options import OptionError
from evaluators.precision import PAYS_FROM_MACS, THREADS_FROM_MACS, Precision, at_rest
from evaluators.scoring import evaluate
from evaluators.train import train

LARGE, SMALL = PAYS_FROM_MACS, PAYS_FROM_MACS - 1


@pytest.mark.parametrize(
    ("macs", "convolutions", "bf16_cpu", "dtype", "channels_last"),
    [
        (LARGE, True, True, "bfloat16", True),
        (LARGE, True, False, "float32", True),
        (LARGE, False, True, "float32", False),
        (SMALL, True, True, "float32", False),
    ],
)
def test_a_cpu_is_judged_by_features_and_size(
    monkeypatch: pytest.MonkeyPatch,
    macs: int,
    convolutions: bool,
    bf16_cpu: bool,
    dtype: str,
    channels_last: bool,
) -> None:
    monkeypatch.setattr(module, "cpu_multiplies_bfloat16", lambda: bf16_cpu)
    found = Precision.detect("cpu", macs, convolutions)
    assert (found.device, found.dtype, found.channels_last) == ("cpu", dtype, channels_last)
    assert found.threads == len(os.sched_getaffinity(0))
    assert Precision.detect("cpu", THREADS_FROM_MACS - 1, convolutions).threads == 1


@pytest.mark.parametrize("feature", ["_is_amx_tile_supported", "_is_avx512_bf16_supported"])
def test_either_instruction_set_will_do(monkeypatch: pytest.MonkeyPatch, feature: str) -> None:
    for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: False, raising=False)
    assert not module.cpu_multiplies_bfloat16()
    monkeypatch.setattr(torch.cpu, feature, lambda: True, raising=False)
    assert module.cpu_multiplies_bfloat16()


@pytest.mark.parametrize("device", ["gpu", "mps", "cuda:", "cuda:-1", "cpu:0", ""])
def test_an_unknown_device_is_refused(device: str) -> None:
    with pytest.raises(OptionError, match=re.escape(f"--device {device!r}: must be cpu, cuda or cuda:N.")):
        Precision.detect(device, LARGE, True)


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert module.checked_device("cuda:1") == "cuda:1"
    assert module.checked_device(None) == "cuda"
    with pytest.raises(OptionError, match=re.escape("--device 'cuda:2': this machine has 2 CUDA devices.")):
        module.checked_device("cuda:2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert module.checked_device(None) == "cpu"
    stored = Precision(device="cuda").to_dict()
    with pytest.raises(OptionError, match="this machine has 0 CUDA devices"):
        Precision.from_dict(stored)


def test_json_there_and_back() -> None:
    precision = Precision("cpu", "bfloat16", True, 3)
    assert Precision.from_dict(json.loads(json.dumps(precision.to_dict()))) == precision


def test_exact_is_plain_fp32_on_the_same_device() -> None:
    assert Precision("cuda:1", "bfloat16", True, 3).exact == Precision("cuda:1", "float32", False, 3)


def test_apply_sets_the_threads() -> None:
    before = torch.get_num_threads()
    Precision(threads=1).apply()
    try:
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_layouts_of_model_and_inputs() -> None:
    precision = Precision(channels_last=True)
    model = precision.place(toy_model())
    assert model.conv2.weight.is_contiguous(memory_format=torch.channels_last)
    image, mask = torch.zeros(2, 3, 4, 4), torch.zeros(2, 5)
    placed = precision.place_inputs({"images": (image, mask), "scale": 2})
    assert placed["images"][0].is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(placed["images"][1], mask)
    assert placed["scale"] == 2
    assert at_rest(model).conv2.weight.is_contiguous()


def test_autocast_computes_in_bfloat16_and_only_when_asked() -> None:
    model, images = toy_model(), torch.zeros(2, 1, 6, 6)
    with Precision(dtype="bfloat16").context():
        assert model(images).dtype == torch.bfloat16
    with Precision(dtype="float32").context():
        assert model(images).dtype == torch.float32


def test_bfloat16_trains_to_the_same_quality_with_fp32_weights() -> None:
    task = toy_task()
    fast = Precision(dtype="bfloat16", channels_last=True)
    train(task.model, task, epochs=6, lr=0.1, seed=0, precision=fast)
    assert all(p.dtype == torch.float32 for p in task.model.parameters())
    exact = evaluate(task.model, task, task.holdout, PLAIN)
    assert exact > 0.8
    assert evaluate(task.model, task, task.holdout, fast) == pytest.approx(exact, abs=0.05)
