"""Digests of everything that small runs make: ``python tests/golden/record.py FILE`` records them anew.

Recorded before a large change and compared after it: what a run makes is the same to the last bit. Bits depend on the
processor and on torch, so that they are compared where they were recorded only; elsewhere a few values are.
"""

import hashlib
import json
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
import yaml

import fastdd
from fastdd.experts import ExpertSettings
from fastdd.methods import METHODS, configure
from fastdd.session.folder import CHECKPOINT, METRICS

SMALL = {"ipc": 2, "iterations": 3, "batch_real": 12, "width": 8, "depth": 2, "device": "cpu"}
LOOPS = {"iterations": 2, "outer_loop": 2, "inner_loop": 2, "batch_train": 16}
MODES = ("none", "fairdd", "kde", "fairdd-iw", "fairdd-ldam", "fairdd-groupdro")
EXPERTS = {"num_experts": 2, "epochs": 2, "width": 4, "depth": 2, "eval_every": 1, "device": "cpu"}
# Methods that have come since the first digests were recorded.
MATCHED = {"outer_loop": 2, "batch_train": 16, "train_images": 40, "batch_synthetic": 8}
BY_CLASS = {"ipc": 2, "device": "cpu"}
LATER = {
    "datadam": SMALL,
    "idc": {**SMALL, **MATCHED},
    "dream": {**SMALL, **MATCHED},
    "ncfm": {**SMALL, "frequencies": 8, "calibration": 2, "width": 4, "experts": "none"},
    "rded": {**BY_CLASS, "candidates": 8, "crops": 2},
    "sre2l": {**BY_CLASS, "iterations": 3, "batch_classes": 4},
}
TEACHER = {"arch": "ConvNetBN", "width": 8, "depth": 2, "epochs": 1, "device": "cpu"}
STUDENT = {"method": "mtt", "ipc": 2, "iterations": 2, "syn_steps": 2, "expert_epochs": 1, "max_start_epoch": 1}


def where() -> str:
    """What the bits depend on, besides this package."""
    info = Path("/proc/cpuinfo")
    text = info.read_text().splitlines() if info.exists() else []
    model = next((line.split(":")[1].strip() for line in text if line.startswith("model name")), "unknown")
    extension = "with" if importable("fastdd._C") else "without"
    return f"{model}, {torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}, {extension} extension"


def importable(name: str) -> bool:
    try:
        __import__(name)
    except ImportError:
        return False
    return True


def digest(*values) -> str:
    """SHA-256 of arrays, bytes and JSON-able values."""
    sha = hashlib.sha256()
    for value in values:
        if isinstance(value, torch.Tensor):
            value = value.detach().numpy()
        if isinstance(value, np.ndarray):
            sha.update(f"{value.dtype.str}{value.shape}".encode() + np.ascontiguousarray(value).tobytes())
        else:
            sha.update(value if isinstance(value, bytes) else json.dumps(value, sort_keys=True).encode())
    return sha.hexdigest()[:16]


def sketch(values) -> list[float]:
    """A few values, and the mean size of all."""
    flat = torch.as_tensor(values).detach().flatten().double()
    some = flat[torch.linspace(0, len(flat) - 1, 6).long()]
    return [float(f"{value:.5g}") for value in [*some.tolist(), flat.abs().mean().item()]]


# Settings that every method had when the digests were recorded, and those that have come since, at their defaults.
THEN = {"sampling": "random", "precision": "fp32"}
SINCE = {"embed_warmup": 0, "training": "erm", "constants": {}, "metric": "l2"}
SINCE |= {"lr_schedule": "constant", "preset": "published"}
# What rows of results have had since.
ROWS_SINCE = {"group_images"}
# Data sets that have come since.
SETS_SINCE = {"lff", "biased-dd", "dfa-folder"}


def given(settings: dict) -> dict:
    """Settings as they decide a run: those that are absent, None or False by default are not there."""
    then = THEN if "method" in settings else {}
    found = {name: value for name, value in settings.items() if value is not None and value is not False}
    return {**then, **{name: value for name, value in found.items() if SINCE.get(name) != value or name not in SINCE}}


def rows_as_before(file: Path) -> bytes:
    """A file of evaluations without what rows have had since these digests were recorded."""
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    kept = [{name: value for name, value in row.items() if name not in ROWS_SINCE} for row in rows]
    return "".join(json.dumps(row) + "\n" for row in kept).encode()


def run_cases() -> dict[str, dict]:
    """Every method x mode x sampling x precision, and one run of every other setting, by name."""
    cases = {}
    for method, loops in (("dm", {}), ("dc", LOOPS), ("dsa", LOOPS)):
        for mode in MODES:
            for sampling in ("random", "stratified", *(["weighted"] if mode == "kde" else [])):
                for precision in ("fp32", "bf16"):
                    cases[f"{method} {mode} {sampling} {precision}"] = {
                        **{**SMALL, **loops, "method": method, "debias": mode},
                        **{"sampling": sampling, "precision": precision},
                    }
        for name, more in {
            "noise": {"init": "noise"},
            "balanced": {"init": "balanced"},
            "batch norm": {"arch": "ConvNetBN", "width": 8, "depth": 2},
            "low memory": {"memory": "low"},
            "seed": {"seed": 7},
            "momentum": {"momentum": 0.9, "lr_img": 0.3},
            "groups": {"debias": "fairdd", "groups": "kmeans"},
            "kde computed": {"debias": "kde"},
            "lenet": {"arch": "LeNet", "width": None, "depth": None},
            "curve": {"eval_every": 1, "eval_nets": 1, "eval_epochs": 1},
        }.items():
            cases[f"{method} {name}"] = {**SMALL, **loops, "method": method, **more}
    for metric in ("mse", "cos"):
        cases[f"dc {metric}"] = {**SMALL, **LOOPS, "method": "dc", "debias": "fairdd", "metric": metric}
    for mode in ("none", "fairdd", "kde"):
        cases[f"mtt {mode}"] = {**STUDENT, "experts": mode}
    for name, more in {
        "full": {"unroll": "full"},
        "tesla": {"unroll": "tesla", "soft_labels": "teacher"},
        "tesla factor": {"unroll": "tesla", "published_factor": True},
        "learned": {"soft_labels": "learned", "lr_label": 0.1},
        "raw": {"step_size": "raw"},
        "batches": {"batch_syn": 7, "syn_steps": 4, "dsa_strategy": "none"},
        "zca": {"experts": "zca"},
        "bf16 experts": {"experts": "bf16"},
        "noise": {"init": "noise", "lr_img": 10.0},
    }.items():
        cases[f"mtt {name}"] = {**STUDENT, "experts": "none", **more}
    return cases | later_cases()


def later_cases() -> dict[str, dict]:
    """Every later method with the modes that it has of the first ones."""
    cases = {}
    for method, settings in LATER.items():
        for mode in MODES[:3]:
            if not METHODS[method].by_class or mode in METHODS[method].Settings.modes:
                cases[f"{method} {mode}"] = {**settings, "method": method, "debias": mode}
    return cases


def expert_cases() -> dict[str, dict]:
    return {
        "none": {},
        "fairdd": {"debias": "fairdd"},
        "kde": {"debias": "kde"},
        "kde weighted": {"debias": "kde", "sampling": "weighted"},
        "decay": {"decay": True, "momentum": 0.9, "weight_decay": 1e-4, "epochs": 4},
        "zca": {"zca": True},
        "bf16": {"dtype": "bf16"},
    }


def default_settings(method: str, dataset: str, mode: str, ipc: int) -> dict:
    """What a run has where nothing is given."""
    if method == "experts":
        return given(ExpertSettings.configure(dataset=dataset, ipc=ipc, debias=mode).model_dump())
    return given(configure(dataset=dataset, ipc=ipc, debias=mode, method=method).model_dump())


def defaults() -> dict[str, str]:
    """Digests of the default settings of every method, data set, mode and some IPC."""
    found, sets = {}, [name for name in fastdd.data.available() if name not in SETS_SINCE]
    for method in ("dm", "dc", "dsa", "mtt", "experts"):
        for mode in MODES if method != "experts" else ("none", "fairdd", "kde"):
            every = [default_settings(method, name, mode, n) for name in sets for n in (1, 5, 10, 50, 100)]
            found[f"{method} {mode}"] = digest(*every)
    return found


class Recorder:
    """Makes what is recorded, in a folder."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.data = fastdd.data.load("c-digits")
        self.weights = (1 / (1 + np.arange(len(self.data.train)) % 7)).astype(np.float32)

    def _weights(self, mode: str) -> np.ndarray | None:
        return self.weights if mode == "kde" else None

    def experts(self, name: str, settings: dict) -> dict:
        out = self.folder / "experts" / name
        if not out.exists():
            mode = settings.get("debias", "none")
            fastdd.train_experts(self.data, out=out, weights=self._weights(mode), **{**EXPERTS, **settings})
        manifest = json.loads((out / "manifest.json").read_text())
        values = np.load(out / "trajectories.npy", mmap_mode="r")
        tests = [{**test} for entry in manifest["experts"] for test in entry["evaluations"]]
        return {
            "digest": digest(np.array(values)),
            "manifest": digest(given(manifest["config"]), manifest["parameters"], tests),
            "files": sorted(entry.name for entry in out.iterdir()),
        }

    def run(self, name: str, settings: dict) -> dict:
        settings = dict(settings)
        mode = settings.get("debias", "none")
        if "experts" in settings:
            self.experts(settings["experts"], expert_cases()[settings["experts"]])
            settings["experts"] = self.folder / "experts" / settings["experts"]
            weights = None
        else:
            weights = None if name.endswith("computed") else self._weights(mode)
        by_class = METHODS[settings.get("method", "dm")].by_class
        # Then the data's digest is also of what was trained.
        trained = by_class or "experts" in settings or name.endswith(("computed", "groups"))
        if by_class:
            settings["teacher"] = self.teacher()
        out = self.folder / "runs" / name
        made = fastdd.distill(self.data, out=out, weights=weights, **settings)
        config = yaml.safe_load((out / "config.yaml").read_text())
        run = {key: value for key, value in made.metadata.items() if key not in ("run", "versions", "kde", "teacher")}
        evaluations = out / "evaluations.jsonl"
        return {
            "images": digest(made.images, made.labels),
            "sketch": sketch(made.images),
            "learned": digest(made.learning_rate, *([] if made.soft_labels is None else [made.soft_labels])),
            "metrics": digest((out / METRICS).read_bytes()),
            **({} if by_class else {"checkpoint": torch.load(out / CHECKPOINT, weights_only=True)["digest"][:16]}),
            "config": digest(self._named(config["run"])),
            **({} if trained else {"data": digest(config["data_digest"])}),
            "metadata": digest(run, self._named(made.metadata["run"])),
            "evaluations": digest(rows_as_before(evaluations)) if evaluations.exists() else None,
            "preview": digest((out / "preview.png").read_bytes()),
            "files": sorted(entry.name for entry in out.iterdir()),
        }

    def _named(self, settings: dict) -> dict:
        """Settings without the path of this folder."""
        found = given(settings)
        return found | {"teacher": "teacher"} if "teacher" in found else found

    def teacher(self) -> Path:
        out = self.folder / "teacher"
        if not out.exists():
            fastdd.train_network(self.data, out=out, **TEACHER)
        return out

    def weight_cases(self) -> dict[str, dict]:
        found = {}
        for name, settings in {
            "class": {},
            "batch": {"scope": "batch", "batch": 50},
            "dataset": {"scope": "dataset"},
            "knn": {"scope": "dataset", "density": "knn", "k": 64},
            "clip": {"clip": 3.0, "temperature": 0.5},
        }.items():
            if name == "knn" and not importable("faiss"):
                continue
            made = fastdd.kde_weights(self.data, steps=2, device="cpu", **settings)
            found[name] = {"weights": digest(made.weights), "sketch": sketch(made.weights)}
        for method in ("kmeans", "dbscan"):
            groups, number = fastdd.pseudo_groups(self.data, steps=2, device="cpu", method=method)
            found[method] = {"groups": digest(groups), "number": number}
        return found

    def evaluation_cases(self) -> dict[str, dict]:
        small = {"nets": 2, "epochs": 2, "width": 8, "depth": 2, "arch": "ConvNet", "device": "cpu"}
        self.run("for evaluation", {**SMALL})
        self.run("for evaluation, mtt", {**STUDENT, "experts": "zca", "soft_labels": "learned", "lr_label": 0.1})
        dc = {**small, "protocol": "dc", "dsa_strategy": "none"}
        cases = {
            "run": ("for evaluation", {"nets": 2, "epochs": 2, "device": "cpu"}),
            "run, mtt": ("for evaluation, mtt", {"nets": 2, "epochs": 2, "device": "cpu"}),
            "random": ("random", {**small, "ipc": 3}),
            "whole": ("whole", small),
            "protocol dc": ("for evaluation", dc),
            "protocol mtt": ("for evaluation", {**small, "protocol": "mtt"}),
            "seed": ("for evaluation", {**small, "seed": 5, "learning_rate": 0.05}),
        }
        found = {}
        for name, (what, settings) in cases.items():
            what = what if what in ("random", "whole") else self.folder / "runs" / what
            counts = fastdd.evaluate(what, self.data, **settings).counts
            found[name] = {"counts": digest([[each.right.tolist(), each.total.tolist()] for each in counts])}
        return found

    def everything(self) -> dict:
        return {
            "where": where(),
            "runs": {name: self.run(name, settings) for name, settings in run_cases().items()},
            "experts": {name: self.experts(name, settings) for name, settings in expert_cases().items()},
            "weights": self.weight_cases(),
            "evaluations": self.evaluation_cases(),
            "defaults": defaults(),
        }


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        found = Recorder(Path(scratch)).everything()
    Path(sys.argv[1]).write_text(json.dumps(found, indent=1) + "\n")
