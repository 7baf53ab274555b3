#!/bin/sh
# Serves this folder to this machine. PORT names the port.
set -eu
CDPATH='' cd -- "$(dirname -- "$0")"

exec python3 -m http.server --bind 127.0.0.1 "${PORT:-8080}"
