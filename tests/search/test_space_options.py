from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from evaluators.options import OptionError
from search.config import RunConfig
from search.space_options import check_patterns, divisors_of, smallest_shares_of, trace_arguments
from spaces import trace

NOTHING = {"include": (), "exclude": (), "ignore": (), "divisor_of": (), "smallest_of": ()}


def test_patterns_keep_their_order_and_the_last_of_equal_ones_counts():
    assert list(divisors_of(["a.*=8", "a.1=4", "a.*=2"]).items()) == [("a.1", 4), ("a.*", 2)]
    assert smallest_shares_of(["x=y=0.5"]) == {"x=y": 0.5}


@pytest.mark.parametrize("text", ["", "a", "a=", "=8", "a=b", "a=0", "a=-8", "a=1.5", "a=nan"])
def test_divisors_are_whole_numbers_of_at_least_one(text):
    with pytest.raises(OptionError, match="must be PATTERN=N with a whole number of at least 1") as error:
        divisors_of(["ok=8", text])
    assert str(error.value).startswith(f"--divisor-of {text!r}: ")


@pytest.mark.parametrize("text", ["", "a", "a=", "=0.5", "a=b", "a=1.1", "a=-0.1", "a=nan", "a=inf"])
def test_smallest_shares_lie_between_0_and_1(text):
    with pytest.raises(OptionError, match="must be PATTERN=SHARE with a share between 0 and 1") as error:
        smallest_shares_of(["ok=0", "ok=1", text])
    assert str(error.value).startswith(f"--smallest-of {text!r}: ")


def test_arguments_of_a_trace():
    options = NOTHING | {"ignore": ["stem"], "divisor_of": ["a=4"], "smallest_of": ["b=0.5"]}
    assert trace_arguments(divisor=8, smallest=0.2, **options) == {
        "divisor": 8,
        "smallest": 0.2,
        "include": (),
        "exclude": (),
        "ignore": ("stem",),
        "divisor_of": {"a": 4},
        "smallest_of": {"b": 0.5},
    }
    for divisor, smallest in ((0, 0.2), (8, -0.1), (8, 1.1), (8, float("nan"))):
        with pytest.raises(OptionError):
            trace_arguments(divisor=divisor, smallest=smallest, **NOTHING)


def test_the_settings_of_a_run_survive_its_folder(tmp_path):
    config = RunConfig(ignore=("stem",), divisor_of=("a=4", "*=8"), smallest_of=("b=0.5",))
    config.save(tmp_path)
    assert RunConfig.load(tmp_path) == config
    assert config.trace_arguments(divisor=2)["divisor_of"] == {"a": 4, "*": 8}
    assert RunConfig(divisor=3).trace_arguments(divisor=2)["divisor"] == 3


def test_a_run_of_an_earlier_version_has_none_of_them(tmp_path):
    RunConfig().save(tmp_path)
    path = tmp_path / "config.json"
    raw = json.loads(path.read_text())
    for name in ("ignore", "divisor_of", "smallest_of"):
        del raw[name]
    path.write_text(json.dumps(raw))
    assert RunConfig.load(tmp_path) == RunConfig()


class Halved(nn.Module):
    """The outputs of one layer fall into two groups."""

    def __init__(self):
        super().__init__()
        self.c, self.one, self.other = nn.Conv2d(3, 8, 1), nn.Conv2d(4, 3, 1), nn.Conv2d(4, 3, 3, padding=1)

    def forward(self, x):
        left, right = self.c(x).chunk(2, dim=1)
        return self.one(left) + self.other(right)


@pytest.mark.parametrize("option", ["include", "exclude", "ignore"])
@pytest.mark.parametrize("pattern", ["c*", "c", "*", "c#2"])
def test_patterns_that_fit_are_let_through_whatever_they_leave(option, pattern):
    model = Halved()
    arguments = trace_arguments(divisor=1, smallest=0, **NOTHING | {option: (pattern,)})
    space = trace(model, torch.zeros(1, 3, 4, 4), **arguments)
    if (option, pattern) == ("ignore", "c#2"):
        with pytest.raises(OptionError, match="--ignore 'c#2': fits no module of the model; try c"):
            check_patterns(arguments, model, space)
    else:
        check_patterns(arguments, model, space)


def test_everything_may_be_ignored():
    model = nn.Linear(3, 3)
    arguments = trace_arguments(divisor=1, smallest=0, **NOTHING | {"ignore": ("*",)})
    check_patterns(arguments, model, trace(model, torch.zeros(1, 3), **arguments))
