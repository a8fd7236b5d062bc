#!/usr/bin/env bash
# Runs the tests that need no engines on the newest Python of this machine, 3.13 or newer, in .venv-newest. What is given
# is passed on to pytest. PYTHON names the interpreter; `--find` as the first word only says which one it would be.
#
# Looked for: PATH, pyenv's versions, uv's. Where none is new enough, uv is asked to fetch one. Where that cannot be
# done either, this says so and ends well: such a machine has nothing newer to run them on.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

lock=requirements/dev.txt
venv=.venv-newest
fail() {
    printf 'cannot test on the newest Python: %s\n' "$*" >&2
    exit 1
}

# "3.13.0" of a released CPython that is new enough and can make a venv; nothing of any other program.
version_of() {
    timeout 20 "$1" -I -c '
import ensurepip, sys, venv
v = sys.version_info
if v >= (3, 13) and v.releaselevel == "final" and sys.implementation.name == "cpython":
    print("%d.%d.%d" % v[:3])' </dev/null 2>/dev/null || true
}

uv_pythons() { echo "${UV_PYTHON_INSTALL_DIR:-${XDG_DATA_HOME:-$HOME/.local/share}/uv/python}"; }

candidates() {
    local folder
    IFS=: read -ra folders <<<"$PATH"
    for folder in "${folders[@]}"; do
        compgen -G "$folder/python3" || true
        compgen -G "$folder/python3.[1-9][0-9]" || true
    done
    compgen -G "${PYENV_ROOT:-$HOME/.pyenv}/versions/3.*/bin/python3" || true
    compgen -G "$(uv_pythons)/cpython-3.*/bin/python3" || true
}

find_newest() {
    local program version
    while read -r program; do
        version=$(version_of "$program")
        [[ -z $version ]] || printf '%s %s\n' "$version" "$program"
    done < <(candidates) | sort -sVk1,1 | tail -n 1
}

# Bounded in time: a network that swallows packets would hold it up for minutes.
fetch_by_uv() {
    local uv
    if ! uv=$(command -v uv); then
        [[ -x .venv/bin/python ]] || return 1
        uv=$venv.uv/bin/uv # the locked one, in an environment of its own as `make lock` has it
        timeout 120 .venv/bin/python -m venv "$venv.uv" &&
            timeout 120 "$venv.uv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input --retries 1 \
                --require-hashes --only-binary=:all: -r requirements/lock.txt || return 1
    fi
    UV_HTTP_TIMEOUT=20 timeout 180 "$uv" python install --no-progress --no-bin </dev/null
}

if [[ -n ${PYTHON:-} ]]; then
    found="$(version_of "$PYTHON") $PYTHON"
    [[ $found != " "* ]] || fail "PYTHON=$PYTHON is no Python 3.13 or newer with venv; type: make test-newest PYTHON=python3.13"
else
    found=$(find_newest)
    if [[ -z $found ]]; then
        log=$(mktemp)
        fetch_by_uv >"$log" 2>&1 || true
        rm -rf "$venv.uv"
        found=$(find_newest)
        why=$(tail -n 1 "$log" | sed 's/^ *//')
        rm -f "$log"
    fi
fi
if [[ -z $found ]]; then
    echo "newest: no Python 3.13 or newer is here, and uv gives none${why:+ ($why)}: nothing is tested on it"
    exit 0
fi
python=${found#* }
if [[ ${1:-} == --find ]]; then
    echo "$python"
    exit 0
fi

# As scripts/setup.sh stamps .venv: by what it is made of, and where it is.
stamp="$PWD $found $(cat -- "$lock" pyproject.toml scripts/newest.sh | sha256sum | cut -d' ' -f1)"
exec 9<scripts/newest.sh
flock 9
if ! [[ -x $venv/bin/python && -r $venv/.stamp && $(<"$venv/.stamp") == "$stamp" ]]; then
    echo "newest: making $venv with Python ${found%% *} ($python)"
    rm -rf "$venv"
    "$python" -m venv "$venv" || fail "$python could not make $venv (above); free some disk space, then type: make test-newest"
    pip() { "$venv/bin/python" -m pip --quiet --disable-pip-version-check --no-input "$@"; }
    # Wheels only, as in .venv: where a package has none for this Python, the lock is too old for it.
    pip install --require-hashes --only-binary=:all: -r "$lock" ||
        fail "pip did not install what $lock names (above); check the network, or type: make lock UPGRADE=1"
    pip install --no-deps --no-build-isolation --no-index -e . ||
        fail "pip did not install this checkout (above); mend pyproject.toml, then type: make test-newest"
    pip check >/dev/null || fail "$lock lacks something that pyproject.toml asks for; type: make lock"
    printf '%s' "$stamp" >"$venv/.stamp"
fi
flock -u 9
exec "$venv/bin/pytest" -n auto "$@"
