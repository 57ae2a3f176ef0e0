"""Results of DatasetCondensation and its forks (FairDD, COBRA, CAFE, IDM, DataDAM).

Files are called ``res_METHOD_DATASET_MODEL_IPCipc.pt``.

{"data": [[images, labels] of every experiment], "accs_all_exps": {model: accuracies}}; images are normalised. DC's code
stores accuracies as fractions, FairDD's as percent, both of numpy's own type. COBRA's IDC and DataDAM's evaluation have
the one pair itself as data. IDM keeps its best set apart, a pickled pair called ``acc_ACCURACY.pkl``, in a folder that
says what it is of. Images of IDM (``--aug``) and of COBRA's IDC hold several (:mod:`fastdd.exchange.multi_formation`),
which nothing in the file tells.
"""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastdd.core.reading import parse_json
from fastdd.data.synthetic import SyntheticSet
from fastdd.exchange import torch_files
from fastdd.exchange.found import Content, Export, Found, as_record, check_free, plain_tensor
from fastdd.exchange.multi_formation import check_packed, keep_packed, told_factor
from fastdd.exchange.published import name_of, of_result

DESCRIPTION = "a .pt file with {'data': [[images, labels], ...]}"
_RECORD = "fastdd"
# IDM's, in a folder that says what they are of.
_BEST = re.compile(r"acc_(?P<accuracy>[0-9.e-]+)\.pkl")
_BEST_FOLDER = re.compile(r"(?P<dataset>.+)_ipc_(?P<ipc>\d+)_aug_(?P<packed>True|False)_model_(?P<model>.+)")
_IDM_FACTOR = 2


def matches(content: Content) -> bool:
    if content.value is None:
        return bool(_results(content.path) or _best(content.path))
    if content.path.suffix == ".pkl":
        return isinstance(content.value, tuple) and len(content.value) == 2
    return isinstance(content.value, dict) and "data" in content.value


def read(content: Content, *, experiment: int | None = None, factor: int | None = None) -> Found:
    """An experiment's set (from 0), by default the last, as those who use such files do; ``factor`` decodes it."""
    path, value = content.path, content.value
    if value is None and not _results(path):
        path = _best(path)[-1]
        value = torch_files.load_pickle(path)
    if path.suffix == ".pkl":
        return _read_best(path, value, experiment, factor)
    if value is None:
        results = _results(path)
        if len(results) > 1:
            raise ValueError(f"{path} holds {len(results)} results; give one, such as {results[0]}")
        path = results[0]
        value = torch_files.load(path)
    sets = value.get("data") if isinstance(value, dict) else None
    if not isinstance(sets, list | tuple) or not sets:
        raise ValueError(f"{path} is not {DESCRIPTION}: its data are no list of experiments")
    if len(sets) == 2 and all(isinstance(part, Tensor | np.ndarray) for part in sets):
        sets = [sets]
    number = len(sets) - 1 if experiment is None else experiment
    if not 0 <= number < len(sets):
        raise ValueError(f"{path} has the experiments 0 to {len(sets) - 1}, not {experiment}")
    if not isinstance(sets[number], list | tuple) or len(sets[number]) != 2:
        raise ValueError(f"{path} is not {DESCRIPTION}: experiment {number} is no pair")
    named = of_result(path)
    found = Found(*sets[number], "normalised", [path], record=_record(value))
    if named:
        found.about = {"method": named["method"].lower(), "model": named["model"]}
    found.about["source"] = {"experiment": number, "experiments": len(sets)}
    if accuracies := _accuracies(value.get("accs_all_exps"), number, len(sets)):
        found.about["source"]["accuracies"] = accuracies
    if len(sets) > 1:
        choice = "the last, as is usual; --experiment takes another" if experiment is None else "as asked for"
        found.notes.append(f"experiment {number} of 0 to {len(sets) - 1} ({choice})")
    _unpack(found, path, factor)
    return found


def _best(folder: Path) -> list[Path]:
    """IDM's sets of a folder, by their accuracy."""
    named = [(match, path) for path in folder.glob("acc_*.pkl") if (match := _BEST.fullmatch(path.name))]
    return [path for _, path in sorted(named, key=lambda item: (_accuracy(item[0]), item[1]))]


def _accuracy(match: re.Match) -> float:
    try:
        return float(match["accuracy"])
    except ValueError:
        return -1.0


def _read_best(path: Path, value: Any, experiment: int | None, factor: int | None) -> Found:
    """IDM's set of the best accuracy so far, which its name has, and its folder's that of data set and network."""
    if not matches(Content(path, value)):
        raise ValueError(f"{path} is not a pickled pair (images, labels): it holds {Content(path, value).describe()}")
    if experiment is not None:
        raise ValueError(f"{path} is of one experiment: leave out --experiment")
    found = Found(*value, "normalised", [path], about={"method": "dm", "source": {}})
    accuracy, folder = _BEST.fullmatch(path.name), _BEST_FOLDER.fullmatch(path.absolute().parent.name)
    if folder is not None:
        found.about["model"] = folder["model"]
        if factor is None and folder["packed"] == "True":
            raise ValueError(
                f"{path}: its folder says aug_True, so an image holds {_IDM_FACTOR} x {_IDM_FACTOR}; give "
                f"--factor {_IDM_FACTOR}, or --factor 1 for the images as they are"
            )
        if accuracy is not None and _accuracy(accuracy) >= 0:
            found.about["source"]["accuracies"] = {folder["model"]: [100 * _accuracy(accuracy)]}
    _unpack(found, path, factor)
    return found


def _unpack(found: Found, path: Path, factor: int | None) -> None:
    """Note what images hold, where they hold several."""
    factor = told_factor(path, factor, found.record, named=False)
    if factor != 1:
        images, labels = (plain_tensor(part, path, "images and labels") for part in (found.images, found.labels))
        check_packed(path, images, labels, factor)
        found.about["source"] |= {"factor": factor, "stored": len(images)}
        keep_packed(found, len(images), factor)


def _results(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("res_*.pt") if of_result(path))


def _record(value: dict) -> dict[str, Any] | None:
    try:
        return as_record(parse_json(value[_RECORD]))
    except (LookupError, TypeError, ValueError):
        return None


def _accuracies(stored: Any, number: int, experiments: int) -> dict[str, list[float]]:
    """Accuracies of an experiment, percent, by network; of all where they can't be told apart."""
    found = {}
    for model, values in stored.items() if isinstance(stored, dict) else ():
        try:
            flat = np.asarray(values, dtype=np.float64).reshape(-1)
        except (TypeError, ValueError):
            continue
        if not len(flat) or not np.isfinite(flat).all():
            continue
        # No network is at most 1 % right in all of its tests.
        flat = flat * 100 if flat.max() <= 1 else flat
        each, rest = divmod(len(flat), experiments)
        found[str(model)] = (flat if rest else flat[number * each :][:each]).tolist()
    return found


def write(made: SyntheticSet, path: Path, *, force: bool = False) -> Export:
    """One experiment; into a folder, under the name that the published code would give it."""
    check_holds(made, "dc")
    if path.is_dir() or not path.suffix:
        path = path / file_name(made)
    check_free([path], force)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_result(made, path)
    return Export([path], [*normalisation(made), *learned_rate(made)])


def save_result(made: SyntheticSet, path: Path) -> None:
    known = made.metadata.get("source", {}).get("accuracies", {})
    value = {
        "data": [[plain(made.images), plain(made.labels)]],
        "accs_all_exps": {model: [accuracy / 100 for accuracy in values] for model, values in known.items()},
        _RECORD: json.dumps(made.metadata, sort_keys=True),
    }
    torch_files.save(value, path)


def file_name(made: SyntheticSet) -> str:
    method = str(made.metadata.get("method", "unknown")).upper()
    model = made.metadata.get("run", {}).get("arch") or "ConvNet"
    return f"res_{method}_{name_of(made.metadata.get('dataset'))}_{model}_{images_per_class(made)}ipc.pt"


def images_per_class(made: SyntheticSet) -> int:
    """ValueError unless every class has the same number of images."""
    counts = torch.bincount(made.labels, minlength=len(made.metadata["class_names"]))
    if counts.min() != counts.max():
        raise ValueError(
            f"classes have {counts.min()} to {counts.max()} images, and the name is to say how many; give a file's name"
        )
    return int(counts[0])


def check_holds(made: SyntheticSet, format: str) -> None:
    """ValueError if the set has soft labels or whitened images, for which the format has no place."""
    if made.soft_labels is not None:
        raise ValueError(f"{format} has no soft labels: export to mtt or npz, or classes only (--hard-labels)")
    if made.zca is not None:
        raise ValueError(f"{format} has no ZCA-whitened images: export to mtt or npz")


def plain(tensor: Tensor) -> Tensor:
    """On the CPU, without history, in a storage of its own."""
    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)


def normalisation(made: SyntheticSet) -> list[str]:
    mean, std = (",".join(f"{value:g}" for value in made.metadata[field]) for field in ("mean", "std"))
    return [f"images are normalised with mean {mean} and std {std}; test images must be too"]


def several(made: SyntheticSet) -> list[str]:
    factor = made.formation
    return (
        [] if factor == 1 else [f"an image holds {factor} x {factor}, which networks see enlarged (--factor {factor})"]
    )


def learned_rate(made: SyntheticSet) -> list[str]:
    rate = made.learning_rate
    return [] if rate is None else [f"the learned step size {rate:g} is not in it: train with --lr_net {rate:g}"]
