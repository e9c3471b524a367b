"""Names of tasks, options that override a recipe, and users' own task files."""

from __future__ import annotations

from pathlib import Path

import pytest
from refusals import refused

from evaluators.task import Recipe
from evaluators.tasks import TASKS, TaskOptions, load_task, override

USER_FILE = """
import torch
from dataclasses import dataclass
from evaluators.task import Task, TensorLoader

@dataclass
class Settings:
    width: int = 4

def tiny() -> Task:
    data = TensorLoader(torch.zeros(8, Settings().width), torch.zeros(8).long(), 4)
    return Task("tiny", torch.nn.Linear(4, 2), torch.zeros(1, 4), data, data, data)

def number():
    return 3
"""


@pytest.fixture
def user_file(tmp_path: Path) -> Path:
    path = tmp_path / "my task.py"
    path.write_text(USER_FILE)
    return path


def test_a_users_function_returns_the_task(user_file: Path) -> None:
    task = load_task(f"{user_file}:tiny", TaskOptions(epochs=50, lr=0.2))
    assert task.name == "tiny"
    assert (task.recipe.epochs, task.recipe.finetune_epochs, task.recipe.lr) == (50, 10, 0.2)
    with pytest.raises(RuntimeError, match="before the front was final"):
        next(iter(task.test))


def test_two_user_files_of_one_name_do_not_meet(tmp_path: Path, user_file: Path) -> None:
    other = tmp_path / "other" / user_file.name
    other.parent.mkdir()
    other.write_text(USER_FILE.replace('"tiny"', '"other"'))
    assert [load_task(f"{path}:tiny", TaskOptions()).name for path in (user_file, other)] == ["tiny", "other"]


@pytest.mark.parametrize(
    ("function", "rule"),
    [
        ("tny", "has no function 'tny'; did you mean tiny?"),
        ("xyz", "has no function 'xyz'; did you mean number or tiny?"),
        ("number", "must return an evaluators.task.Task, got int."),
    ],
)
def test_a_users_function_must_be_there_and_return_a_task(user_file: Path, function: str, rule: str) -> None:
    with refused("task", rule):
        load_task(f"{user_file}:{function}", TaskOptions())


def test_a_users_file_may_import_its_neighbours(tmp_path: Path, user_file: Path) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "espalier_neighbour.py").write_text(user_file.read_text())
    (folder / "mine.py").write_text("from espalier_neighbour import tiny as task\n")
    assert load_task(f"{folder / 'mine.py'}:task", TaskOptions()).name == "tiny"
    (folder / "broken.py").write_text("import no_such_module\n")
    with refused("task", "can not be imported: No module named 'no_such_module'."):
        load_task(f"{folder / 'broken.py'}:task", TaskOptions())


def test_a_users_file_must_be_there(tmp_path: Path) -> None:
    with refused("task", f"there is no file {tmp_path / 'none.py'}."):
        load_task(f"{tmp_path / 'none.py'}:task", TaskOptions())


@pytest.mark.parametrize(
    ("option", "options"),
    [
        ("model", TaskOptions(model="resnet20")),
        ("weights", TaskOptions(weights=Path("w.th"))),
        ("holdout", TaskOptions(holdout="train:0.1")),
        ("batch-size", TaskOptions(batch_size=8)),
    ],
)
def test_a_users_file_decides_what_it_builds(user_file: Path, option: str, options: TaskOptions) -> None:
    with refused(option, f"is decided by the task's own file, {user_file}:tiny"):
        load_task(f"{user_file}:tiny", options)


def test_an_unknown_task_is_offered_the_nearest() -> None:
    with refused("task", "unknown task; did you mean cifar10?"):
        load_task("cifar", TaskOptions())
    assert sorted(TASKS) == ["cifar10", "digits", "imagefolder"]


def test_an_unknown_digits_model_is_refused() -> None:
    with refused("model", "unknown model; choose one of cnn."):
        load_task("digits", TaskOptions(model="resnet20"))


def test_overrides_scale_the_fine_tunes_in_proportion() -> None:
    recipe = Recipe(epochs=100, finetune_epochs=20, brief_epochs=1, lr=0.1, finetune_lr=0.01, batch_size=128)
    changed = override(recipe, TaskOptions(epochs=50, lr=0.2, batch_size=32))
    assert (changed.epochs, changed.finetune_epochs, changed.brief_epochs) == (50, 10, 0.5)
    assert (changed.lr, changed.finetune_lr, changed.batch_size) == (0.2, 0.02, 32)
    assert override(recipe, TaskOptions()) == recipe


@pytest.mark.parametrize(
    ("options", "option", "rule"),
    [
        (TaskOptions(epochs=0), "epochs", "must be a positive number."),
        (TaskOptions(lr=float("nan")), "lr", "must be a positive number."),
        (TaskOptions(lr=float("inf")), "lr", "must be a positive number."),
        (TaskOptions(batch_size=1), "batch-size", "must be at least 2"),
    ],
)
def test_overrides_must_be_positive(options: TaskOptions, option: str, rule: str) -> None:
    with refused(option, rule):
        override(Recipe(), options)
