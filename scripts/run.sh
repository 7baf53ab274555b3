#!/bin/sh
# Starts the service. The first start installs it into .venv; arguments go to server.py.
set -eu
CDPATH='' cd -- "$(dirname -- "$0")/.."

unset VENV
sh scripts/install.sh requirements.txt
exec .venv/bin/python server.py "$@"
