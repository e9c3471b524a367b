#!/usr/bin/env bash
# A sweep on Slurm, in one command, from the project's root; all folders on a file system that all nodes share:
#     sbatch scripts/cluster/slurm.sh --task digits --budget 200 --resources gpu=1,cpu=8 --out DIR --storage-path DIR
# Options go to `python -m search.run`. Nodes, GPUs and time are sbatch's: sbatch --nodes=4 --gpus-per-node=8 ...
# Near its time limit, or when preempted, the job stops, is queued again and goes on from the run folder.
#SBATCH --job-name=espalier
#SBATCH --output=espalier-%j.log
#SBATCH --open-mode=append
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-node=2
#SBATCH --exclusive
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --no-kill
#SBATCH --signal=B:USR1@180
# --exclusive, since Ray takes ports and counts memory as if the node were its own. Without it, two sweeps of one
# user on a node are kept apart by the port and the folder below.
# --no-kill: the job outlives a worker node that breaks; without it, Slurm ends all of it.

set -euo pipefail
# Jobs in process groups of their own, which SIGINT reaches; without job control bash makes them ignore it.
set -m

cd "$SLURM_SUBMIT_DIR"
if [ ! -e scripts/cluster/sweep.sh ]; then
    echo "slurm.sh: $SLURM_SUBMIT_DIR: submit from the project's root." >&2
    exit 2
fi
if [ -e .venv/bin/activate ]; then
    source .venv/bin/activate
fi

head_job="" workers_job="" driver_job="" stopping="" again=""
private="$(mktemp -d "${ESPALIER_PRIVATE:-$HOME}/.espalier-$SLURM_JOB_ID-XXXXXX")"

clean_up() {
    trap - EXIT USR1 TERM
    local job
    for job in $driver_job $workers_job $head_job; do
        kill -TERM "$job" 2>/dev/null || true
    done
    for job in $driver_job $workers_job $head_job; do
        wait "$job" 2>/dev/null || true
    done
    rm -rf "$private" "/tmp/espalier-$SLURM_JOB_ID"
}
# SIGINT is what Ctrl-C sends: the driver records what it has and leaves a run that can be resumed.
stop() {
    stopping=yes interrupted=yes
    [ -z "$driver_job" ] || kill -INT "$driver_job" 2>/dev/null || true
}
trap clean_up EXIT
trap 'again=yes; stop' USR1
trap stop TERM

# A token for this job alone. It is in a file, since command lines can be read by every user of a node.
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$private/token"
(umask 077 && python -c 'import secrets; print(secrets.token_hex(32), end="")' >"$RAY_AUTH_TOKEN_PATH")
# Ray's nodes wait 30 s after SIGTERM for web services, of which there are none here.
export RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S=0

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
# The address by which the other nodes know this one; Debian's nodes know themselves as 127.0.1.1.
address="$(python -c '
import socket, sys
address = socket.gethostbyname(sys.argv[1])
if address.startswith("127."):
    from ray.util import get_node_ip_address
    address = get_node_ip_address()
print(address)
' "${nodes[0]}")"
# Below the ports that the system hands out by itself, above those of Ray's workers (10002 to 19999).
port=$((20000 + SLURM_JOB_ID % 10000))
start=(ray start --num-cpus="${SLURM_CPUS_PER_TASK:-1}" --temp-dir="/tmp/espalier-$SLURM_JOB_ID"
    --disable-usage-stats --block)

"${start[@]}" --head --node-ip-address="$address" --port="$port" --include-dashboard=false &
head_job=$!
until [ -n "$stopping" ] || ray health-check --address "$address:$port" >/dev/null 2>&1; do
    if ! kill -0 "$head_job" 2>/dev/null; then
        echo "slurm.sh: Ray did not start on ${nodes[0]}; see above." >&2
        exit 1
    fi
    sleep 2
done

others=$((${#nodes[@]} - 1))
if [ "$others" -gt 0 ]; then
    # srun does not take --cpus-per-task from the job by itself since Slurm 22.05.
    srun --nodes="$others" --ntasks="$others" --ntasks-per-node=1 --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" \
        --nodelist="$(IFS=,; echo "${nodes[*]:1}")" --kill-on-bad-exit=0 \
        "${start[@]}" --address="$address:$port" &
    workers_job=$!
fi

code=1
if [ -z "$stopping" ]; then
    bash scripts/cluster/sweep.sh --address "$address:$port" "$@" &
    driver_job=$!
    # A signal ends `wait` before the driver has ended; its code is that of the `wait` that none ended.
    interrupted=yes
    while [ -n "$interrupted" ]; do
        interrupted="" code=0
        wait "$driver_job" || code=$?
    done
    driver_job=""
fi

if [ -n "$again" ] && [ "$code" -ne 0 ]; then
    clean_up
    exec scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
