#!/usr/bin/env bash
# Checks the kernels on this machine's GPU, then measures them: under 8 minutes, most of them compiling.
#
#     bench/gpu.sh OUT        writes OUT/gpu_tests.txt, memcheck.txt, racecheck.txt, gpu_cell.{json,md}, gpu_memory.{json,md},
#                         gpu_fused.{json,md}
#
# It needs python3 with torch, triton and pytest, and no network; with pytest-xdist and pytest-timeout it is faster, and
# with compute-sanitizer it also looks for bad accesses and races.  PYTHON=... picks another interpreter.  Every part is
# run, whatever became of the one before; the status is that of the worst.
set -uo pipefail
out=$(realpath -m "${1:?usage: bench/gpu.sh OUT}")
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
mkdir -p "$out"
export PYTHONPATH=$PWD OMP_NUM_THREADS=1
failed=0

has() { "$python" -c "import $1" 2>/dev/null; }
tests() { # seconds, then what pytest is told
    local seconds=$1 && shift
    local options=(-q -p no:cacheprovider -p no:benchmark)
    has xdist && options+=(-n 14)
    has pytest_timeout && options+=(--timeout "$seconds")
    timeout "$((seconds + 10))" "$python" -m pytest "${options[@]}" "$@" 2>&1
}
sanitizer() { # a tool of compute-sanitizer; what it says goes to a file
    if ! command -v compute-sanitizer >/dev/null; then echo "no compute-sanitizer here" >"$out/$1.txt" && return; fi
    PYTORCH_NO_CUDA_MEMORY_CACHING=1 timeout 115 compute-sanitizer --tool "$1" --error-exitcode 1 --print-limit 20 \
        "$python" -m tests.gpu.checked >"$out/$1.txt" 2>&1
}

# The kernels' tests compile what the sanitizers then watch; the tests of whole programs run beside these.
tests 150 tests/gpu/test_shared_product.py tests/gpu/test_linear_memory.py tests/gpu/test_fused.py --durations 20 >"$out/gpu_tests.txt" || failed=1
sanitizer memcheck & memcheck=$!
sanitizer racecheck & racecheck=$!
tests 100 tests/gpu/test_cuda.py --durations 10 >>"$out/gpu_tests.txt" || failed=1
wait "$memcheck" || failed=1
wait "$racecheck" || failed=1
for part in cell memory fused; do
    timeout 70 "$python" "bench/gpu_$part.py" "$out" || failed=1
done
tail -n 25 "$out/gpu_tests.txt"
tail -n 2 "$out/memcheck.txt" "$out/racecheck.txt"
exit "$failed"
