"""Published scripts, as they are, to their end: where $FASTDD_UPSTREAM names a folder of checkouts."""

import gzip
import json
import os
import shutil
import struct
import subprocess
import sys

import numpy as np
import pytest


@pytest.fixture
def checkout(public_checkout, tmp_path):
    """``checkout(family)``: a copy, with few gray images where its scripts look for MNIST and Fashion-MNIST."""

    def copy(family):
        shutil.copytree(
            public_checkout(family), tmp_path / "code", ignore=shutil.ignore_patterns(".git", "__pycache__")
        )
        return tmp_path / "code"

    for name in ("MNIST", "FashionMNIST"):
        raw = tmp_path / "data" / name / "raw"
        raw.mkdir(parents=True)
        for stem, each in (("train", 20), ("t10k", 10)):
            labels = np.repeat(np.arange(10, dtype=np.uint8), each)
            images = np.random.default_rng(0).integers(0, 256, (len(labels), 28, 28), dtype=np.uint8)
            for kind, array in (("images", images), ("labels", labels)):
                header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
                path = raw / f"{stem}-{kind}-idx{array.ndim}-ubyte.gz"
                path.write_bytes(gzip.compress(header + array.tobytes()))
    # A progress bar that FairDD imports.
    (tmp_path / "bars").mkdir()
    (tmp_path / "bars" / "tqdm.py").write_text("tqdm, trange = (lambda items, **_: items), (lambda n, **_: range(n))\n")
    return copy


def run(folder, script, *arguments):
    """The rows of the summary by name, and what the script and the command printed."""
    top = folder.parent
    words = [script, *arguments, "--data_path", top / "data", "--save_path", top / "out"]
    done = subprocess.run(
        [sys.executable, "-m", "fastdd.run", "--verify", "--json", top / "summary.json", *map(str, words)],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(top / "bars")},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Final Results" in done.stdout
    return {row["name"]: row for row in json.loads((top / "summary.json").read_text())["rows"]}


SHORT = ("--num_exp", 1, "--num_eval", 1, "--batch_real", 16)


def agreed(rows, *names):
    for name in names:
        row = rows[name]
        assert row["calls"] >= 1, name
        assert (row["checked"], row["agreed"]) == (min(row["calls"], 3), min(row["calls"], 3)), row


def test_distribution_matching(checkout):
    folder = checkout("dc")
    rows = run(
        folder, "main_DM.py", "--dataset", "MNIST", "--ipc", 10, "--Iteration", 1, "--epoch_eval_train", 2, *SHORT
    )
    agreed(rows, "ConvNet", "DiffAugment", "epoch")
    assert not [row for row in rows.values() if row["ours"] is None]
    assert (folder.parent / "out" / "res_DM_MNIST_ConvNet_10ipc.pt").is_file()


def test_gradient_matching(checkout):
    folder = checkout("dc")
    rows = run(folder, "main.py", "--method", "DC", "--dataset", "FashionMNIST", "--ipc", 1, "--Iteration", 1, *SHORT)
    agreed(rows, "ConvNet", "match_loss", "epoch")


def test_fair_distribution_matching_on_a_machine_without_gpu(checkout):
    import torch

    folder = checkout("fairdd")
    options = ("--dataset", "Colored_MNIST_foreground", "--FairDD", "--ipc", 10)
    rows = run(folder, "main_DM.py", *options, "--Iteration", 1, "--epoch_eval_train", 2, *SHORT)
    agreed(rows, "ConvNet", "DiffAugment", "epoch")
    assert rows["epoch_Fairness_Metric"]["calls"] == 1
    if not torch.cuda.is_available():
        assert "not compared: the original raised AssertionError" in rows["epoch_Fairness_Metric"]["notes"][0]
