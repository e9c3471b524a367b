"""A Ray cluster of several nodes on this machine. Import it before Ray: Ray reads its environment once."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING

from search.ray_cluster.environment import prepare_environment

os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)  # for workers, which start with the nodes
prepare_environment("local")
# Ray stores nothing on a disk that is nearly full, which the disk of a test machine may be.
os.environ.setdefault("RAY_local_fs_capacity_threshold", "0.999")

import ray  # noqa: E402
from ray.cluster_utils import Cluster  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Of every node of a test; the least that Ray takes for its object store is 75 MiB. Drivers can not join a
#: cluster on the loopback address, so it listens on the machine's own, and answers to nobody without a token.
NODE = {"num_cpus": 1, "object_store_memory": 2**27}


@contextlib.contextmanager
def cluster(nodes: int = 2, *, connect: bool = True, **head: object) -> Iterator[Cluster]:
    """A head and more nodes with one CPU each; this process is a driver of it while inside."""
    made = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False, **head})
    try:
        for _ in range(nodes - 1):
            made.add_node(**NODE)
        if connect:
            ray.init(address=made.address, log_to_driver=False, logging_level="ERROR")
        yield made
    finally:
        ray.shutdown()
        made.shutdown()
