"""What every bad option must end in."""

from __future__ import annotations

import re

import pytest

from evaluators.options import OptionError


def refused(option: str, rule: str) -> object:
    return pytest.raises(OptionError, match=rf"^--{option} .*{re.escape(rule)}")
