"""For all tests."""

from __future__ import annotations

from hypothesis import settings

# A busy machine is no failure: speed goes into benchmarks.
settings.register_profile("espalier", deadline=None)
settings.load_profile("espalier")
