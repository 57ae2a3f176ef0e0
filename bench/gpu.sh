#!/usr/bin/env bash
# On a machine with an NVIDIA GPU: build, GPU tests, benchmark, the paper's headline row, FAISS; in stages that leave
# their results in $OUT as they go, and that go on where they were stopped. Needs no network. DEVICE=cpu is a dry run.
# bench/gpu.sh --help, and docs/performance-gpu.md, "The next run on a GPU".
cd "$(dirname "$0")/.." || exit 2
exec "${PYTHON:-python3}" tools/gpu_run.py "$@"
