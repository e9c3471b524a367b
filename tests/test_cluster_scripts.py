"""The cluster's scripts: options exist, authentication is on, and Slurm's does the right things in order."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from search.run import run

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "scripts" / "cluster"
OPTIONS = {name for parameter in run.params for name in parameter.opts}
COMMAND = re.compile(r"(?:search\.run|sweep\.sh|slurm\.sh)[ `'\"]+(?=-)")


def options_of_commands(text: str) -> list[list[str]]:
    """Names of the options of each command line in which a sweep is started."""
    found = []
    for match in COMMAND.finditer(text):
        names: list[str] = []
        value_may_follow = False
        for token in text[match.end() :].split():
            if token.startswith("--"):
                names.append(token.partition("=")[0].strip("'\"`"))
            elif not value_may_follow:
                break
            value_may_follow = token.startswith("--")
            if token[-1] in "'\"`":
                break
        found.append(names)
    return found


@pytest.mark.parametrize("name", ["ray-cluster.yaml", "rayjob.yaml", "slurm.sh", "sweep.sh"])
def test_commands_have_only_options_that_exist(name: str) -> None:
    lines = options_of_commands((FOLDER / name).read_text())
    assert any("--out" in names or "--executor" in names for names in lines)
    assert {option for names in lines for option in names} - OPTIONS == set()


def test_readers_of_commands_find_unknown_options() -> None:
    text = "'bash sweep.sh --out DIR --no-such=1'\n--unrelated"
    assert options_of_commands(text) == [["--out", "--no-such"]]


@pytest.mark.parametrize("name", ["slurm.sh", "sweep.sh"])
def test_shell_scripts_parse(name: str) -> None:
    subprocess.run(["bash", "-n", FOLDER / name], check=True)


@pytest.fixture(scope="module")
def launcher() -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load((FOLDER / "ray-cluster.yaml").read_text())
    return config


def test_ray_accepts_the_file_of_its_launcher(launcher: dict[str, Any]) -> None:
    util = pytest.importorskip("ray.autoscaler._private.util")
    util.validate_config(launcher)


def test_workers_of_the_launcher_are_spot_machines_that_go_away(launcher: dict[str, Any]) -> None:
    types = launcher["available_node_types"]
    head, gpu = types[launcher["head_node_type"]], types["gpu"]
    assert gpu["min_workers"] == 0
    assert gpu["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert "InstanceMarketOptions" not in head["node_config"]
    assert head["resources"] == {"CPU": 0}
    assert launcher["idle_timeout_minutes"] > 0


def test_files_that_the_launcher_copies_are_there(launcher: dict[str, Any]) -> None:
    mounts = launcher["file_mounts"]
    assert {"spaces", "evaluators", "search", "scripts", "pyproject.toml"} <= set(mounts.values())
    assert all((ROOT / local).exists() for local in mounts.values())


def test_nodes_of_the_launcher_start_with_authentication(launcher: dict[str, Any]) -> None:
    commands = launcher["head_start_ray_commands"] + launcher["worker_start_ray_commands"]
    starts = [command for command in commands if "ray start" in command]
    assert len(starts) == 2
    assert all(command.startswith("export RAY_AUTH_MODE=token;") for command in starts)
    assert "--dashboard-host=127.0.0.1" in starts[0]
    assert "IpPermissions" not in launcher["provider"]["security_group"]


@pytest.fixture(scope="module")
def manifests() -> dict[str, dict[str, Any]]:
    documents = yaml.safe_load_all((FOLDER / "rayjob.yaml").read_text())
    return {document["kind"]: document for document in documents}


def test_kubernetes_job_resumes_and_authenticates(manifests: dict[str, dict[str, Any]]) -> None:
    job = manifests["RayJob"]
    cluster = job["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    containers = [c for group in groups for c in group["template"]["spec"]["containers"]]
    assert job["apiVersion"] == "ray.io/v1"
    assert "scripts/cluster/sweep.sh" in job["spec"]["entrypoint"]
    assert job["spec"]["backoffLimit"] > 0
    assert job["spec"]["shutdownAfterJobFinishes"]
    assert cluster["authOptions"] == {"mode": "token"}
    assert all({"name": "RAY_AUTH_MODE", "value": "token"} in c["env"] for c in containers)
    assert len({c["image"] for c in containers}) == 1


def test_kubernetes_nodes_share_a_volume_and_workers_are_spot(manifests: dict[str, dict[str, Any]]) -> None:
    cluster = manifests["RayJob"]["spec"]["rayClusterSpec"]
    claim = manifests["PersistentVolumeClaim"]
    (worker,) = cluster["workerGroupSpecs"]
    pods = [group["template"]["spec"] for group in (cluster["headGroupSpec"], worker)]
    claims = [v["persistentVolumeClaim"]["claimName"] for pod in pods for v in pod["volumes"]]
    mounts = [m["mountPath"] for pod in pods for c in pod["containers"] for m in c["volumeMounts"]]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    assert claims == [claim["metadata"]["name"]] * 2
    assert mounts == ["/mnt/espalier"] * 2
    assert "--out /mnt/espalier/" in manifests["RayJob"]["spec"]["entrypoint"]
    assert cluster["enableInTreeAutoscaling"]
    assert worker["minReplicas"] == 0 < worker["maxReplicas"]
    assert "nvidia.com/gpu" in worker["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert set(pods[1]["nodeSelector"]) <= {toleration["key"] for toleration in pods[1]["tolerations"]}


def test_kubernetes_pods_are_those_that_the_policy_guards(manifests: dict[str, dict[str, Any]]) -> None:
    cluster = manifests["RayJob"]["spec"]["rayClusterSpec"]
    labels = manifests["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"]
    inside, submitters = manifests["NetworkPolicy"]["spec"]["ingress"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        assert labels.items() <= group["template"]["metadata"]["labels"].items()
    assert inside == {"from": [{"podSelector": {"matchLabels": labels}}]}
    assert submitters["ports"] == [{"port": 8265}]
    assert submitters["from"][0]["podSelector"]["matchLabels"] == {
        "job-name": manifests["RayJob"]["metadata"]["name"]
    }


def test_every_command_of_this_kind_is_the_file_s_first() -> None:
    for name, start in {
        "ray-cluster.yaml": "ray exec",
        "rayjob.yaml": "kubectl apply",
        "slurm.sh": "sbatch",
    }.items():
        lines = [line for line in (FOLDER / name).read_text().splitlines() if not line.startswith("#!")]
        assert lines[1].removeprefix("#").strip().startswith(start)


# What the scripts call, replaced: each notes how it was called. `ray start` stays until it is stopped,
# and the driver waits for the workers.
STUBS = {
    "scontrol": 'if [ "$1" = show ]; then printf "192.0.2.1\\nnode2\\nnode3\\n"; fi',
    "srun": 'while [ "${1#-}" != "$1" ]; do shift; done; exec "$@"',
    "ray": """
        if [ "$1" = start ]; then
            [ -z "${BROKEN:-}" ] || exit 1
            stat -c %a "$RAY_AUTH_TOKEN_PATH" >>"$NOTES/mode"
            cat "$RAY_AUTH_TOKEN_PATH" >"$NOTES/token"
            echo "$RAY_AUTH_MODE" >"$NOTES/started"
            echo $$ >>"$NOTES/pids"
            case "$*" in *--head*) ;; *) echo >"$NOTES/joined" ;; esac
            exec sleep 120
        fi
        [ -e "$NOTES/started" ]""",
    "python": f"""
        [ "$2" = search.run ] || exec {sys.executable} "$@"
        read -r <"$NOTES/joined"
        trap 'kill $!; exit 1' INT
        echo "$RAY_AUTH_MODE" >"$NOTES/driver"
        [ -z "${{WAIT:-}}" ] || {{ echo ready >"$WAIT"; sleep 120 & wait; }}
        exit "${{CODE:-0}}" """,
}


class SlurmNode:
    """A folder with the project's cluster scripts, and programs that only note how they are called."""

    def __init__(self, folder: Path) -> None:
        self.notes, self.home, self.project = folder / "notes", folder / "home", folder / "project"
        for new in (self.notes, self.home, self.project / "scripts", folder / "bin"):
            new.mkdir(parents=True)
        os.mkfifo(self.notes / "joined")
        shutil.copytree(FOLDER, self.project / "scripts" / "cluster")
        for name, body in STUBS.items():
            program = folder / "bin" / name
            program.write_text(f'#!/usr/bin/env bash\necho "{name} $*" >>"$NOTES/calls"\n{body}\n')
            program.chmod(0o755)
        self.environment = os.environ | {
            "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "NOTES": str(self.notes),
            "HOME": str(self.home),
            "SLURM_SUBMIT_DIR": str(self.project),
            "SLURM_JOB_ID": "7",
            "SLURM_JOB_NODELIST": "node[1-3]",
            "SLURM_CPUS_PER_TASK": "4",
        }
        self.environment.pop("RAY_AUTH_TOKEN", None)

    def start(self, *options: str, **environment: str) -> subprocess.Popen[str]:
        """Slurm runs a copy of the script, in a folder of its own."""
        return subprocess.Popen(
            ["bash", FOLDER / "slurm.sh", *options],
            env=self.environment | environment,
            cwd=self.home,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def calls(self, *programs: str) -> list[str]:
        """How these programs were called, ours for a token left out."""
        lines = (self.notes / "calls").read_text().splitlines()
        return [line for line in lines if line.startswith(programs) and not line.startswith("python -c")]


@pytest.fixture
def node(tmp_path: Path) -> SlurmNode:
    return SlurmNode(tmp_path)


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, errors = process.communicate(timeout=60)
    return process.returncode, errors


def test_slurm_starts_head_then_workers_then_the_driver(node: SlurmNode, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert finish(node.start("--out", str(out), "--budget", "9")) == (0, "")
    head, srun, worker = node.calls("ray start", "srun")
    assert "--head --node-ip-address=192.0.2.1 --port=20007" in head
    assert set(node.calls("ray health")) == {"ray health-check --address 192.0.2.1:20007"}
    assert srun.startswith(
        "srun --nodes=2 --ntasks=2 --ntasks-per-node=1 --cpus-per-task=4 --nodelist=node2,node3 "
    )
    assert worker.endswith("--address=192.0.2.1:20007")
    (driver,) = node.calls("python -m")
    assert driver == f"python -m search.run --executor ray --address 192.0.2.1:20007 --out {out} --budget 9"
    assert "requeue" not in " ".join(node.calls("scontrol"))


def test_slurm_keeps_the_token_in_a_private_file_and_removes_it(node: SlurmNode, tmp_path: Path) -> None:
    assert finish(node.start("--out", str(tmp_path / "out")))[0] == 0
    token = (node.notes / "token").read_text()
    assert re.fullmatch("[0-9a-f]{64}", token)
    assert set((node.notes / "mode").read_text().split()) == {"600"}
    assert token not in (node.notes / "calls").read_text()
    assert (node.notes / "driver").read_text() == "token\n"
    assert list(node.home.iterdir()) == []


def test_slurm_leaves_no_process_behind(node: SlurmNode, tmp_path: Path) -> None:
    assert finish(node.start("--out", str(tmp_path / "out"), CODE="3"))[0] == 3
    pids = [int(pid) for pid in (node.notes / "pids").read_text().split()]
    assert len(pids) == 2
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_slurm_goes_on_with_a_run_that_is_there(node: SlurmNode, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "config.json").touch()
    assert finish(node.start(f"--out={out}"))[0] == 0
    assert " --executor ray --resume " in node.calls("python -m")[0]


@pytest.mark.parametrize(("received", "requeues"), [(signal.SIGUSR1, 1), (signal.SIGTERM, 0)])
def test_slurm_stops_the_driver_and_queues_the_job_again_near_its_limit(
    node: SlurmNode, tmp_path: Path, received: signal.Signals, requeues: int
) -> None:
    ready = tmp_path / "ready"
    os.mkfifo(ready)
    process = node.start("--out", str(tmp_path / "out"), WAIT=str(ready))
    assert ready.read_text() == "ready\n"
    process.send_signal(received)
    code, _ = finish(process)
    assert code == (0 if requeues else 1)
    assert node.calls("scontrol requeue") == ["scontrol requeue 7"] * requeues
    assert list(node.home.iterdir()) == []


def test_slurm_says_when_ray_does_not_start(node: SlurmNode, tmp_path: Path) -> None:
    code, errors = finish(node.start("--out", str(tmp_path / "out"), BROKEN="yes"))
    assert (code, errors) == (1, "slurm.sh: Ray did not start on 192.0.2.1; see above.\n")
    assert node.calls("python -m", "srun") == []


def test_slurm_is_submitted_from_the_root(node: SlurmNode, tmp_path: Path) -> None:
    code, errors = finish(node.start("--out", "out", SLURM_SUBMIT_DIR=str(tmp_path)))
    assert (code, errors) == (2, f"slurm.sh: {tmp_path}: submit from the project's root.\n")


def test_sweep_needs_a_run_folder(node: SlurmNode) -> None:
    done = subprocess.run(
        ["bash", FOLDER / "sweep.sh", "--budget", "9"], env=node.environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "--out" in done.stderr
    assert not (node.notes / "calls").exists()
