"""Seeds of trainings: pure functions of what is trained, the same in every process."""

from __future__ import annotations

import hashlib


def training_seed(method: str, seed: int) -> int:
    """Seed of one training, below 2**63: equal for all candidates, so that they differ in nothing else."""
    digest = hashlib.sha256(f"{method}/{seed}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
