"""Which images search scores on: cut from train, or from test for checkpoints that have seen all of train."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

import torch

from evaluators.options import OptionError

if TYPE_CHECKING:
    from torch import Tensor

Part = Literal["train", "test"]

#: Seed of the halves of ``test:F``: always the same, so that results on public checkpoints compare.
TEST_SEED = 0


@dataclass(frozen=True, slots=True)
class Holdout:
    """``fraction`` of ``part``."""

    part: Part
    fraction: float

    @classmethod
    def parse(cls, text: str) -> Holdout:
        """From ``train:F`` or ``test:F``.

        Raises:
            OptionError: If the part is another one, or the fraction is not inside (0, 1).
        """
        part, _, share = text.partition(":")
        try:
            fraction = float(share)
        except ValueError:
            fraction = float("nan")
        if part not in ("train", "test") or not 0 < fraction < 1:
            rule = "must be train:F or test:F with a fraction F between 0 and 1, e.g. train:0.1."
            raise OptionError("holdout", text, rule)
        return cls(cast("Part", part), fraction)


@dataclass(frozen=True, slots=True)
class Split:
    """Indices of the three splits; no image is in two of them.

    Attributes:
        train: Into the train part.
        holdout: Into ``part``.
        test: Into the test part.
        part: Where holdout was cut from.
    """

    train: Tensor
    holdout: Tensor
    test: Tensor
    part: Part


def split(holdout: str, *, num_train: int, num_test: int, seed: int) -> Split:
    """Cut holdout from one part; the other part stays whole and in order.

    Args:
        holdout: ``train:F`` or ``test:F``.
        num_train: Images in the train part.
        num_test: Images in the test part.
        seed: Of a holdout from train. One from test always has the same seed, :data:`TEST_SEED`.

    Raises:
        OptionError: If ``holdout`` is malformed, or leaves one side without an image.
    """
    spec = Holdout.parse(holdout)
    total, seed = (num_train, seed) if spec.part == "train" else (num_test, TEST_SEED)
    count = round(spec.fraction * total)
    if not 0 < count < total:
        raise OptionError("holdout", holdout, f"takes {count} of {total} images and must leave some.")
    order = torch.randperm(total, generator=torch.Generator().manual_seed(seed))
    first, rest = order[:count], order[count:]
    if spec.part == "train":
        return Split(rest, first, torch.arange(num_test), "train")
    return Split(torch.arange(num_train), first, rest, "test")


def sample(count: int, limit: int, seed: int) -> Tensor:
    """At most ``limit`` of ``count`` indices, sorted: a calibration subset."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return order[:limit].sort().values
