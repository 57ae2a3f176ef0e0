"""What the tests of ranks run on one process and on several: ``job.py DIR`` on every rank."""

import contextlib
import importlib.util
import os
import signal
import sys
import threading
import time
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

import fastdd
from fastdd import cli
from fastdd.core import ranks
from fastdd.data import Dataset

SMALL = {"ipc": 2, "width": 8, "depth": 2, "batch_real": 12, "device": "cpu"}
RUNS = {
    "dm-none": {"iterations": 5, "checkpoint_seconds": 0},
    "dm-fairdd": {"iterations": 5, "debias": "fairdd", "init": "noise", "eval_every": 2, "eval_epochs": 1},
    "dm-ldam": {"iterations": 2, "debias": "fairdd-ldam", "sampling": "stratified"},
    "dm-kde": {"iterations": 3, "debias": "kde", "sampling": "weighted"},
    "dc-fairdd": {
        **{"iterations": 2, "method": "dc", "debias": "fairdd", "outer_loop": 2, "inner_loop": 2},
        **{"eval_every": 1, "eval_nets": 1, "eval_epochs": 1},
    },
    "dsa-none": {"iterations": 1, "method": "dsa", "outer_loop": 2, "inner_loop": 1},
    "idc-fairdd": {"iterations": 2, "method": "idc", "debias": "fairdd", "outer_loop": 2, "train_images": 64},
    "dream-none": {"iterations": 1, "method": "dream", "outer_loop": 3, "interval": 2, "train_images": 64},
}


def digits() -> Dataset:
    """c-digits, tested on 60 images: figures are compared, not looked at."""
    data = fastdd.data.load("c-digits")
    return replace(data, test=data.test.take(np.arange(60)))


def work(out: Path) -> None:
    """Everything that ranks share, into files."""
    data = digits()
    warnings.simplefilter("ignore", RuntimeWarning)
    kde = {
        "class": fastdd.kde_weights(data, steps=3, device="cpu"),
        "batch": fastdd.kde_weights(data, steps=2, scope="batch", batch=50, device="cpu"),
        "dataset": fastdd.kde_weights(data, steps=2, scope="dataset", device="cpu"),
    }
    if importlib.util.find_spec("faiss"):  # one segment, which is cut
        kde["knn"] = fastdd.kde_weights(data, steps=2, scope="dataset", density="knn", k=64, device="cpu")
    if ranks.rank() == 0:
        for name, made in kde.items():
            made.save(out / f"{name}.safetensors")
    for name, settings in RUNS.items():
        weights = kde["class"] if name == "dm-kde" else None
        made = fastdd.distill(data, out=out / name, weights=weights, **{**SMALL, **settings})
    counts = fastdd.evaluate(made, data, nets=3, epochs=1, device="cpu").counts
    torch.save([(each.right, each.total) for each in counts], out / f"counts-{ranks.rank()}.pt")
    settings = {"num_experts": 3, "epochs": 2, "width": 4, "debias": "fairdd", "device": "cpu"}
    fastdd.train_experts(data, out=out / "experts", **settings)


def refusals(out: Path) -> None:
    """What several ranks are told, by rank, into files."""
    data = digits()
    told = []

    def attempt(call, *arguments, **settings):
        try:
            call(*arguments, **settings)
        except (ValueError, RuntimeError, KeyboardInterrupt) as error:
            told.append(f"{type(error).__name__}: {error}")
        else:
            told.append("nothing")

    attempt(fastdd.distill, data, seed=ranks.rank(), iterations=1, **SMALL)
    attempt(fastdd.train_experts, data, out=out / "more", processes=2, device="cpu")
    few = {"expert_epochs": 1, "max_start_epoch": 1, "syn_steps": 1, "device": "cpu"}
    attempt(fastdd.distill, data, method="mtt", ipc=1, experts=out / "experts", iterations=1, **few)
    attempt(fastdd.distill, data, method="ncfm", ipc=1, experts=out / "experts", iterations=1, device="cpu")
    (out / "full").mkdir(exist_ok=True)
    (out / "full" / "stray").touch()
    attempt(fastdd.distill, data, out=out / "full", iterations=1, **SMALL)
    attempt(ranks.first, lambda: np.zeros(2) + np.zeros(3))

    # One rank is asked to stop: all do, with a checkpoint.
    def stop() -> None:
        while not (out / "stopped" / "metrics.jsonl").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    if ranks.rank() == 1:
        threading.Thread(target=stop, daemon=True).start()
    attempt(fastdd.distill, data, out=out / "stopped", iterations=10**6, checkpoint_seconds=1000, **SMALL)
    (out / f"told-{ranks.rank()}.txt").write_text("\n".join(told))


def commands(out: Path) -> None:
    """The command line, whose last word ends the process."""
    for arguments in (
        ["evaluate", str(out / "dm-fairdd"), "--nets", "2", "--epochs", "1", "--device", "cpu"],
        ["distill", "--dataset", "c-digits", "--ipc", "0"],
    ):
        with contextlib.suppress(SystemExit):
            cli.main(arguments)


if __name__ == "__main__":
    work(Path(sys.argv[1]))
    refusals(Path(sys.argv[1]))
    commands(Path(sys.argv[1]))
