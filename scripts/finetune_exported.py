"""A training script of your own that goes on from an exported network: plain PyTorch, no search, no tracing.

    python -m search.pick runs/digits --max-macs 50% --export architecture --to small
    python scripts/finetune_exported.py small --epochs 3

Only the class of the network before pruning is Espalier's here, as its digits example is; yours is your own.
"""

import argparse
import importlib.util
from pathlib import Path

import torch
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

from evaluators.models import DigitsCnn


def own_data() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Images and targets of train and test, normalised as the network knows them."""
    data = load_digits()
    images = (torch.tensor(data.images, dtype=torch.float32)[:, None] / 16 - 0.305) / 0.376
    targets = torch.tensor(data.target)
    order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(0))
    train, test = order[:-600], order[-600:]
    return (images[train], targets[train]), (images[test], targets[test])


def exported(folder: Path) -> nn.Module:
    """The network, by the `load.py` that lies beside its weights."""
    spec = importlib.util.spec_from_file_location("load", folder / "load.py")
    load = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(load)
    return load.load(DigitsCnn())


def accuracy(model: nn.Module, images: Tensor, targets: Tensor) -> float:
    model.eval()
    with torch.inference_mode():
        return (model(images).argmax(1) == targets).float().mean().item()


def main() -> None:
    parser = argparse.ArgumentParser(description="Go on training an exported digits network.")
    parser.add_argument("folder", type=Path, help="what `search.pick --export architecture` wrote")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--lr", type=float, default=0.02)
    arguments = parser.parse_args()

    torch.manual_seed(0)
    (images, targets), test = own_data()
    model = exported(arguments.folder)
    optimizer = torch.optim.SGD(model.parameters(), lr=arguments.lr, momentum=0.9, nesterov=True)
    print(f"before: {accuracy(model, *test):.2%} of test right")
    for epoch in range(arguments.epochs):
        model.train()
        losses = []
        for index in torch.randperm(len(targets)).split(64):
            loss = F.cross_entropy(model(images[index]), targets[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        print(f"epoch {epoch + 1}: loss {sum(losses) / len(losses):.4f}")
    print(f"after: {accuracy(model, *test):.2%} of test right")
    save_file(model.state_dict(), arguments.folder / "finetuned.safetensors")


if __name__ == "__main__":
    main()
