# Sourced by quickstart.sh and test.sh: the project's root, its virtual environment, one-line errors.

# shellcheck shell=bash

root="$(CDPATH="" cd -- "$(dirname "${BASH_SOURCE[0]}")/.." >/dev/null && pwd)"
name="$(basename "$0")"

# Threads that wait by spinning starve each other on small machines.
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-PASSIVE}"

fail() {
    echo "$name: $1" >&2
    exit "${2:-1}"
}

# Make .venv and install Espalier with the given extras ("" or "dev"); nothing to do when it is there already.
install() {
    local python="${PYTHON:-python3}" extras="$1" venv="$root/.venv" version stamp
    command -v "$python" >/dev/null || fail "PYTHON=$python: no such program; Python 3.11 or newer is needed." 2
    version="$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)" ||
        fail "PYTHON=$python: does not run; Python 3.11 or newer is needed." 2
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        fail "PYTHON=$python is Python $version; Espalier needs 3.11 or newer." 2
    stamp="$venv/.installed-${extras:-base}-$(cksum <"$root/pyproject.toml" | tr ' ' '-')"
    if [ ! -e "$stamp" ]; then
        echo "$name: installing into $venv (PyTorch is large: some minutes)"
        "$venv/bin/python" -m pip --version >/dev/null 2>&1 || "$python" -m venv --clear "$venv" >/dev/null 2>&1 ||
            fail "could not make $venv; on Debian and Ubuntu install python$version-venv."
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
            --editable "$root${extras:+[$extras]}" >"$venv/install.log" 2>&1 ||
            fail "the install failed: $(grep -m1 '^ERROR' "$venv/install.log" || tail -n1 "$venv/install.log") (all of it: $venv/install.log)"
        touch "$stamp"
    fi
    python="$venv/bin/python"
    PYTHON_IN_VENV="$python"
}
