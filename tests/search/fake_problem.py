"""An arithmetic evaluator over a hand-made space: drives every part of a search in seconds."""

from __future__ import annotations

import json
import time
import zlib
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from evaluators.evaluation import Evaluation, Outcome
from search.encoding import Encoding
from search.limits import Window
from search.problem import Problem
from spaces.cost import CostBuilder
from spaces.groups import ChannelGroup
from spaces.space import Space

CRITERIA = ("l1", "taylor", "random")
WIDTHS = (16, 16, 32, 32)
SENSITIVITY = (0.5, 0.1, 0.3, 0.05)


def make_space(widths=WIDTHS, divisor=2):
    """A chain of layers: each one's cost is the product of its own width and the one before."""
    groups = tuple(ChannelGroup(f"layer{i}", width, divisor, 1, ()) for i, width in enumerate(widths))
    n = len(widths)
    unit = [tuple(int(i == j) for j in range(n)) for i in range(n)]
    macs, params = CostBuilder(n), CostBuilder(n)
    for builder, constant in ((macs, 100), (params, 1)):
        builder.add(constant * 3, [(0, unit[0])])
        for i in range(1, n):
            builder.add(constant, [(0, unit[i - 1]), (0, unit[i])])
        builder.add(10, [(0, unit[-1])])
    return Space(groups, macs.build(), params.build())


class FakeModel(nn.Module):
    def __init__(self, holdout=0.0, macs=0):
        super().__init__()
        self.register_buffer("holdout", torch.tensor(holdout, dtype=torch.float64))
        self.register_buffer("macs", torch.tensor(macs))


class FakeEvaluator:
    """A smooth score of the widths, sharper the higher the rung; fails on demand."""

    def __init__(self, space, *, calls=None, fail=None, seconds=0.001, slow=0.0, latency=None):
        self.latency = latency
        self.space, self.calls, self.fail, self.sealed = space, calls, fail, True
        self.seconds, self.slow = max(seconds, slow), slow
        self.evaluated = []

    def evaluate(self, candidate, *, rung, method, seed):
        key = f"{candidate.id} {rung} {method} {seed}"
        self.evaluated.append(key)
        if self.calls is not None:
            with Path(self.calls).open("a") as file:
                file.write(key + "\n")
        if self.fail and self.fail(candidate, rung):
            raise ArithmeticError(f"{candidate.id} was told to fail")
        time.sleep(self.slow)
        score = self._score(candidate, rung, method, seed)
        macs, params = self.space.macs(candidate.architecture), self.space.params(candidate.architecture)
        latency_ms = self.latency and self.latency(candidate.architecture)
        evaluation = Evaluation(
            candidate.id, rung, method, seed, score, macs, params, self.seconds, latency_ms
        )
        return Outcome(evaluation, FakeModel(score, macs))

    def _score(self, candidate, rung, method, seed):
        ratios = self.space.ratios(candidate.architecture)
        groups = zip(SENSITIVITY, self.space.groups, strict=False)
        loss = sum(sensitivity * (1 - ratios[group.name]) ** 2 for sensitivity, group in groups)
        loss += {"l1": 0.01, "taylor": 0.0, "random": 0.05}[next(iter(candidate.criteria.values()), "taylor")]
        noise = zlib.crc32(f"{candidate.id} {rung} {method} {seed}".encode()) / 2**32 - 0.5
        gain = {"refit": 1.0, "careful": 0.8, "finetune": 0.6, "scratch_e": 0.7, "scratch_b": 0.65}[method]
        return 0.95 - gain * loss / rung + 0.02 * noise / rung

    def architecture_document(self, candidate):
        return {"schema": 1, "widths": dict(candidate.architecture.items), "criteria": dict(candidate.chosen)}

    def count_macs(self, model):
        return int(model.macs)

    def holdout_score(self, model):
        return float(model.holdout)

    def test_score(self, model):
        if self.sealed:
            raise RuntimeError("The test split was read before the front was final.")
        return float(model.holdout) - 0.01

    def unseal(self):
        self.sealed = False


def rebuild(folder):
    model = FakeModel()
    json.loads((folder / "architecture.json").read_text())
    model.load_state_dict(load_file(folder / "weights.safetensors"))
    return model


def make_problem(space=None, **options):
    space = space or make_space()
    evaluator = FakeEvaluator(space, **options)
    return Problem(
        task="fake",
        metric="top1",
        space=space,
        evaluator=evaluator,
        dense_model=FakeModel(0.96, space.macs(space.dense)),
        dense_score=0.95,
        unseal=evaluator.unseal,
        rebuild=rebuild,
    )


def make_encoding(space=None, window="20%:90%", criteria=CRITERIA, **options):
    space = space or make_space()
    return Encoding(space, Window.parse(window, space), criteria, **options)
