#!/usr/bin/env bash
# Set up and run everything that must pass: ruff, mypy, pytest. Options go to pytest.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

install dev
cd "$root"
bin="$root/.venv/bin"
[ -n "${ESPALIER_DATA:-}" ] || echo "$name: ESPALIER_DATA is not set: tests on CIFAR-10 are skipped."
"$bin/ruff" check .
"$bin/ruff" format --check .
"$bin/mypy"
"$bin/python" -m pytest -n "${ESPALIER_TEST_WORKERS:-auto}" --dist worksteal -rs "$@"
