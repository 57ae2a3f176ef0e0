"""``python -m fastdd.bench [--device cpu|cuda] [--rounds N] [--keep-memory] [--json FILE]``"""

import argparse
import json
import os
import platform
import time

import torch

from fastdd import files
from fastdd._malloc import keep_freed_memory
from fastdd._version import __version__
from fastdd.api import pick_device
from fastdd.bench import steps


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m fastdd.bench", description=steps.__doc__)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--rounds", type=int, default=5, help="timed steps a row (default 5)")
    parser.add_argument("--json", help="also write the rows and the machine's description here")
    parser.add_argument(
        "--keep-memory", action="store_true", help="keep freed memory, as the fastdd commands do, for all backends"
    )
    options = parser.parse_args()
    if options.keep_memory:
        keep_freed_memory()
    try:
        device = pick_device(options.device)
    except (RuntimeError, ValueError) as error:
        parser.error(str(error))
    meta = {
        "utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "fastdd": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu",
        "threads": torch.get_num_threads(),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
        "cores": os.cpu_count(),
        "keep_memory": options.keep_memory,
    }
    rows = steps.run(device, options.rounds, steps.random_dataset(), ipc=10, batch_real=256)
    for row in rows:
        ratio = f"{row['speedup_vs_reference_loop']:.2f}x" if "speedup_vs_reference_loop" in row else ""
        checked = {True: "match", False: "NO MATCH", None: ""}[row.get("match")]
        quartiles = f"{row['ms_p25']:.1f} .. {row['ms_p75']:.1f}"
        print(f"{row['case']:16} {row['backend']:15} {row['ms_p50']:10.1f} ms  ({quartiles})  {checked} {ratio}")
    if options.json:
        files.write_text(options.json, json.dumps({"schema": 1, "meta": meta, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
