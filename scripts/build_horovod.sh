#!/usr/bin/env bash
# Build Horovod from source against the TensorFlow of a virtual environment: scripts/build_horovod.sh [.venv]
#
# Without further settings: processes talk over Gloo, on CPUs, no MPI. HOROVOD_* variables that are set already
# stay as they are, so a build for GPUs is
#   HOROVOD_GPU_OPERATIONS=NCCL HOROVOD_NCCL_HOME=/usr/local/nccl make horovod
set -euo pipefail
cd "$(dirname "$0")/.."
venv="$(cd "${1:-.venv}" && pwd)"
python="$venv/bin/python"
pins=requirements-horovod.txt

# pip keeps a wheel of an earlier build, whatever it was built with: good for the same TensorFlow and no settings.
fresh=(--no-cache-dir --force-reinstall --no-deps)
if env | grep -q '^HOROVOD_'; then first=("${fresh[@]}"); else first=(); fi

without() {  # leave a framework or MPI out, unless asked for
    local with="HOROVOD_WITH_$1" no="HOROVOD_WITHOUT_$1"
    if [[ -z "${!with:-}" ]]; then export "$no=${!no:-1}"; fi
}
without MPI
without PYTORCH
without MXNET
export HOROVOD_WITH_TENSORFLOW="${HOROVOD_WITH_TENSORFLOW:-1}" HOROVOD_WITH_GLOO="${HOROVOD_WITH_GLOO:-1}"
export HOROVOD_CMAKE="${HOROVOD_CMAKE:-$venv/bin/cmake}"
# Under make this holds the flags of make itself; Horovod would start 8 compilers however few cores there are.
MAKEFLAGS="-j$(nproc)"
export MAKEFLAGS TF_CPP_MIN_LOG_LEVEL=3

install() { "$python" -m pip install --quiet --disable-pip-version-check --no-build-isolation "$@"; }

works() {
    "$python" - "${HOROVOD_GPU_OPERATIONS:-}" <<'PY'
import sys

import horovod.tensorflow as hvd

hvd.init()
if sys.argv[1] == "NCCL" and not hvd.nccl_built():
    sys.exit("Horovod was built without NCCL")
PY
}

install -r <(grep -v '^horovod' "$pins")
horovod="$(grep '^horovod' "$pins")"
install "${first[@]}" "$horovod"
if ((${#first[@]})); then
    works
elif ! works 2>/dev/null; then
    echo "the cached wheel of Horovod does not fit this TensorFlow: building it again"
    install "${fresh[@]}" "$horovod"
    works
fi
"$python" -m pip check
