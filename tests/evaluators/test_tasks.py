from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import URLError

import pytest
import torch
from PIL import Image
from refusals import refused
from torch import Tensor
from torch.nn import functional as F
from torchvision import datasets

from evaluators.models import CifarResNet
from evaluators.options import OptionError
from evaluators.precision import Precision
from evaluators.prepare import train_dense
from evaluators.scoring import evaluate
from evaluators.tasks import TaskOptions, load_task
from evaluators.tasks import cifar10 as cifar10_module
from evaluators.tasks.augmentation import Normalise, RandomCrop, crop
from evaluators.tasks.holdout import Holdout, sample, split
from evaluators.tasks.imagefolder import crop_size

if TYPE_CHECKING:
    from evaluators.task import Task

DATA = os.environ.get("ESPALIER_DATA")
with_data = pytest.mark.skipif(
    DATA is None, reason="ESPALIER_DATA names no folder with CIFAR-10 and weights/"
)


def rows(task: Task, part: str) -> set[tuple[float, ...]]:
    loader = getattr(task, part)
    inputs = loader.inputs if part != "test" else loader._loader.inputs
    return {tuple(image.flatten().tolist()) for image in inputs}


# Digits


def test_digits_splits_are_disjoint_and_have_the_documented_sizes() -> None:
    task = load_task("digits", TaskOptions())
    train, holdout, test = (rows(task, part) for part in ("train", "holdout", "test"))
    assert [len(task.train.targets), len(task.holdout.targets)] == [797, 400]
    # All 1,797 images differ, so that a set of rows counts images.
    assert [len(train), len(holdout), len(test)] == [797, 400, 600]
    assert len(train | holdout | test) == 1797


def test_digits_splits_do_not_depend_on_the_seed_but_the_weights_do() -> None:
    one, two = (load_task("digits", TaskOptions(seed=seed)) for seed in (0, 1))
    assert rows(one, "test") == rows(two, "test")
    assert rows(one, "holdout") == rows(two, "holdout")
    assert not torch.equal(one.model.conv1.weight, two.model.conv1.weight)
    torch.manual_seed(99)
    again = load_task("digits", TaskOptions(seed=1))
    assert torch.equal(again.model.conv1.weight, two.model.conv1.weight)


@pytest.mark.parametrize(
    ("holdout", "sizes"), [("train:0.25", [898, 299, 600]), ("test:0.5", [1197, 300, 300])]
)
def test_digits_holdout_is_cut_anew_on_request(holdout: str, sizes: list[int]) -> None:
    task = load_task("digits", TaskOptions(holdout=holdout, seed=5))
    parts = [rows(task, part) for part in ("train", "holdout", "test")]
    assert [len(part) for part in parts] == sizes
    assert len(set.union(*parts)) == 1797
    if holdout.startswith("train"):
        assert parts[2] == rows(load_task("digits", TaskOptions()), "test")


def test_digits_test_split_is_sealed() -> None:
    with pytest.raises(RuntimeError, match="before the front was final"):
        next(iter(load_task("digits", TaskOptions()).test))


def test_digits_calibrates_on_all_training_images_in_order() -> None:
    task = load_task("digits", TaskOptions())
    first, second = (torch.cat([x for x, _ in task.calibration]) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(first, task.calibration.transform(task.train.inputs))
    assert first.mean().item() == pytest.approx(0, abs=0.02)
    assert first.std().item() == pytest.approx(1, abs=0.02)


def test_digits_train_batches_follow_the_global_seed() -> None:
    task = load_task("digits", TaskOptions())
    epochs = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        epochs.append(torch.cat([x for x, _ in task.train]))
    assert torch.equal(epochs[0], epochs[1])
    assert not torch.equal(epochs[0], epochs[2])


def test_loading_a_task_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    load_task("digits", TaskOptions(seed=7))
    assert torch.equal(torch.rand(1), expected)


def test_digits_weights_make_a_trained_task(tmp_path: Path) -> None:
    dense = load_task("digits", TaskOptions(seed=1))
    torch.save(dense.model.state_dict(), tmp_path / "w.th")
    task = load_task("digits", TaskOptions(seed=2, weights=tmp_path / "w.th"))
    assert task.pretrained
    assert not dense.pretrained
    assert torch.equal(task.model.linear.weight, dense.model.linear.weight)


# Holdout


def test_holdout_from_test_is_the_halving_that_public_numbers_use() -> None:
    p = torch.randperm(10_000, generator=torch.Generator().manual_seed(0))
    for seed in (0, 9):
        cut = split("test:0.5", num_train=50_000, num_test=10_000, seed=seed)
        assert torch.equal(cut.holdout, p[:5000])
        assert torch.equal(cut.test, p[5000:])
        assert torch.equal(cut.train, torch.arange(50_000))
        assert cut.part == "test"


def test_holdout_from_train_is_seeded_and_leaves_test_whole() -> None:
    cuts = [split("train:0.1", num_train=1000, num_test=50, seed=seed) for seed in (3, 3, 4)]
    for cut in cuts:
        assert torch.equal(cut.test, torch.arange(50))
        assert len(cut.holdout) == 100
        assert sorted([*cut.train.tolist(), *cut.holdout.tolist()]) == list(range(1000))
    assert torch.equal(cuts[0].holdout, cuts[1].holdout)
    assert not torch.equal(cuts[0].holdout, cuts[2].holdout)


@pytest.mark.parametrize(
    "text", ["", "train", "train:", "train:0", "train:1", "test:-0.1", "val:0.1", "train:10%", "train:nan"]
)
def test_holdout_must_be_a_fraction_of_train_or_test(text: str) -> None:
    with refused("holdout", "must be train:F or test:F with a fraction F between 0 and 1"):
        Holdout.parse(text)


@pytest.mark.parametrize("text", ["train:0.01", "train:0.99"])
def test_holdout_must_leave_images_on_both_sides(text: str) -> None:
    with refused("holdout", "of 10 images and must leave some"):
        split(text, num_train=10, num_test=10, seed=0)


def test_sample_is_sorted_seeded_and_at_most_as_large_as_asked() -> None:
    assert torch.equal(sample(5, 10, seed=0), torch.arange(5))
    few = sample(100, 10, seed=0)
    assert torch.equal(few, few.unique())
    assert len(few) == 10
    assert torch.equal(few, sample(100, 10, seed=0))
    assert not torch.equal(few, sample(100, 10, seed=1))


# Augmentation


def slow_crop(images: Tensor, padding: int, top: Tensor, left: Tensor, mirrored: Tensor) -> Tensor:
    """One image after the other, as torchvision's RandomCrop and RandomHorizontalFlip do it."""
    height, width = images.shape[2:]
    crops = []
    for image, y, x, mirror in zip(images, top.tolist(), left.tolist(), mirrored.tolist(), strict=True):
        piece = F.pad(image, (padding,) * 4)[:, y : y + height, x : x + width]
        crops.append(piece.flip(2) if mirror else piece)
    return torch.stack(crops)


@pytest.mark.parametrize(("padding", "channels"), [(4, 3), (1, 1), (0, 2)])
def test_crop_equals_cropping_image_by_image(padding: int, channels: int) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(1, 256, (40, channels, 9, 8), dtype=torch.uint8, generator=generator)
    top, left = torch.randint(2 * padding + 1, (2, 40), generator=generator)
    mirrored = torch.rand(40, generator=generator) < 0.5
    expected = slow_crop(images, padding, top, left, mirrored)
    assert torch.equal(crop(images, padding, top, left, mirrored), expected)


def test_random_crop_reaches_every_place_and_both_directions() -> None:
    image = torch.arange(1, 10, dtype=torch.uint8).view(1, 1, 3, 3)
    keep = Normalise(mean=(0.0,), std=(1.0,), maximum=1.0)
    torch.manual_seed(0)
    seen = {tuple(x.flatten().tolist()) for x in RandomCrop(keep, padding=1)(image.expand(1000, 1, 3, 3))}
    assert len(seen) == 9 * 2
    unflipped = RandomCrop(keep, padding=1, flip=False)(image.expand(1000, 1, 3, 3))
    assert len({tuple(x.flatten().tolist()) for x in unflipped}) == 9


def test_normalise_scales_each_channel() -> None:
    images = torch.tensor([[[[0, 255]], [[51, 102]]]], dtype=torch.uint8)
    out = Normalise(mean=(0.5, 0.2), std=(0.25, 0.1))(images)
    torch.testing.assert_close(out, torch.tensor([[[[-2.0, 2.0]], [[0.0, 2.0]]]]))
    assert images.tolist() == [[[[0, 255]], [[51, 102]]]]


# CIFAR-10


def refuse_download(message: str = "no network") -> object:
    def download(url: str, root: Path, filename: str, md5: str) -> None:
        assert url
        assert md5
        Path(root).mkdir(parents=True, exist_ok=True)
        (Path(root) / filename).write_bytes(b"half an archive")
        raise URLError(message)

    return download


def test_cifar10_without_data_and_network_is_one_line_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(datasets.cifar, "download_and_extract_archive", refuse_download("no\nnetwork"))
    root = tmp_path / "a" / "b"
    with pytest.raises(OptionError) as raised:
        load_task("cifar10", TaskOptions(data_root=root))
    assert str(raised.value) == (
        f"--data-root {root}: has no cifar-10-batches-py folder with CIFAR-10, and the download failed: "
        "<urlopen error no network>"
    )
    assert not list(tmp_path.iterdir())
    assert capsys.readouterr() == ("", "")


def test_cifar10_keeps_what_was_in_the_data_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.cifar, "download_and_extract_archive", refuse_download())
    (tmp_path / "mine.txt").write_text("kept")
    with refused("data-root", "the download failed"):
        load_task("cifar10", TaskOptions(data_root=tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_cifar10_refuses_bad_options_before_it_looks_for_data(tmp_path: Path) -> None:
    with refused("model", "did you mean resnet32 or resnet20 or resnet110?"):
        load_task("cifar10", TaskOptions(model="resnet21", data_root=tmp_path))
    with refused("holdout", "must be train:F"):
        load_task("cifar10", TaskOptions(holdout="test", data_root=tmp_path))
    with refused("weights", "no such file"):
        load_task("cifar10", TaskOptions(weights=tmp_path / "none.th", data_root=tmp_path))


@pytest.fixture
def few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """CIFAR-10's sizes, with images of one pixel that tell which they are."""

    def images(count: int, offset: int) -> tuple[Tensor, Tensor]:
        numbers = torch.arange(count) + offset
        digits = torch.stack([numbers % 256, numbers // 256 % 256, numbers // 65536], 1)
        return digits.to(torch.uint8)[:, :, None, None], numbers % 10

    data = {"train": images(50_000, 0), "test": images(10_000, 50_000)}
    monkeypatch.setattr(cifar10_module, "load_images", lambda _: data)


@pytest.mark.usefixtures("few_images")
def test_cifar10_splits_are_disjoint_and_cover_everything() -> None:
    for holdout, sizes in {None: (45_000, 5000, 10_000), "test:0.5": (50_000, 5000, 5000)}.items():
        task = load_task("cifar10", TaskOptions(holdout=holdout))
        parts = [rows(task, part) for part in ("train", "holdout", "test")]
        assert tuple(len(part) for part in parts) == sizes
        assert len(set.union(*parts)) == 60_000
        assert rows(task, "calibration") <= parts[0]
        assert len(rows(task, "calibration")) == 2048


@pytest.mark.usefixtures("few_images")
def test_cifar10_images_stay_bytes_until_a_batch_is_read() -> None:
    task = load_task("cifar10", TaskOptions(batch_size=64))
    assert task.train.inputs.dtype == torch.uint8
    inputs, targets = next(iter(task.train))
    assert inputs.shape == (64, 3, 1, 1)
    assert inputs.dtype == torch.float32
    assert targets.dtype == torch.int64
    assert isinstance(task.model, CifarResNet)
    assert task.recipe.batch_size == 64
    assert not task.pretrained


@with_data
@pytest.mark.parametrize(
    ("model", "weights", "correct"),
    [("resnet20", "resnet20-12fca82f.th", 9173), ("resnet32", "resnet32-d509ac18.th", 9263)],
)
def test_public_checkpoints_score_what_is_published(model: str, weights: str, correct: int) -> None:
    root = Path(str(DATA))
    task = load_task(
        "cifar10",
        TaskOptions(model=model, weights=root / "weights" / weights, data_root=root, holdout="test:0.5"),
    )
    task.test.unseal()
    task.model.eval()
    with torch.inference_mode():
        right = sum(
            task.score(task.model(x), y).sum().item() for part in (task.holdout, task.test) for x, y in part
        )
    # A pixel's rounding may turn one image in ten thousand.
    assert right == pytest.approx(correct, abs=1)


# Image folders


def draw_images(
    root: Path, parts: tuple[str, ...] = ("train", "val"), classes: tuple[str, ...] = ("a", "b")
) -> None:
    for p, part in enumerate(parts):
        for c, label in enumerate(classes):
            (root / part / label).mkdir(parents=True)
            for i in range(5):
                Image.new("RGB", (40, 30), (50 * i, 100 * c, 100 * p)).save(root / part / label / f"{i}.png")


def test_imagefolder_reads_train_and_val(tmp_path: Path) -> None:
    draw_images(tmp_path)
    task = load_task(
        "imagefolder", TaskOptions(data_root=tmp_path, model="squeezenet1_1", holdout="train:0.2")
    )
    assert [len(task.train.dataset), len(task.holdout.dataset), len(task.test._loader.dataset)] == [8, 2, 10]
    assert not set(task.train.dataset.indices) & set(task.holdout.dataset.indices)
    inputs, targets = next(iter(task.holdout))
    assert inputs.shape == (2, 3, 224, 224)
    assert set(targets.tolist()) <= {0, 1}
    assert task.model(task.example_inputs).shape == (1, 2)


def test_imagefolder_scores_on_plain_images_and_trains_on_augmented_ones(tmp_path: Path) -> None:
    draw_images(tmp_path, parts=("train", "test"))
    task = load_task(
        "imagefolder", TaskOptions(data_root=tmp_path, model="squeezenet1_1", holdout="test:0.5")
    )
    plain, labels = task.calibration.dataset[7]
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = (torch.tensor([100.0, 100.0, 0.0]) / 255 - mean) / std
    torch.testing.assert_close(plain, expected.view(3, 1, 1).expand(3, 224, 224), atol=1e-5, rtol=0)
    assert labels == 1
    assert len(task.holdout.dataset) == len(task.test._loader.dataset) == 5
    assert task.train.dataset.dataset.transform is not task.calibration.dataset.dataset.transform


def test_imagefolder_never_ends_an_epoch_on_a_single_image(tmp_path: Path) -> None:
    draw_images(tmp_path)
    options = TaskOptions(data_root=tmp_path, model="squeezenet1_1", holdout="train:0.1", batch_size=4)
    assert [len(targets) for _, targets in load_task("imagefolder", options).train] == [4, 4]


def test_imagefolder_builds_models_with_auxiliary_heads(tmp_path: Path) -> None:
    draw_images(tmp_path, classes=("a", "b", "c"))
    task = load_task("imagefolder", TaskOptions(data_root=tmp_path, model="googlenet"))
    outputs = task.model.train()(torch.randn(2, 3, 224, 224))
    assert [out.shape for out in outputs] == [(2, 3)] * 3
    assert crop_size("inception_v3") == 299


def test_imagefolder_names_what_the_folder_lacks(tmp_path: Path) -> None:
    options = TaskOptions(data_root=tmp_path, model="squeezenet1_1")
    with refused("data-root", "must have the folders train/ and val/ (or test/)"):
        load_task("imagefolder", options)
    draw_images(tmp_path, parts=("train",))
    with refused("data-root", "val/ is not so."):
        load_task("imagefolder", options)
    draw_images(tmp_path, parts=("val",), classes=("a", "c"))
    with refused("data-root", "must have the same class folders; b is only in one of them."):
        load_task("imagefolder", options)


def test_imagefolder_offers_the_nearest_models(tmp_path: Path) -> None:
    with refused("model", "did you mean resnet50"):
        load_task("imagefolder", TaskOptions(data_root=tmp_path, model="resnet5"))


def test_digits_trains_to_96_percent_on_test(tmp_path: Path) -> None:
    task = load_task("digits", TaskOptions())
    precision = Precision("cpu", "float32", channels_last=False, threads=1)
    train_dense(task, precision, seed=0, folder=tmp_path)
    task.test.unseal()
    assert evaluate(task.model, task, task.test, precision) >= 0.96
