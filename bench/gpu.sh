#!/usr/bin/env bash
# Checks the program on this machine's GPU, then measures it: under 8 minutes, most of them compiling.
#
#     bench/gpu.sh OUT [PART...]      the parts, in this order; all of them where none is named:
#
#         kernels     OUT/gpu_tests.txt               the kernels against a loop over tokens in float64
#         sanitizers  OUT/{memcheck,racecheck}.txt    compute-sanitizer over small sizes of them
#         programs    OUT/gpu_programs.txt            whole programs, and their runs
#         cell        OUT/gpu_cell.{json,md}          the self-referential cell, beside the eager form
#         memory      OUT/gpu_memory.{json,md}        the gated delta rule, beside the eager form
#         fused       OUT/gpu_fused.{json,md}         convolutions and a gated norm, beside one operation at a time
#         fla         OUT/gpu_fla.{json,md}           both beside fla-core, where that is installed
#         step        OUT/gpu_step.{json,md}          training steps of hope and a Transformer, d_model 1024
#         long        OUT/gpu_long.{json,md}          a training step over a million tokens
#
# It needs python3 with torch, triton and pytest, what nlc needs, and no network; with pytest-xdist and pytest-timeout
# it is faster.  PYTHON=... picks another interpreter, ALL=... other seconds than 470 for all.  Every part has a time of
# its own and is run, whatever became of the one before, while there is time; the status is 1 where one failed.
set -uo pipefail
out=$(realpath -m "${1:?usage: bench/gpu.sh OUT [PART...]}") && shift
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
parts=" ${*:-kernels sanitizers programs cell memory fused fla step long} "
mkdir -p "$out"
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} OMP_NUM_THREADS=1
ALL=${ALL:-470} # seconds
failed=0

asked() { [[ $parts == *" $1 "* ]]; }
has() { "$python" -c "import $1" 2>/dev/null; }
within() { # seconds that a command may take, of those that are left
    local left=$((ALL - SECONDS))
    ((left > 5)) || { echo "no time is left for: ${*:2}" && return 1; }
    timeout "$(($1 < left ? $1 : left))" "${@:2}"
}
tests() { # seconds, then what pytest is told
    local seconds=$1 && shift
    local options=(-q -p no:cacheprovider -p no:benchmark)
    has xdist && options+=(-n 14)
    has pytest_timeout && options+=(--timeout "$seconds")
    within "$((seconds + 10))" "$python" -m pytest "${options[@]}" "$@" 2>&1
}
sanitizer() { # a tool of compute-sanitizer; what it says goes to a file
    if ! command -v compute-sanitizer >/dev/null; then echo "no compute-sanitizer here" >"$out/$1.txt" && return; fi
    PYTORCH_NO_CUDA_MEMORY_CACHING=1 within 115 compute-sanitizer --tool "$1" --error-exitcode 1 --print-limit 20 \
        "$python" -m tests.gpu.checked >"$out/$1.txt" 2>&1
}
measured() { # seconds, then the script and what it is told
    within "$1" "$python" "bench/gpu_$2.py" "$out" "${@:3}" || { echo "bench/gpu_$2.py failed" && failed=1; }
}

# The kernels' tests compile what the sanitizers then watch; the tests of whole programs run beside these.  Meanwhile
# fla-core, which tries many forms of its kernels, compiles them.
if asked fla && has fla; then
    within 200 "$python" bench/gpu_fla.py "$out/warm" --quick --repeats 1 >/dev/null 2>&1 & warm=$!
fi
if asked kernels; then
    checked=(tests/gpu/test_{shared_product,linear_memory,fused}.py)
    tests 150 "${checked[@]}" --durations 20 >"$out/gpu_tests.txt" || failed=1
    tail -n 25 "$out/gpu_tests.txt"
fi
watching=()
if asked sanitizers; then
    for tool in memcheck racecheck; do sanitizer "$tool" & watching+=($!); done
fi
if asked programs; then
    tests 110 tests/gpu/test_cuda.py --durations 10 >"$out/gpu_programs.txt" || failed=1
    tail -n 15 "$out/gpu_programs.txt"
fi
for one in "${watching[@]}"; do wait "$one" || failed=1; done
asked sanitizers && tail -n 2 "$out/memcheck.txt" "$out/racecheck.txt"
[[ -n ${warm:-} ]] && { wait "$warm"; rm -rf "$out/warm"; }
asked cell && measured 70 cell
asked memory && measured 70 memory
asked fused && measured 40 fused
if asked fla; then
    if has fla; then measured 150 fla; else echo "no fla-core here: not compared"; fi
fi
asked step && measured 110 step
asked long && measured 140 long
exit "$failed"
