"""The stages of ``bench/gpu.sh``: what each runs, on what, and how long at most.

Only the standard library, as it is read before anything is installed.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import wheels

ROOT = Path(__file__).resolve().parent.parent
_ON_GPUS_ONLY = "conv3x3/bf16x3/*"
# What matters most comes first: a limit cuts off the rest.
CASES = (
    *("step/dm*", _ON_GPUS_ONLY, "step/dc", "step/dc+fairdd", "step/dsa*", "step/dc-inner", "step/idc*"),
    *(
        "step/ncfm*",
        "step/mtt/exact",
        "evaluate*",
        "conv3x3/forward",
        "conv3x3/train",
        "formation*",
        "cf_match",
        "group_grad",
        "gradient_match",
    ),
    *("augment/*", "norm_act_pool", "segment_mean", "embedding_match", "train/*", "step/dream", "step/datadam*"),
    *("scale/groups", "scale/batch", "scale/ipc", "scale/classes", "scale/pixels", "step/mtt/full", "step/mtt/tesla"),
    "kde/exact",  # scikit-learn takes two minutes beside it
)
# Likewise: the kernels that have never run on a GPU. pytest leaves them out when it comes to the whole folder.
_NEVER_RUN = "draws dsa segment_order formation cf_match loss_slopes turns split_conv group_grad gradient_match"
TESTS = (*(f"tests/ops/test_{name}.py" for name in _NEVER_RUN.split()), "tests")


@dataclass(frozen=True)
class Setup:
    """What the environment says."""

    out: Path
    before: Path | None
    python: str
    device: str
    limit: float | None
    total: float
    wheels: Path | None
    data: Path | None

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> "Setup":
        """From variables; ValueError, one line, for a wrong one."""

        def seconds(name: str) -> float | None:
            text = environment.get(name)
            try:
                value = None if text is None else float(text)
            except ValueError:
                value = 0.0
            if value is not None and not value > 0:
                raise ValueError(f"{name}={text} is no number of seconds")
            return value

        def folder(name: str) -> Path | None:
            text = environment.get(name)
            if text and not Path(text).is_dir():
                raise ValueError(f"{name}={text} is no folder")
            return Path(text).resolve() if text else None

        device = environment.get("DEVICE", "cuda")
        if device not in ("cuda", "cpu"):
            raise ValueError(f"DEVICE={device} is not cuda or cpu")
        return cls(
            Path(environment.get("OUT", "bench-out")).resolve(),
            folder("FROM"),
            environment.get("PYTHON", "python3"),
            device,
            seconds("LIMIT"),
            seconds("TOTAL") or 570.0,
            folder("WHEELS"),
            folder("DATA"),
        )

    @property
    def quick(self) -> bool:
        """Whether this is a dry run."""
        return self.device == "cpu"


@dataclass(frozen=True)
class Part:
    """One command of a stage, with a log of its own."""

    name: str
    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Stage:
    """Parts that are run one after the other, whether or not one before has failed.

    Attributes:
        parts: of a setup and the stage's folder.
        lacks: what it can't be run without; empty if it can.
    """

    name: str
    about: str
    limit: float
    parts: Callable[[Setup, Path], list[Part]]
    lacks: Callable[[Setup], str] = lambda setup: ""


def _fastdd(setup: Setup, *words: object) -> list[str]:
    return [setup.python, "-m", "fastdd.cli", *map(str, words)]


def _install(setup: Setup, name: str) -> Part:
    """pip, without network: what is there already is left as it is."""
    carried = setup.wheels is not None and (setup.wheels / name).is_dir()
    links = wheels.ready(setup.wheels / name, ROOT / "build" / "wheels" / name) if carried else []
    command = [setup.python, "-m", "pip", "install", "--disable-pip-version-check", "--no-index"]
    needed = wheels.requirements()[name]
    if name == "faiss" and setup.quick:
        needed = ["faiss-cpu"]
    return Part(f"install-{name}", [*command, *(f"--find-links={link}" for link in links), *needed])


def _prepare(setup: Setup, folder: Path) -> list[Part]:
    build = [setup.python, "-m", "pip", "install", "--disable-pip-version-check", "--no-build-isolation", "--no-deps"]
    switches = {"FASTDD_BUILD_EXT": "1", "FASTDD_CUDA": "auto" if setup.quick else "1"}
    return [_install(setup, "base"), Part("build", [*build, "--no-index", "-e", str(ROOT)], switches)]


def _correct(setup: Setup, folder: Path) -> list[Part]:
    chosen = ["tests/ops/test_segment_mean.py"] if setup.quick else ["-m", "gpu", *TESTS]
    tests = [setup.python, "-m", "pytest", "-v", "--tb=short", "--durations=10", "-p", "no:cacheprovider", *chosen]
    return [Part("info", _fastdd(setup, "info")), Part("gpu-tests", tests)]


def _bench(setup: Setup, folder: Path) -> list[Part]:
    path = folder / "bench.json"
    size = ["--quick", "--reps", 1] if setup.quick else ["--reps", 5, "--budget", 1]
    # Without a GPU there is only Triton's interpreter, in which a process's other kernels would run too.
    globs = [glob for glob in CASES if setup.device != "cpu" or glob != _ON_GPUS_ONLY]
    cases = [word for glob in globs for word in ("--case", glob)]
    measure = _fastdd(setup, "bench", "--device", setup.device, *size, "--resume", "--json", path, *cases)
    parts = [
        Part("bench", [*measure, "--plot", str(folder / "bench.png")]),
        Part("validate", _fastdd(setup, "bench", "validate", path)),
    ]
    if not setup.quick:
        predicted = ROOT / "bench" / "results" / "predicted-h200.json"
        beside = ("bench", "--model", predicted, "--measured", path, "--json", folder / "beside.json")
        parts.append(Part("beside-predictions", _fastdd(setup, *beside)))
    return parts


def _headline(setup: Setup, folder: Path) -> list[Part]:
    command = [setup.python, "-m", "fastdd.bench.studies.headline", "--device", setup.device]
    command += ["--data-root", str(setup.data), "--out", str(folder / "rows")]
    return [Part("headline", command + (["--quick"] if setup.quick else []))]


def _faiss(setup: Setup, folder: Path) -> list[Part]:
    command = [setup.python, "-m", "fastdd.bench.studies.neighbours", "--device", setup.device]
    command += ["--out", str(folder / "rows"), "--points", *(("500", "2000") if setup.quick else ("50000", "1280000"))]
    return [_install(setup, "faiss"), Part("neighbours", command)]


PREPARE = Stage("prepare", "what is missing is installed, and fastdd built", 240.0, _prepare)
STAGES = {
    stage.name: stage
    for stage in (
        Stage("correct", "the tests that need a GPU, of what never ran on one first", 240.0, _correct),
        Stage("bench", "every case beside published code and plain PyTorch, and beside its prediction", 480.0, _bench),
        Stage(
            "headline",
            "C-MNIST FG at IPC 10, DM and DM + FairDD, as published",
            570.0,
            _headline,
            lambda setup: "" if setup.data else "DATA, a folder with MNIST's four files",
        ),
        Stage(
            "faiss",
            "knn_kde with faiss-gpu beside exact densities, 50,000 and 1.28 million points",
            240.0,
            _faiss,
            lambda setup: "" if setup.wheels or setup.quick else "WHEELS, with faiss-gpu",
        ),
    )
}
