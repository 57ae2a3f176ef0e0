"""Every command that writes, as small as it can be, with what a user does after a kill."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from kills.harness import Stage, Started
from PIL import Image

from fastdd.data import Dataset, Split, check_store, save_store
from fastdd.data.files.store import is_store

_NET = ("--width", "4", "--depth", "1")
_RUN = ("--dataset", "../../data", "--ipc", "1", *_NET, "--checkpoint-seconds", "0", "--out", "run")
_LOOPS = ("--iterations", "2", "--outer-loop", "2", "--inner-loop", "2", "--batch-train", "8", "--batch-real", "4")
_STUDENT = ("--iterations", "2", "--syn-steps", "2", "--expert-epochs", "1", "--max-start-epoch", "1")
_EXPERTS = ("--dataset", "../../data", "--num-experts", "2", "--epochs", "2", *_NET, "--batch-train", "16")
_MATCH = ("--iterations", "3", "--batch-real", "4")
_NETWORKS = ("--iterations", "2", "--outer-loop", "2", "--train-images", "4", "--batch-real", "4")
_FEATURES = ("--iterations", "2", "--batch-real", "4", "--frequencies", "8")
_AUDIT = ("--nets", "1", "--probe-steps", "1", "--probe-accuracy", "0")
_EVALUATE = ("--nets", "1", "--epochs", "1")


class Sources:
    """What the commands of stages start from, made once, in a folder of its own: ``data``, ``photos``, runs, sets."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir()
        save_store(_dataset(), folder / "data")
        _photos(folder / "photos")
        work = folder / "work" / "made"
        work.mkdir(parents=True)
        for command in (
            ("distill", *_RUN, *_MATCH),
            ("experts", *_EXPERTS, "--out", "experts"),
            ("distill", *_RUN[:-1], "student", "--method", "mtt", "--experts", "experts", *_STUDENT),
            ("experts", "export", "experts", "--out", "buffers", "--per-file", "1"),
            *(("export", "run", "--to", to, "--out", out) for to, out, _ in FORMATS),
            ("data", "build", "c-digits", "--out", "store"),
        ):
            status, errors = Started(work, command).end()
            assert status == 0, f"{' '.join(command)}: {errors}"
        self._work = work

    def copies(self, *names: str) -> Callable[[Path], None]:
        """What puts some of them into the folder of a stage."""

        def given(folder: Path) -> None:
            for name in names:
                source = self._work / name
                if source.is_dir():
                    shutil.copytree(source, folder / name)
                else:
                    shutil.copyfile(source, folder / name)

        return given


# Of export: the format, its file or folder, and whether --force can replace that.
FORMATS = (
    ("dc", "dc.pt", True),
    ("mtt", "mtt", True),
    ("idc", "idc.pt", True),
    ("dcbench", "bench", True),
    ("npz", "set.npz", True),
    ("folder", "images", False),
)


def distillations(sources: Sources) -> list[Stage]:
    """Runs: ``--resume`` goes on whatever a kill left."""

    def run(name: str, *words: str, given: Callable[[Path], object] = lambda folder: None) -> Stage:
        command = ("distill", *_RUN, *words)
        return Stage(f"distill {name}", command, [(*command, "--resume")], given)

    return [
        run("dm", *_MATCH),
        run("dm fairdd", *_MATCH, "--debias", "fairdd"),
        run("dm kde", *_MATCH, "--debias", "kde"),
        run("dm kmeans", *_MATCH, "--debias", "fairdd", "--groups", "kmeans"),
        run("dm on the way", *_MATCH, "--eval-every", "1", "--eval-nets", "1", "--eval-epochs", "1"),
        run("dm evaluated", *_MATCH, "--evaluate", *_EVALUATE, "--json", "figures.json"),
        run("datadam", "--method", "datadam", *_MATCH),
        run("dc", "--method", "dc", *_LOOPS),
        run("dsa", "--method", "dsa", *_LOOPS),
        run("dc kde", "--method", "dc", *_LOOPS, "--debias", "kde"),
        run("idc", "--method", "idc", *_NETWORKS),
        run("dream", "--method", "dream", *_NETWORKS, "--interval", "1"),
        run("ncfm", "--method", "ncfm", "--experts", "experts", *_FEATURES, given=sources.copies("experts")),
        run("mtt", "--method", "mtt", "--experts", "experts", *_STUDENT, given=sources.copies("experts")),
    ]


def trainings(sources: Sources) -> list[Stage]:
    """Experts, weights, evaluations, pages."""
    experts = ("experts", *_EXPERTS, "--out", "made")
    return [
        Stage("experts", (*experts, "--eval-every", "1"), [(*experts, "--eval-every", "1", "--resume")]),
        Stage("experts kde", (*experts, "--debias", "kde"), [(*experts, "--debias", "kde", "--resume")]),
        Stage("experts zca", (*experts, "--zca"), [(*experts, "--zca", "--resume")]),
        _same("weights", "weights", *_RUN[:2], "--steps", "2", "--out", "w.safetensors", "--json", "w.json"),
        _same(
            "evaluate", "evaluate", "run", *_RUN[:2], *_EVALUATE, "--json", "figures.json", given=sources.copies("run")
        ),
        _same("audit", "audit", "run", *_RUN[:2], *_AUDIT, "--json", "audit.json", given=sources.copies("run")),
        _same("report", "report", "run", given=sources.copies("run")),
    ]


def two_process_trainings(sources: Sources) -> list[Stage]:
    """Experts whose workers are interpreters of their own, seconds each."""
    experts = ("experts", *_EXPERTS, "--out", "made", "--processes", "2")
    return [Stage("experts, 2 processes", experts, [(*experts, "--resume")])]


def builds(sources: Sources) -> list[Stage]:
    """Stores: streamed from image files, and made in memory; new, continued, in the place of another."""
    images = ("--data-root", "../../photos", "--size", "8", "--workers", "1")
    stages = []
    for kind, command in (
        ("streamed", ("data", "build", "folder", *images, "--out", "store")),
        ("in memory", ("data", "build", "c-digits", "--data-option", "bias_ratio=0.5", "--out", "store")),
    ):
        forced = (*command, "--force")
        stages += [
            Stage(f"build {kind}", command, [command, (*command, "--resume")]),
            Stage(f"build {kind} --force", forced, [(*forced, "--resume")], sources.copies("store"), _store_is_whole),
            Stage(
                f"build {kind} --force, old system",
                forced,
                [(*command, "--resume"), forced],
                sources.copies("store"),
                _store_is_whole,
                old_system=True,
            ),
        ]
    return stages


def exchanges(sources: Sources) -> list[Stage]:
    """Exports and imports, of sets and of experts."""
    stages = []
    for to, out, replaces in FORMATS:
        plain = ("export", "run", "--to", to, "--out", out)
        stages.append(Stage(f"export {to}", plain, [plain, (*plain, "--force")], sources.copies("run")))
        read = ("import", out, "--out", "set.safetensors", "--mean", "0.5,0.5,0.5", "--std", "0.3,0.3,0.3")
        stages.append(Stage(f"import {to}", read, [read, (*read, "--force")], sources.copies(out)))
        if replaces:
            forced = (*plain, "--force")
            stages.append(Stage(f"export {to} --force", forced, [forced], sources.copies("run", out)))
    buffers = ("experts", "export", "experts", "--out", "buffers", "--per-file", "1")
    read = ("experts", "import", "buffers/replay_buffer_0.pt", "buffers/replay_buffer_1.pt", *_RUN[:2], *_NET)
    return [
        *stages,
        Stage("experts export", buffers, [buffers, (*buffers, "--force")], sources.copies("experts")),
        Stage(
            "experts export --force",
            (*buffers, "--force"),
            [(*buffers, "--force")],
            sources.copies("experts", "buffers"),
        ),
        _same("experts import", *read, "--out", "made", given=sources.copies("buffers")),
    ]


def reproductions(sources: Sources) -> list[Stage]:
    """A table of two cells, one of them with experts (:mod:`kills.moments` makes it that small)."""
    return [_same("reproduce", "reproduce", "tiny", "table", "--out", "tables")]


def _same(name: str, *command: str, given: Callable[[Path], object] = lambda folder: None) -> Stage:
    return Stage(name, command, [command], given)


def _store_is_whole(folder: Path) -> bool:
    """There was a store, so that there is one at any moment, the old one or the new."""
    return is_store(folder / "store") and not check_store(folder / "store")


def _dataset() -> Dataset:
    """Three classes of twelve dim or bright images of 8x8, two groups."""
    random = np.random.default_rng(5)

    def split(number: int) -> Split:
        labels, groups = np.arange(number) % 3, np.arange(number) // 3 % 2
        images = (
            random.integers(0, 100, (number, 3, 8, 8))
            + 50 * labels[:, None, None, None]
            + 40 * groups[:, None, None, None]
        )
        return Split(images.astype(np.uint8), labels.astype(np.int64), groups.astype(np.int64))

    return Dataset("tiny", split(36), split(12), ("a", "b", "c"), ("dim", "bright"), (0.5,) * 3, (0.3,) * 3, {})


def _photos(folder: Path) -> None:
    random = np.random.default_rng(6)
    for split, number in (("train", 6), ("test", 2)):
        for name in ("cat", "dog"):
            (folder / split / name).mkdir(parents=True)
            for i in range(number):
                image = Image.fromarray(random.integers(0, 256, (9, 12, 3)).astype(np.uint8))
                image.save(folder / split / name / f"{i}.png")
