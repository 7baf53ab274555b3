#!/bin/sh
# Makes the virtual environment from a lock: install.sh [requirements file, default requirements.txt].
# PYTHON names the interpreter, VENV the directory. Says and does nothing when everything is there.
set -eu
CDPATH='' cd -- "$(dirname -- "$0")/.."

lock=${1:-requirements.txt}
venv=${VENV:-.venv}
# A copy of the lock, written last: without it an installation was interrupted, and nothing in it is trusted.
stamp=$venv/installed.txt

say() { printf '%s\n' "$*" >&2; }
fail() { say "$@" && exit 1; }

# It is deleted and made anew, so it must be a directory that can only be ours.
case $venv in
*/* | *[!A-Za-z0-9._-]*) fail "VENV=$venv: give a plain name such as .venv-3.13" ;;
.venv*) ;;
*) fail "VENV=$venv: the name must begin with .venv" ;;
esac

minor_version() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }

# The first interpreter that is new enough and can make environments. Each is run: a name on PATH may be a shim.
find_python() {
    python='' seen='' bare=''
    for name in "$@"; do
        version=$(minor_version "$name") || continue
        seen="$seen $name ($version)"
        "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || continue
        if "$name" -c 'import ensurepip, venv' 2>/dev/null; then
            python=$name
            return
        fi
        bare=${bare:-$name}
    done
}

# Locks that bring all of requirements.txt, and more.
more() {
    for other in otel jwt mcp chatkit postgres vectors all dev; do
        if cmp -s "requirements-$other.txt" "$stamp"; then return; fi
    done
    return 1
}

installed() {
    cmp -s "$lock" "$stamp" || { [ "$lock" = requirements.txt ] && more; } || return 1
    version=$(minor_version "$venv/bin/python") || return 1
    [ -z "${PYTHON:-}" ] || [ "$version" = "$(minor_version "$PYTHON")" ]
}

install_with_uv() {
    uv venv --quiet ${python:+--python "$python"} "$venv"
    uv pip install --quiet --python "$venv/bin/python" --require-hashes -r "$lock"
}

install_with_pip() {
    "$python" -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r "$lock"
}

if installed; then exit; fi

if [ -n "${PYTHON:-}" ]; then
    find_python "$PYTHON"
else
    find_python python3.13 python3.12 python3.11 python3.14 python3 python
fi

if command -v uv >/dev/null; then
    python=${python:-$bare}
    [ -n "$python" ] || [ -z "${PYTHON:-}" ] || fail "PYTHON=$PYTHON is not Python 3.11 or newer."
    installer=uv
elif [ -n "$python" ]; then
    installer=pip
elif [ -n "$bare" ]; then
    fail "$bare cannot make virtual environments: its venv or ensurepip module is missing." \
        "On Debian and Ubuntu: apt install python$(minor_version "$bare")-venv"
else
    fail "Parley needs Python 3.11 or newer. Found:${seen:- none}." \
        "Install one, or name it: PYTHON=/path/to/python3.13"
fi

say "Installing $lock into $venv with $installer ..."
rm -rf -- "$venv"
"install_with_$installer"
cp -- "$lock" "$stamp.new"
mv -- "$stamp.new" "$stamp"
