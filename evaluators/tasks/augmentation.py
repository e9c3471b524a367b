"""Transforms of whole batches of images: no Python loop over images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True, slots=True)
class Normalise:
    """Integer pixels to floats: ``(x / maximum - mean) / std`` per channel.

    Attributes:
        mean: One per channel, on the scale 0 to 1.
        std: One per channel.
        maximum: Pixel value that becomes 1 before the mean goes off.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    maximum: float = 255.0

    def __call__(self, images: Tensor) -> Tensor:
        """``(n, c, h, w)`` of any type to float32."""
        mean, std = (torch.tensor(v, device=images.device).view(-1, 1, 1) for v in (self.mean, self.std))
        return images.float().div_(self.maximum).sub_(mean).div_(std)


@dataclass(frozen=True, slots=True)
class RandomCrop:
    """Crops of the padded images at random places, mirrored at random, then normalised.

    Attributes:
        normalise: What follows.
        padding: Black pixels on each side; crops have the size of the images.
        flip: Whether half of the images are mirrored left to right.
    """

    normalise: Normalise
    padding: int
    flip: bool = True

    def __call__(self, images: Tensor) -> Tensor:
        """``(n, c, h, w)`` to float32; draws from torch's global generator."""
        n, places = len(images), 2 * self.padding + 1
        top, left = torch.randint(places, (2, n), device=images.device)
        mirrored = torch.rand(n, device=images.device) < (0.5 if self.flip else 0.0)
        return self.normalise(crop(images, self.padding, top, left, mirrored))


def crop(images: Tensor, padding: int, top: Tensor, left: Tensor, mirrored: Tensor) -> Tensor:
    """One crop of each image, as large as the image.

    Args:
        images: ``(n, c, h, w)``.
        padding: Zeros on each side.
        top: ``(n,)`` first row of each crop in the padded image.
        left: ``(n,)`` first column.
        mirrored: ``(n,)`` bools: which crops are reversed left to right.
    """
    n, channels, height, width = images.shape
    padded = F.pad(images, (padding,) * 4)
    columns = torch.arange(width, device=images.device).expand(n, width)
    columns = torch.where(mirrored[:, None], columns.flip(1), columns) + left[:, None]
    rows = torch.arange(height, device=images.device) + top[:, None]
    pixels = rows[:, :, None] * padded.shape[3] + columns[:, None, :]
    index = pixels.view(n, 1, -1).expand(n, channels, -1)
    return padded.flatten(2).gather(2, index).view(images.shape)
