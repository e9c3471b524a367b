#!/usr/bin/env bash
# Set up and search a Pareto front of networks for handwritten digits. Options go to `python -m search.run`;
# relative paths start at the project's root.
# A finished quickstart is shown again, a broken one goes on.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

install ""
cd "$root"
out=runs/quickstart
previous=""
for argument in "$@"; do
    [ "$previous" != --out ] || out="$argument"
    [ "${argument#--out=}" = "$argument" ] || out="${argument#--out=}"
    previous="$argument"
done
if [ -e "$out/config.json" ]; then
    exec "$PYTHON_IN_VENV" -m search.run --resume --out "$out" "$@"
fi
exec "$PYTHON_IN_VENV" -m search.run --budget 24 --out "$out" "$@"
