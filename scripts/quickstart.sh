#!/usr/bin/env bash
# Set up and search a Pareto front of networks for handwritten digits. Options go to `python -m search.run`.
# A finished quickstart is shown again, a broken one goes on.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

install ""
cd "$root"
arguments=(--budget 24 --out runs/quickstart "$@")
out=runs/quickstart
for ((i = 0; i < ${#arguments[@]}; i++)); do
    case "${arguments[i]}" in
        --out) out="${arguments[i + 1]:-}" ;;
        --out=*) out="${arguments[i]#--out=}" ;;
    esac
done
[ ! -e "$out/config.json" ] || arguments+=(--resume)
exec "$PYTHON_IN_VENV" -m search.run "${arguments[@]}"
