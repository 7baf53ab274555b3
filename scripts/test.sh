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
"$bin/python" -m mypy
"$bin/lint-imports" --no-logo
"$bin/python" -m pytest --cov

# The engine and the wire formats are where a token could get lost: no line or branch of them goes untested. Quiet
# when all is well, so that pytest's summary comes last.
gate=$("$bin/python" -m coverage report --include='chat/*,handlers/formats/*' --fail-under=100 2>&1) || {
    printf '%s\n' "$gate"
    exit 1
}
