#!/usr/bin/env bash
# Run a sweep on the Ray cluster that this node belongs to, or go on with the one in --out:
#     bash scripts/cluster/sweep.sh --task digits --budget 200 --out DIR --storage-path DIR
# Options go to `python -m search.run`; the same command, given again after any kind of end, goes on.
set -euo pipefail

out=""
previous=""
for argument in "$@"; do
    [ "$previous" != --out ] || out="$argument"
    [ "${argument#--out=}" = "$argument" ] || out="${argument#--out=}"
    previous="$argument"
done
if [ -z "$out" ]; then
    echo "sweep.sh: --out '': name a run folder on a file system that outlives this node." >&2
    exit 2
fi
# With an open cluster, anybody who reaches its ports can run code here.
export RAY_AUTH_MODE=token
resume=()
[ ! -e "$out/config.json" ] || resume=(--resume)
exec python -m search.run --executor ray "${resume[@]}" "$@"
