"""DC-Bench's folder of results: METHOD/DATASET/IPCn/, with DC's file for DC, DSA and DM, MTT's two for TM."""

from pathlib import Path

from fastdd.core.files import empty_place
from fastdd.data.synthetic import SyntheticSet
from fastdd.exchange import dc, mtt, torch_files
from fastdd.exchange.found import Content, Export, Found, check_free, write_record
from fastdd.exchange.published import dataset_of, name_of

DESCRIPTION = "a folder DC|DSA|DM|TM/DATASET/IPCn with results"
_FOLDER = "distilled_results"
_TRAJECTORIES = "TM"
_METHODS = {"dc": "DC", "dsa": "DSA", "dm": "DM", "mtt": _TRAJECTORIES, "tm": _TRAJECTORIES}
# Its evaluator asks for these; another data set is put where its own options would look.
_NAMES = {"cifar10": "CIFAR10", "tiny-imagenet": "tinyimagenet"}
# Of Tiny-ImageNet at 50 images a class, the loader of TM joins five files.
_PARTS = 5


def _top(path: Path) -> Path:
    """The folder of results, of a checkout as well."""
    return path / _FOLDER if (path / _FOLDER).is_dir() or (path / "evaluator").is_dir() else path


def _sets(path: Path) -> list[Path]:
    top = _top(path)
    found = [
        folder
        for method in dict.fromkeys(_METHODS.values())
        for folder in top.glob(f"{method}/*/IPC*")
        if folder.is_dir()
    ]
    return [folder for folder in sorted(found) if dc.matches(Content(folder)) or mtt.matches(Content(folder))]


def matches(content: Content) -> bool:
    return content.value is None and bool(_sets(content.path))


def read(
    content: Content,
    *,
    method: str | None = None,
    ipc: int | None = None,
    dataset: str | None = None,
    experiment: int | None = None,
) -> Found:
    """The only set of a method, data set and IPC, as far as they are given."""
    fitting = [
        folder
        for folder in _sets(content.path)
        if (method is None or folder.parts[-3] == _METHODS.get(method))
        and (dataset is None or dataset_of(folder) == dataset)
        and (ipc is None or folder.name == f"IPC{ipc}")
    ]
    if len(fitting) != 1:
        there = ["/".join(folder.parts[-3:]) for folder in fitting or _sets(content.path)]
        listed = ", ".join(there[:8]) + (", ..." if len(there) > 8 else "")
        problem = f"holds {len(fitting)} such sets" if fitting else "has no such set"
        raise ValueError(f"{content.path} {problem} ({listed}); choose by --method, --dataset and --ipc, or its folder")
    folder = Content(fitting[0])
    if dc.matches(folder):
        return dc.read(folder, experiment=experiment)
    if experiment is not None:
        raise ValueError(f"{folder.path} is of trajectory matching, which has no experiments: leave it out")
    return mtt.read(folder)


def write(made: SyntheticSet, path: Path, *, method: str | None = None, force: bool = False) -> Export:
    """Into a folder of results, or a checkout of DC-Bench, under the names that its evaluator looks for."""
    method = method or str(made.metadata.get("method"))
    if method not in _METHODS:
        raise ValueError(f"DC-Bench has no method {method}; give --method, one of {', '.join(_METHODS)}")
    dataset, ipc = made.metadata.get("dataset"), dc.images_per_class(made)
    name = _NAMES.get(str(dataset), name_of(dataset))
    folder = _top(path) / _METHODS[method] / name / f"IPC{ipc}"
    notes = dc.learned_rate(made)
    if name not in _NAMES.values():
        notes.append(f"DC-Bench's evaluator knows {', '.join(_NAMES.values())} and CIFAR100, not {name}")
    if _METHODS[method] != _TRAJECTORIES:
        dc.check_holds(made, "dcbench")
        model = "ConvNetD4" if name == "tinyimagenet" else "ConvNet"
        file = folder / f"res_{_METHODS[method]}_{name}_{model}_{ipc}ipc.pt"
        check_free([file], force)
        folder.mkdir(parents=True, exist_ok=True)
        dc.save_result(made, file)
        return Export([file], notes)
    if made.soft_labels is not None:
        raise ValueError("DC-Bench takes no soft labels: export to mtt, or classes only (--hard-labels)")
    split = name == "tinyimagenet" and ipc == 50
    endings = [f"_{part}" for part in range(_PARTS)] if split else [""]
    pairs = [[folder / f"{kind}_best{ending}.pt" for ending in endings] for kind in ("labels", "images")]
    check_free([*pairs[0], *pairs[1]], force)
    folder.mkdir(parents=True, exist_ok=True)
    # Images first, which come last again: what a kill leaves is no set, and not one of two.
    for place in (*pairs[1], *pairs[0]):
        empty_place(place)
    for paths, tensor in zip(pairs, (made.labels, made.images), strict=True):
        for file, part in zip(paths, tensor.chunk(len(paths)), strict=True):
            torch_files.save(dc.plain(part), file)
    if made.zca is not None:
        notes.append("images are whitened; DC-Bench's evaluator normalises its test images")
    return Export([*pairs[1], *pairs[0], write_record(folder, pairs[1], made)], notes)
