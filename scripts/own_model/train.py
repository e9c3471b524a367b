"""Plain PyTorch: the data, and a training of the network that ends in a checkpoint. Takes some seconds."""

from __future__ import annotations

from pathlib import Path

import torch
from network import Hybrid
from sklearn.datasets import load_digits
from torch import nn, optim
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

CHECKPOINT = Path(__file__).parents[2] / "runs" / "own_model.pt"
#: Of the 1,797 images in a fixed order.
SPLITS = {"train": slice(0, 900), "holdout": slice(900, 1300), "test": slice(1300, None)}


def loader(split: str) -> DataLoader:
    """Batches of ``(images, labels)``."""
    pixels, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))[SPLITS[split]]
    images = torch.from_numpy(pixels).float().view(-1, 1, 8, 8) / 16
    data = TensorDataset(images[order], torch.from_numpy(labels)[order])
    return DataLoader(data, batch_size=50, shuffle=split == "train")


@torch.no_grad()
def accuracy(model: nn.Module, split: str) -> float:
    """Share of the images that the model tells right."""
    right = [model.eval()(images).argmax(1) == labels for images, labels in loader(split)]
    return torch.cat(right).float().mean().item()


def main(epochs: int = 30) -> None:
    """Train, write the checkpoint, say how good it became."""
    torch.manual_seed(0)
    model, train = Hybrid(), loader("train")
    optimizer = optim.AdamW(model.parameters(), weight_decay=0.05)
    schedule = optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=epochs * len(train))
    for _ in range(epochs):
        for images, labels in train:
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels).backward()
            optimizer.step()
            schedule.step()
    CHECKPOINT.parent.mkdir(exist_ok=True)
    torch.save(model.state_dict(), CHECKPOINT)
    print(f"{accuracy(model, 'holdout'):.1%} of holdout right, weights in {CHECKPOINT}")


if __name__ == "__main__":
    main()
