#!/bin/sh
# Installs what is missing, builds the page and serves it. Arguments go to vite preview.
set -eu
CDPATH='' cd -- "$(dirname -- "$0")"

# npm writes that file last: without it, or with one that is older than the lock, something is missing.
if [ -n "$(find package-lock.json -newer node_modules/.package-lock.json 2>&1)" ]; then
    npm ci --no-audit --no-fund --loglevel=error
fi
node_modules/.bin/vite build --logLevel warn
exec node_modules/.bin/vite preview "$@"
