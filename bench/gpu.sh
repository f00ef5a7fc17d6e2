#!/usr/bin/env bash
# Checks the kernels on this machine's GPU, then measures them: a few minutes, most of them compiling.
#
#     bench/gpu.sh OUT        writes OUT/gpu_tests.txt, OUT/gpu_cell.json, OUT/gpu_cell.md
#
# It needs python3 with torch, triton and pytest, and no network.  PYTHON=... picks another interpreter.
set -euo pipefail
out=$(realpath -m "${1:?usage: bench/gpu.sh OUT}")
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
mkdir -p "$out"
export PYTHONPATH=$PWD
parallel=()
"$python" -c 'import xdist' 2>/dev/null && parallel=(-n 12)
"$python" -m pytest tests/gpu -q -p no:cacheprovider "${parallel[@]}" 2>&1 | tee "$out/gpu_tests.txt"
"$python" bench/gpu_cell.py "$out"
