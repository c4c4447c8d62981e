#!/bin/sh
# Make (or bring up to date) the project's own Python environment in .venv.
#
# Does nothing when the environment already fits pyproject.toml; a call after an interrupted one
# goes on. PYTHON=/path/to/python chooses the interpreter, else the first suitable one on PATH.
# LOCKED=1 installs the versions of constraints.txt, which made the published numbers.
set -eu
cd "$(dirname "$0")/.."

venv=.venv
stamp=$venv/.cae-installed
log=$venv/install.log

wanted() { # what the stamp of an up-to-date environment holds
    pwd
    cat pyproject.toml ${LOCKED:+constraints.txt}
}

suitable() { # is "$1" a Python 3.11 or newer that can make a virtual environment?
    command -v "$1" >/dev/null 2>&1 &&
        "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

find_python() {
    for candidate in ${PYTHON:-python3.11 python3.12 python3.13 python3 python}; do
        if suitable "$candidate"; then
            command -v "$candidate"
            return
        fi
    done
    cat >&2 <<'MESSAGE'
No suitable Python found. This project needs Python 3.11 or newer (3.11 to 3.13 are the best
served by ready-made packages) with the modules venv and ensurepip; on Debian and Ubuntu these
are in the package python3-venv. Install one, or name it: make PYTHON=/path/to/python3.12
MESSAGE
    return 1
}

if [ -x $venv/bin/python ] && [ -f $stamp ] && wanted | cmp -s - $stamp; then
    exit 0
fi

if ! $venv/bin/python -m pip --version >/dev/null 2>&1; then
    python=$(find_python)
    echo "Making the environment $venv with $python ($("$python" --version))"
    "$python" -m venv --clear $venv
fi

show_progress() { # every 20 s, how long it has taken and what is being done
    seconds=0
    while sleep 20 >/dev/null 2>&1; do # a `sleep` that outlives this function holds no pipe
        seconds=$((seconds + 20))
        echo "  $seconds s: $(tail -n 1 $log | sed 's/^ *//' | cut -c 1-80)"
    done
}

rm -f $stamp
echo "Installing into $venv: about 3 GB with a CPU build of PyTorch, more with CUDA (once)."
echo "The whole log is $log"
: >$log
show_progress &
progress=$!
trap 'kill $progress 2>/dev/null || true' EXIT
trap 'exit 130' INT TERM
if ! $venv/bin/python -m pip install --disable-pip-version-check --no-compile --progress-bar off \
    ${LOCKED:+-c constraints.txt} -e ".[dev]" >$log 2>&1; then
    tail -n 10 $log >&2
    echo "The installation did not end well; the whole log is $log. The same command goes on" \
        "from here." >&2
    exit 1
fi
echo "Compiling the installed files to bytecode on all cores, so that commands start fast" | tee -a $log
$venv/bin/python -m compileall -q -j 0 $venv/lib >/dev/null 2>&1 || true # on all cores, as pip would not
wanted >$stamp
echo "The environment $venv is ready"
