#!/bin/sh
# Makes the environments that are missing and runs the benchmarks: run.sh [names...] [--short] [--peers a,b], see
# benchmarks/README.md. PYTHON names the interpreter. Parley runs in .venv from its own lock, its peers in theirs,
# with the same Python. What cannot be installed is left out of the comparison, and the report says so.
set -eu
CDPATH='' cd -- "$(dirname -- "$0")/.."

unset VENV
sh scripts/install.sh requirements-vectors.txt
python=.venv/bin/python

install_peers() {
    VENV=$1 PYTHON=$python sh scripts/install.sh "$2" ||
        printf '%s\n' "$2 could not be installed: what it brings is left out." >&2
}

case " $* " in
*' --help '* | *' -h '*) ;;
*)
    install_peers .venv-bench benchmarks/requirements.txt
    case " $* " in
    *' --short '*) ;;
    *)
        install_peers .venv-litellm tests/third-party.txt
        install_peers .venv-langgraph benchmarks/langgraph.txt
        install_peers .venv-wordllama benchmarks/wordllama.txt
        ;;
    esac
    ;;
esac

exec "$python" -m benchmarks "$@"
