#!/bin/sh
# Starts the app. The first start installs it into .venv-streamlit; arguments go to streamlit.
set -eu
CDPATH='' cd -- "$(dirname -- "$0")"

VENV=.venv-streamlit sh ../../scripts/install.sh examples/streamlit/requirements.txt
exec ../../.venv-streamlit/bin/streamlit run main.py "$@"
