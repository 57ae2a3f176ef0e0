#!/usr/bin/env bash
# On a machine with an NVIDIA GPU, in one go: build, GPU tests, every benchmark case, the demo. DEVICE=cpu is a dry run of
# the same with tiny sizes. Needs no network; needs torch with CUDA, triton, nvcc, and fastdd's other dependencies for
# PYTHON (default python3). Logs, JSON and picture go to $OUT (default ./bench-out), nothing takes longer than LIMIT
# seconds in all (default 540). Every part runs even if one before it failed; exits 1 if any did.
set -u
cd "$(dirname "$0")/.."
OUT=${OUT:-$PWD/bench-out}
PYTHON=${PYTHON:-python3}
DEVICE=${DEVICE:-cuda}
LIMIT=${LIMIT:-540}
mkdir -p "$OUT"
export PYTHONUNBUFFERED=1
failed=()

part() { # NAME COMMAND...: run with a log of its own, in what is left of the time
    local name=$1 start=$SECONDS left=$((LIMIT - SECONDS))
    shift
    echo "== $name"
    if [ $left -lt 5 ]; then
        echo "== $name: no time left"
        failed+=("$name")
        return
    fi
    timeout -k 5 "$left" "$@" >"$OUT/$name.log" 2>&1
    local code=$?
    tail -n "${LINES_SHOWN:-25}" "$OUT/$name.log"
    echo "== $name: exit $code, $((SECONDS - start)) s"
    [ $code -eq 0 ] || failed+=("$name")
}

# For the run that the demo makes: only its table is wanted.
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
plot=()
if "$PYTHON" -c "import matplotlib" 2>/dev/null; then plot=(--plot "$OUT/bench.png"); fi
if [ "$DEVICE" = cpu ]; then
    cuda=auto interpret=1 passes=forward size=(--quick)
    demo=(distill --dataset c-digits --ipc 1 --iterations 2 --width 8 --batch-real 8 --out "$scratch/run")
else
    cuda=1 interpret=0 passes='*' size=(--budget 2)
    demo=(demo --out "$scratch/demo")
fi

part build env FASTDD_BUILD_EXT=1 FASTDD_CUDA=$cuda \
    "$PYTHON" -m pip install --no-build-isolation --no-deps --no-index -e .
part info "$PYTHON" -m fastdd.cli info
nvidia-smi >>"$OUT/info.log" 2>&1 || true
part gpu-tests "$PYTHON" -m pytest -q -m gpu tests
# Kernels that never ran on a GPU, beside cuDNN; on CPUs in Triton's interpreter.
part bench-convolutions env TRITON_INTERPRET=$interpret "$PYTHON" -m fastdd.cli bench --device "$DEVICE" "${size[@]}" \
    --case "conv3x3/bf16x3/$passes" --json "$OUT/bench-convolutions.json"
LINES_SHOWN=200 part bench "$PYTHON" -m fastdd.cli bench --device "$DEVICE" "${size[@]}" \
    --json "$OUT/bench.json" ${plot[@]+"${plot[@]}"}
part validate "$PYTHON" -m fastdd.cli bench validate "$OUT/bench.json"
part demo "$PYTHON" -m fastdd.cli "${demo[@]}" --device "$DEVICE"
echo "$SECONDS s"
if [ ${#failed[@]} -gt 0 ]; then
    echo "failed: ${failed[*]}"
    exit 1
fi
