"""Joins a cluster or starts a local one, and finds out at once what would make a sweep fail later."""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import secrets
import shutil
import time
from typing import TYPE_CHECKING, Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from evaluators.options import OptionError
from search.ray_cluster.capacity import Node, living_nodes
from search.ray_cluster.environment import is_reachable, resolved
from search.ray_cluster.quiet import without_refusals
from search.survey import installed_versions

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from search.ray_cluster.resources import Resources

#: A node answers in a second; the first worker process of a fresh one has to start.
_PROBE_SECONDS = 60.0
#: To join, and seconds between two of them.
_ATTEMPTS, _PAUSE_SECONDS = 3, 2.0

#: Tune changes into a folder of the trial otherwise, where relative paths of a user's task mean nothing.
_WORKER_ENVIRONMENT = {"RAY_CHDIR_TO_TRIAL_DIR": "0", "OMP_WAIT_POLICY": "PASSIVE"}


@contextlib.contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Be part of a cluster; what was started is stopped, what was joined is left.

    Args:
        address: ``auto``, ``local``, ``HOST:PORT`` or ``ray://HOST:PORT``; the cluster that this process
            runs in when ``None``, else a local one.

    Raises:
        OptionError: If nobody answers there, or Ray's or Python's versions differ.
    """
    chosen = resolved(address)
    if chosen not in ("auto", "local"):
        _check_reachable(chosen)
    if ray.is_initialized():
        yield
        return
    try:
        with contextlib.nullcontext() if chosen == "local" else without_refusals():
            _join(chosen)
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        rule = _one_line(error) if chosen == "local" else f"{_one_line(error)} {_advice(error)}"
        raise OptionError("address", address, rule if address else f"{_guess(chosen)}: {rule}") from error
    try:
        yield
    finally:
        ray.shutdown()


def check_nodes(folder: Path) -> None:
    """Every node has our versions, and reads and writes ``folder``.

    Args:
        folder: Exists here; what is written there is removed.

    Raises:
        OptionError: Naming the node and what differs.
    """
    token = f".espalier-{secrets.token_hex(8)}"
    marker = folder / token
    try:
        marker.mkdir()
    except OSError as error:
        raise OptionError("storage-path", folder, f"can not be written to: {error.strerror}.") from error
    try:
        for node, found in _probe(living_nodes(), str(marker)):
            _compare(node, found["versions"])
            if found["error"] or not (marker / node.id).exists():
                cause = found["error"] or "it is a folder of the node's own"
                rule = (
                    f"node {node.address} can not write there ({cause}); name a folder that all nodes share."
                )
                raise OptionError("storage-path", folder, rule)
    finally:
        shutil.rmtree(marker, ignore_errors=True)


def check_resources(resources: Mapping[int, Resources]) -> None:
    """Some node, or one that the autoscaler may add, has what an evaluation needs.

    Raises:
        OptionError: Naming the rung and what the largest node has.
    """
    nodes: list[Mapping[str, float]] = [node.resources for node in living_nodes()]
    if (most := _autoscaled()) is not None:
        nodes.append(most)
    for rung, needed in resources.items():
        if needed.places(nodes):
            continue
        largest = max(nodes, key=lambda node: (node.get("GPU", 0), node.get("CPU", 0)), default={})
        has = f"{largest.get('CPU', 0):g} CPUs and {largest.get('GPU', 0):g} GPUs"
        rule = f"no node can ever give that on rung {rung}; the largest of {len(nodes)} has {has}."
        raise OptionError("resources", str(needed), rule)


def default_gpu() -> float:
    """One GPU for each evaluation where the cluster has any."""
    return 1.0 if any(node.resources.get("GPU") for node in living_nodes()) else 0.0


def _join(address: str) -> None:
    options: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            ray.init(
                address=address,
                log_to_driver=False,
                logging_level=logging.ERROR,
                runtime_env={"env_vars": _WORKER_ENVIRONMENT},
                **options,
            )
        except ConnectionAbortedError:
            # Somebody is there, but the server process that the head starts for each client did not come up.
            if attempt == _ATTEMPTS:
                raise
            time.sleep(_PAUSE_SECONDS)
        else:
            return


def _autoscaled() -> dict[str, float] | None:
    """All that an autoscaler may add together; ``None`` where there is none."""
    with contextlib.suppress(Exception):  # Ray offers it to its own autoscaler only; without it, nodes decide
        from ray._private.state import state

        most = state.get_max_resources_from_cluster_config()
        return None if most is None else {name: float(count) for name, count in most.items()}
    return None


def _probe(nodes: Sequence[Node], marker: str) -> Iterator[tuple[Node, dict[str, Any]]]:
    """What each node says about itself, after it wrote a file with its id into ``marker``."""

    # Inside a function, so that it travels by value: a node without Espalier can run it too.
    def look(identity: str, names: list[str]) -> dict[str, Any]:
        import importlib.metadata
        import pathlib
        import platform

        versions = {"Python": platform.python_version()}
        for name in names:
            try:
                versions[name] = importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                versions[name] = "missing"
        error = ""
        try:
            (pathlib.Path(marker) / identity).write_text("")
        except OSError as problem:
            error = problem.strerror or str(problem)
        return {"versions": versions, "error": error}

    names = list(installed_versions())
    task = ray.remote(num_cpus=0, max_retries=0)(look)
    asked = {
        task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False)).remote(
            node.id, names
        ): node
        for node in nodes
    }
    ready, late = ray.wait(list(asked), num_returns=len(asked), timeout=_PROBE_SECONDS)
    if late:
        address = asked[late[0]].address
        raise OptionError("address", address, f"this node did not answer within {_PROBE_SECONDS:.0f} s.")
    for reference in ready:
        yield asked[reference], ray.get(reference)


def _compare(node: Node, found: Mapping[str, str]) -> None:
    own = {"Python": platform.python_version(), **installed_versions()}
    # Patch releases of Python understand each other; anything else may compute other numbers.
    differing = [
        f"{name} is {found.get(name, 'missing')} there and {version} here"
        for name, version in own.items()
        if _release(name, found.get(name, "missing")) != _release(name, version)
    ]
    if differing:
        rule = f"its versions are not those of the driver: {', '.join(differing)}."
        raise OptionError("address", f"node {node.address}", rule)


def _release(name: str, version: str) -> str:
    return ".".join(version.split(".")[:2]) if name == "Python" else version


def _check_reachable(address: str) -> None:
    """Ray itself tries for a minute."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        raise OptionError("address", address, "give auto, local, HOST:PORT or ray://HOST:PORT.")
    if not is_reachable(f"{host}:{port}"):
        raise OptionError("address", address, "nobody answers there.")


def _guess(chosen: str) -> str:
    """What was tried without ``--address``."""
    if chosen == "local":
        return "none was given, and no cluster could be started here"
    which = "RAY_ADDRESS names" if os.environ.get("RAY_ADDRESS") else "runs on this machine"
    return f"none was given, and the Ray cluster that {which} could not be joined"


def _advice(error: BaseException) -> str:
    """What to do about a cluster that asks for a token; only the cause of Ray's error tells of it."""
    # Ray sets the mode itself where it finds a token and was told of no mode.
    if os.environ.get("RAY_AUTH_MODE", "").lower() != "token":
        token = "If it asks for a token, set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN; "
    elif "InvalidAuthToken" in str(error.__cause__):
        names = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
        brought = next((name for name in names if os.environ.get(name)), "~/.ray/auth_token")
        token = f"It asks for another token than that of {brought}; set RAY_AUTH_TOKEN to its own; "
    else:
        token = ""
    return f"{token}--address local starts one of your own."


def _one_line(error: BaseException) -> str:
    """Without the lines of a traceback of the server's, which ends with the cause."""
    text, _, trace = str(error).partition("Traceback (most recent call last):")
    cause = trace.strip().splitlines()[-1:]
    text = " ".join([*text.split(), *cause])
    return (text if text.endswith(".") else f"{text}.") if len(text) < 300 else text[:300] + "..."
