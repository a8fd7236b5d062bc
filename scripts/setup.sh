#!/usr/bin/env bash
# Makes .venv: the locked packages, every file checked against its hash, and this checkout installed as editable.
# PYTHON names the interpreter; without it, the first of python3, python3.13, python3.12, python3.11 that will do.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

lock=requirements/dev.txt
fail() {
    printf 'cannot set up: %s\n' "$*" >&2
    exit 1
}

# One stamp for the packages and one for the install of the checkout, made of what they depend on. Not of file times:
# git gives every file a new one. The path is in it because a virtual environment cannot be moved.
digest() { cat -- "$@" | sha256sum | cut -d' ' -f1; }
packages="$PWD $(digest "$lock" scripts/setup.sh)"
project="$packages $(digest pyproject.toml)"

is() { [[ -r .venv/$1 && $(<".venv/$1") == "$2" ]]; }
# Who named an interpreter once need not name it each time; who names another gets that one.
packages_ready() {
    [[ -x .venv/bin/python ]] && is .packages "$packages" && { [[ -z ${PYTHON:-} ]] || is .python "$PYTHON"; }
}
# systemd-python compiles against libsystemd: where the headers come or go, so does it.
journal="$packages $(digest requirements/systemd.txt) $(pkg-config --modversion libsystemd 2>/dev/null || echo none)"
ready() { packages_ready && is .project "$project" && is .journal "$journal"; }

if ready; then exit 0; fi

# Two set-ups of one checkout take turns. The lock is on this very script, so it leaves no file behind.
exec 9<scripts/setup.sh
flock 9
if ready; then exit 0; fi

new_enough() { "$1" -I -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

choose() {
    local name
    if [[ -n ${PYTHON:-} ]]; then
        command -v -- "$PYTHON" >/dev/null || fail "PYTHON=$PYTHON is not a program; type: make setup PYTHON=python3"
        "$PYTHON" -I -c '' 2>/dev/null || fail "PYTHON=$PYTHON does not run; type: make setup PYTHON=python3"
        new_enough "$PYTHON" ||
            fail "$PYTHON is $("$PYTHON" --version 2>&1), and meshd needs 3.11 or newer; type: make setup PYTHON=python3.13"
        printf '%s\n' "$PYTHON"
        return
    fi
    for name in python3 python3.13 python3.12 python3.11; do
        if command -v "$name" >/dev/null && new_enough "$name"; then
            printf '%s\n' "$name"
            return
        fi
    done
    if ! command -v python3 >/dev/null; then
        fail "python3 is not installed; type: sudo apt install python3 python3-venv, then: make setup"
    fi
    fail "python3 is $(python3 --version 2>&1), and meshd needs 3.11 or newer;" \
        "install one and name it, for example: sudo apt install python3.13-venv && make setup PYTHON=python3.13"
}

if ! packages_ready; then
    python=$(choose)
    if ! "$python" -I -c 'import ensurepip, venv' 2>/dev/null; then
        version=$("$python" -I -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        # Debian's default python3 has its venv in python3-venv; another version in a package that says which.
        package=python3-venv
        [[ $python == python3 ]] || package=python$version-venv
        fail "$(command -v "$python") comes without venv and ensurepip; type: sudo apt install $package, then: make setup"
    fi
    echo "setup: making .venv with $("$python" --version)"
    rm -rf .venv
    "$python" -m venv .venv || fail "$python could not make .venv (above); free some disk space, then type: make setup"
    # Wheels only: building a package would fetch build tools that no lock names.
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-input \
        --require-hashes --only-binary=:all: -r "$lock" ||
        fail "pip did not install what $lock names (above); check the network and pip's settings" \
            "(pip config list), then type: make setup"
    printf '%s' "$python" >.venv/.python
    printf '%s' "$packages" >.venv/.packages
fi

# Optional, so what it cannot be built for is said and no failure. Not isolated: setuptools is in the lock.
why_no_journal() {
    if ! pkg-config --exists libsystemd 2>/dev/null; then
        echo "libsystemd's headers are not installed; with them (sudo apt install libsystemd-dev pkg-config gcc) make setup adds it"
    elif ! .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-input --no-build-isolation \
        --require-hashes --only-binary=:all: --no-binary=systemd-python -r requirements/systemd.txt >.venv/.journal.log 2>&1; then
        echo "it could not be built (.venv/.journal.log says why)"
    fi
}
if ! is .journal "$journal"; then
    why=$(why_no_journal)
    [[ -z $why ]] || echo "setup: without systemd-python, which gives the journal its fields: $why"
    printf '%s' "$journal" >.venv/.journal
fi

rm -f .venv/.project
.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-input \
    --no-deps --no-build-isolation --no-index -e . ||
    fail "pip did not install this checkout (above); mend pyproject.toml, then type: make setup"
.venv/bin/python -m pip check >/dev/null ||
    fail "$lock lacks something that pyproject.toml asks for (.venv/bin/pip check says what); type: make lock setup"
printf '%s' "$project" >.venv/.project
echo "setup: meshd and meshctl are in .venv/bin"
