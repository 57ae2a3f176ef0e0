#!/usr/bin/env bash
# On a machine with an NVIDIA GPU: build, GPU tests, the demo on cuda, per-step times beside the published structure.
# Needs no network; needs torch with CUDA, triton, nvcc, and fastdd's other dependencies for PYTHON (default python3).
# Logs and JSON go to $OUT (default ./bench-out). Every part runs even if one before it failed; exits 1 if any did.
set -u
cd "$(dirname "$0")/.."
OUT=${OUT:-$PWD/bench-out}
PYTHON=${PYTHON:-python3}
mkdir -p "$OUT"
export PYTHONUNBUFFERED=1
failed=()

part() { # NAME COMMAND...: run with a log of its own
    local name=$1 start=$SECONDS
    shift
    echo "== $name"
    "$@" >"$OUT/$name.log" 2>&1
    local code=$?
    tail -n 25 "$OUT/$name.log"
    echo "== $name: exit $code, $((SECONDS - start)) s"
    [ $code -eq 0 ] || failed+=("$name")
}

build() {
    FASTDD_BUILD_EXT=1 FASTDD_CUDA=1 "$PYTHON" -m pip install --no-build-isolation --no-deps --no-index -e . &&
        "$PYTHON" -m fastdd.cli info
}

part build build
part gpu-tests "$PYTHON" -m pytest -q -m gpu tests
part demo "$PYTHON" -m fastdd.cli demo --device cuda --out "$OUT/demo-run" --json "$OUT/demo.json"
part steps "$PYTHON" -m fastdd.bench --device cuda --rounds 30 --json "$OUT/steps.json"
nvidia-smi >>"$OUT/build.log" 2>&1 || true
if [ ${#failed[@]} -gt 0 ]; then
    echo "failed: ${failed[*]}"
    exit 1
fi
