#!/bin/sh
# Without arguments: every check and every test. With arguments: pytest alone, with these arguments.
# PYTHON names the interpreter, VENV the directory of the virtual environment (.venv).
set -eu
CDPATH='' cd -- "$(dirname -- "$0")/.."

sh scripts/install.sh requirements-dev.txt
bin=${VENV:-.venv}/bin

if [ $# -gt 0 ]; then exec "$bin/python" -m pytest "$@"; fi

"$bin/python" -m ruff check --quiet .
"$bin/python" -m ruff format --check .
# Quiet when all is well: it warns of every part of a statement in which the argued exception was not needed.
found=$("$bin/python" -m bandit --quiet --configfile pyproject.toml --recursive \
    chat doctor handlers knowledge mcp_tools store composition.py server.py settings.py 2>&1) || {
    printf '%s\n' "$found"
    exit 1
}
"$bin/python" -m mypy
"$bin/lint-imports" --no-logo
# Most of the time a test waits for another process, so two at once keep two cores busy; a third makes some wait longer than they can.
"$bin/python" -m pytest --cov --numprocesses=2 --dist=worksteal

# The engine and the wire formats are where a token could get lost: no line or branch of them goes untested. Quiet
# when all is well, so that pytest's summary comes last.
gate=$("$bin/python" -m coverage report --include='chat/*,handlers/formats/*' --fail-under=100 2>&1) || {
    printf '%s\n' "$gate"
    exit 1
}
