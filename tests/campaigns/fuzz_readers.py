"""What reads files: how each is called, on which sound files, and what its result has to be."""

import contextlib
import io
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fuzz_samples as samples
import numpy as np
import torch
from torch import nn

import fastdd
from fastdd.api.experts import import_experts
from fastdd.bench.framework import schema
from fastdd.cli import commands
from fastdd.compat.dc import datasets as dc_datasets
from fastdd.compat.idc.training import load_ckpt
from fastdd.data import Dataset, SyntheticSet, Zca, check_store, open_store
from fastdd.data.catalog import build
from fastdd.data.files.decode import Recipe, decode
from fastdd.debias.density import kde
from fastdd.evaluation import plan_evaluation
from fastdd.evaluation.label_file import LabelFile
from fastdd.experts import Experts, ExpertSettings
from fastdd.report.audit import audit_summary, audit_tables, read_audit
from fastdd.report.page import View, page
from fastdd.report.ranking import ranking_tables, read_ranking
from fastdd.report.record import read_record
from fastdd.report.results import METRICS, notes, read_results, table


class Different(AssertionError):
    """A reader took what it should have refused, or told."""


@dataclass(frozen=True)
class Reader:
    """One reader.

    Args:
        make: writes sound files into an empty folder.
        load: reads them; what it raises has to name a file or the folder.
        use: does with the result what the product does, and raises :class:`Different` where it is absurd.
        changed: patterns of the files to damage.
        writes: whether it changes the folder.
        takes_pipes: whether it waits for what a pipe has to say, as it should.
        slow: how many times as long as most a case takes; so many times fewer are tried.
        steady: what its result is the same, to the bit, whatever file is damaged and yet taken.
    """

    make: Callable[[Path], None]
    load: Callable[[Path], Any]
    use: Callable[[Any], Any] = lambda value: None
    changed: tuple[str, ...] = ("**/*",)
    writes: bool = False
    takes_pipes: bool = False
    slow: int = 1
    steady: Callable[[Any], Any] | None = None


def sound_set(made: SyntheticSet) -> None:
    """What is evaluated: finite and of a scale that can be one's; then the evaluation's own checks, and exports."""
    try:
        plan = plan_evaluation(made, samples.toy(), torch.device("cpu"), nets=1, epochs=1)
    except (ValueError, TypeError, RuntimeError):
        return  # told
    _check_normalisation(made)
    _finite(made.images, "images", 1e6)
    made.to_uint8()
    networks(plan)


def networks(plan: Any) -> None:
    """Build the plan's network; too large ones are told by its memory only, and not built."""
    if (plan.width or 0) <= 64 and (plan.depth or 0) <= 4:
        fastdd.models.build(plan.arch, 3, 2, (8, 8), key=0, width=plan.width, depth=plan.depth)


def _check_normalisation(made: SyntheticSet) -> None:
    for name in ("mean", "std"):
        values = made.metadata[name]
        if not all(type(value) in (int, float) and abs(value) <= 1e6 for value in values):
            raise Different(f"a set with {name} {values!r:.60} is taken")
    if not all(value >= 1e-6 for value in made.metadata["std"]):
        raise Different(f"a set with std {made.metadata['std']} is taken")
    if made.zca is not None and not (made.zca.matrix.diagonal() > 0).all():
        raise Different("a set with a ZCA that is none is taken")


def _finite(values: Any, what: str, scale: float | None = None) -> None:
    values = torch.as_tensor(values)
    if values.is_floating_point() and not values.isfinite().all():
        raise Different(f"{what} that are not finite are taken")
    if scale and values.is_floating_point() and values.numel() and values.abs().max() > scale:
        raise Different(f"{what} of {float(values.abs().max()):g} are taken")


def imported(name: str = "", **options: Any) -> Callable[[Path], SyntheticSet]:
    def load(folder: Path) -> SyntheticSet:
        given = {"mean": samples.MEAN, "std": samples.STD} | options
        return fastdd.import_synthetic(folder / name, device="cpu", **given)

    return load


def sound_import(made: SyntheticSet) -> None:
    _check_normalisation(made)
    _finite(made.images, "images", 1e6)
    sound_set(made)


def data(name: str, at: str = "", **options: Any) -> Callable[[Path], Any]:
    return lambda folder: fastdd.data.load(name, folder / at if at else folder, **options)


def sound_data(dataset: Any) -> None:
    for split in (dataset.train, dataset.test):
        if split.labels.max() >= dataset.num_classes or split.groups.max() >= dataset.num_groups:
            raise Different("labels or groups that have no name are taken")
    dataset.digest()


def _store(folder: Path) -> Any:
    return fastdd.data.load(str(folder))


def sound_store(folder: Path) -> Any:
    """What ``data check`` says of it, and where that is nothing, the pixels are those that were written."""
    problems = check_store(folder)
    if problems:
        raise RuntimeError(problems[0])
    return open_store(folder)


def resumed(folder: Path) -> SyntheticSet:
    return fastdd.distill(samples.toy(), out=folder, resume=True, **samples.RUN, device="cpu")


def resumed_experts(folder: Path) -> Experts:
    found = fastdd.train_experts(samples.toy(), out=folder, resume=True, **samples.EXPERTS, zca=True)
    if damaged := found.damaged():
        raise RuntimeError(f"{folder}: experts {damaged} are not those that were written")
    return found


def used_experts(experts: Experts) -> None:
    settings = {"ipc": 1, "iterations": 1, "width": 4, "depth": 2, "expert_epochs": 1, "max_start_epoch": 1}
    made = fastdd.distill(
        samples.toy(), method="mtt", experts=experts, **settings, syn_steps=1, batch_syn=None, device="cpu", zca=True
    )
    _finite_set(made)


def imported_buffers(folder: Path) -> Experts:
    paths = sorted(folder.glob("replay_buffer_*.pt")) or [folder / "replay_buffer_0.pt"]
    for path in (folder / "out").glob("*"):
        path.unlink()
    return import_experts(paths, samples.toy(), out=folder / "out", width=4, depth=2)


def settings_file(command: str, name: str = "config.yaml", *words: str) -> Callable[[Path], Any]:
    def load(folder: Path) -> dict[str, Any]:
        with contextlib.redirect_stdout(io.StringIO()):
            context = commands.load(command).make_context(command, ["--config", str(folder / name), *words])
        return context.params

    return load


def sound_settings(params: dict[str, Any]) -> None:
    if any(isinstance(value, float) and not math.isfinite(value) for value in params.values()):
        raise Different(f"settings that are not finite are taken: {params}"[:200])


def distil_settings(params: dict[str, Any]) -> None:
    """The run that they ask for, whose settings check themselves."""
    names = fastdd.methods.METHODS["dm"].Settings.model_fields
    given = {name: value for name, value in params.items() if name in names and name not in ("dataset", "method")}
    given["ipc"] = 10 if given.get("ipc") is None else given["ipc"]
    sound_settings(fastdd.methods.configure(dataset="toy", method="dm", **given).model_dump())


def expert_settings(params: dict[str, Any]) -> None:
    """The training that they ask for, likewise."""
    names = ExpertSettings.model_fields
    given = {name: value for name, value in params.items() if name in names and name != "dataset"}
    sound_settings(ExpertSettings.configure(dataset="toy", **given).model_dump())


def sound_evaluation(params: dict[str, Any]) -> None:
    """The evaluation that they ask for, likewise."""
    given = {name: params.get(name) for name in ("nets", "epochs", "width", "depth", "protocol", "dsa_strategy")}
    plan = plan_evaluation(
        "whole", samples.toy(), torch.device("cpu"), arch="ConvNet", learning_rate=params.get("lr_net"), **given
    )
    sound_settings(vars(plan.protocol))


def results(folder: Path) -> list[dict[str, Any]]:
    return read_results(folder / "result.json")["rows"]


def shown_results(rows: list[dict[str, Any]]) -> None:
    notes(rows)
    table(rows, metrics=METRICS)


def audits(folder: Path) -> Any:
    return read_audit(folder / "audit.json")


def shown_audit(found: Any) -> None:
    audit_tables(found)
    audit_summary(found)


def reported(folder: Path) -> Any:
    record = read_record(folder)
    return page([record], view=View("none"))


def _table(folder: Path) -> Any:
    columns = {"path_column": "file", "label_column": "what", "protected": "when", "split_column": "part"}
    return fastdd.data.load("folder", folder, table=folder / "table.csv", size=8, **columns)


def stored_labels(folder: Path) -> list[Any]:
    """What a file of labels says of its views, and all logits."""
    found = LabelFile(folder / "l.safetensors")
    return [found.views, found.digest, *(found.at(epoch, 0, found.images) for epoch in range(found.epochs))]


def rankings(folder: Path) -> Any:
    return read_ranking(folder / "ranking.json", SyntheticSet.load(folder / "s.safetensors"))


def weights(name: str) -> Callable[[Path], Any]:
    from fastdd.api.samples import read_weights

    return lambda folder: read_weights(samples.toy(), folder / name).values


def groups(folder: Path) -> Any:
    from fastdd.api.samples import read_groups

    return read_groups(samples.toy(), folder / "groups.npy")


def decoded(folder: Path) -> list[np.ndarray]:
    """Every picture, both as stored and as shown."""
    pixels, first = [], None
    for path in sorted(folder.iterdir()):
        try:
            from fastdd.data.files.decode import read_item

            content = read_item(str(path), None, 0, -1)
            pixels += [decode(content, Recipe(8, as_stored=stored)) for stored in (False, True)]
        except (OSError, ValueError) as error:
            first = first or ValueError(f"{path}: {error}")
    if first is not None:
        raise first
    return pixels


def built(folder: Path) -> Any:
    return build("folder", folder / "store", folder / "source", options={"size": 8}, resume=True, workers=1)


def unfinished(folder: Path) -> None:
    """A build that stopped at a picture that can't be decoded, which then was mended."""
    samples._write(folder / "source", samples.class_folders())
    picture = folder / "source" / "test" / "dog" / "1.png"
    sound = picture.read_bytes()
    picture.write_bytes(b"x")
    with contextlib.suppress(RuntimeError):
        build("folder", folder / "store", folder / "source", options={"size": 8}, workers=1)
    picture.write_bytes(sound)


def tiny_tensors(folder: Path) -> None:
    images = (torch.rand(4, 3, 8, 8) * 255).to(torch.uint8)
    parts = {
        "images_train": images,
        "labels_train": torch.arange(4),
        "images_val": images,
        "labels_val": torch.arange(4),
    }
    torch.save({"classes": ["a", "b", "c", "d"], **parts}, folder / "tinyimagenet.pt")


def bench_results(folder: Path) -> None:
    """Two rows of those that are published."""
    found = sorted((Path(__file__).parents[2] / "bench" / "results").glob("*.json"))[0]
    content = json.loads(found.read_text())
    (folder / "b.json").write_text(json.dumps({**content, "rows": content["rows"][:2]}))


def network_file(folder: Path) -> None:
    """A checkpoint of the published code's kind."""
    torch.save({"state_dict": {f"module.{k}": v for k, v in nn.Linear(3, 2).state_dict().items()}}, folder / "n.pt")


def settings_of(command: str) -> Callable[[Path], None]:
    """A file of options in YAML, of all kinds."""
    texts = {
        "distill": "method: dm\nipc: 10\ndataset: c-digits\niterations: 5\nlr_img: 0.5\ndsa_strategy: flip\nseed: 3\n"
        "data_option: {size: 8}\nwidth: 16\ndebias: fairdd\n",
        "evaluate": "nets: 2\nepochs: 5\narch: convnet,resnet18\ndataset: c-digits\nlr_net: 0.1\n",
        "experts": "num_experts: 2\nepochs: 3\nlr_teacher: 0.1\nzca: true\ndecay: false\n",
    }
    return lambda folder: (folder / "config.yaml").write_text(texts[command]) and None


def _images(made: SyntheticSet) -> bytes:
    return made.images.numpy().tobytes() + made.labels.numpy().tobytes()


def _values(found: Experts) -> bytes:
    return found.values.numpy().tobytes()


def _finite_set(made: SyntheticSet) -> None:
    _finite(made.images, "images")


_SMALL = {"size": 8}
READERS: dict[str, Reader] = {
    "weights": Reader(samples.weights, weights("w.safetensors"), lambda w: _finite(w, "weights"), ("w.safetensors",)),
    "weights.npy": Reader(samples.weights, weights("w.npy"), lambda w: _finite(w, "weights"), ("w.npy",)),
    "groups.npy": Reader(samples.weights, groups, samples.toy().with_groups, ("groups.npy",)),
    "run folder": Reader(
        samples.run_folder,
        resumed,
        _finite_set,
        ("checkpoint*.pt", "*.yaml", "*.jsonl"),
        writes=True,
        steady=_images,
        slow=2,
    ),
    "report": Reader(samples.run_folder, reported, changed=("*.yaml", "*.json*", "synthetic.safetensors"), slow=8),
    "audit.json": Reader(samples.audited, audits, shown_audit, ("audit.json",)),
    "result.json": Reader(samples.run_folder, results, shown_results, ("result.json",)),
    "experts": Reader(
        samples.experts, resumed_experts, changed=("*.json", "*.npy", "*.safetensors"), writes=True, steady=_values
    ),
    "experts unfinished": Reader(
        samples.unfinished_experts, resumed_experts, changed=("*.pt", "*.json"), writes=True, steady=_values, slow=2
    ),
    "experts used": Reader(samples.experts, Experts.open, used_experts, ("*.json", "*.npy", "*.safetensors"), slow=4),
    "experts imported": Reader(
        samples.buffers, imported_buffers, lambda e: _finite(e.values, "experts"), ("*.pt",), True
    ),
    "store": Reader(samples.store, sound_store, sound_data, steady=lambda dataset: dataset.compute_digest()),
    "store opened": Reader(samples.store, _store, sound_data, ("*.json", "*labels.npy", "*groups.npy")),
    "build resumed": Reader(unfinished, built, sound_data, (".store.building/**/*",), True),
    "settings distill": Reader(settings_of("distill"), settings_file("distill"), distil_settings, takes_pipes=True),
    "settings evaluate": Reader(
        settings_of("evaluate"), settings_file("evaluate", "config.yaml", "whole"), sound_evaluation, takes_pipes=True
    ),
    "settings experts": Reader(settings_of("experts"), settings_file("experts"), expert_settings, takes_pipes=True),
    "settings of a run": Reader(
        samples.run_folder, settings_file("distill"), distil_settings, ("config.yaml",), takes_pipes=True
    ),
    "settings of experts": Reader(
        samples.experts, settings_file("experts", "manifest.json"), expert_settings, ("*.json",), takes_pipes=True
    ),
    "import dc": Reader(
        samples.exported("dc", "res_DM_CIFAR10_ConvNet_2ipc.pt"),
        imported("res_DM_CIFAR10_ConvNet_2ipc.pt"),
        sound_import,
    ),
    "import idm": Reader(samples.idm, imported("CIFAR10_ipc_2_aug_False_model_ConvNet"), sound_import),
    "import mtt": Reader(samples.exported("mtt", soft=True), imported(), sound_import),
    "import idc": Reader(samples.exported("idc"), imported(), sound_import),
    "import idc decoded": Reader(
        samples.exported("idc", record=False), imported(factor=2, decoder="multi"), sound_import
    ),
    "import dcbench": Reader(samples.exported("dcbench"), imported(method="dm"), sound_import),
    "import npz": Reader(samples.exported("npz", "x.npz", soft=True), imported("x.npz"), sound_import),
    "import npz zca": Reader(samples.exported("npz", "x.npz", zca=True), imported("x.npz"), sound_import),
    "import folder": Reader(samples.exported("folder"), imported(), sound_import),
    "import webdataset": Reader(samples.exported("webdataset", "x.tar", soft=True), imported("x.tar"), sound_import),
    "import parquet": Reader(samples.exported("parquet", "x.parquet", soft=True), imported("x.parquet"), sound_import),
    "labels": Reader(samples.labels, stored_labels, lambda found: _finite(found[2], "labels")),
    "ranking.json": Reader(samples.ranked, rankings, ranking_tables, ("ranking.json",)),
    "compat tiny": Reader(tiny_tensors, lambda folder: dc_datasets.get_dataset("TinyImageNet", folder)),
    "compat network": Reader(
        network_file, lambda folder: load_ckpt(nn.Linear(3, 2), str(folder / "n.pt"), verbose=False)
    ),
    "bench results": Reader(bench_results, lambda folder: schema.read(folder / "b.json")),
    "pictures": Reader(samples.pictures, decoded),
    "mnist": Reader(samples.idx(packed=False), data("mnist"), sound_data),
    "mnist gz": Reader(samples.idx(packed=True), data("mnist"), sound_data),
    "cifar10 bin": Reader(samples.cifar10("bin", packed=False), data("cifar10"), sound_data),
    "cifar10 py": Reader(samples.cifar10("py", packed=False), data("cifar10"), sound_data),
    "cifar10 tar": Reader(samples.cifar10("py", packed=True), data("cifar10"), sound_data),
    "cifar100": Reader(samples.cifar100, data("cifar100"), sound_data),
    "svhn": Reader(samples.svhn, data("svhn"), sound_data),
    "folder": Reader(samples.image_folder, data("folder", **_SMALL), sound_data),
    "folder table": Reader(samples.image_table, _table, sound_data),
    "shards": Reader(samples.shards, lambda folder: Dataset.from_webdataset(folder, size=8), sound_data),
    "parquet": Reader(samples.parquet, lambda folder: Dataset.from_huggingface(folder, size=8), sound_data),
    "folder zip": Reader(samples.image_zip, data("folder", "d.zip", **_SMALL), sound_data),
    "folder tar": Reader(samples.image_tar, data("folder", "d.tar", **_SMALL), sound_data),
    "tiny-imagenet": Reader(samples.tiny, data("tiny-imagenet-s", **_SMALL), sound_data),
    "tiny-imagenet zip": Reader(samples.tiny_zip, data("tiny-imagenet", **_SMALL), sound_data),
    "imagenet subset": Reader(samples.imagenet, data("imagefruit", **_SMALL), sound_data),
    "celeba": Reader(samples.celeba, data("celeba", **_SMALL), sound_data, ("*.txt",)),
    "celeba-hq": Reader(samples.celeba_hq, data("celeba-hq", **_SMALL), sound_data),
    "utkface": Reader(samples.utkface, data("utkface", **_SMALL), sound_data),
    "bffhq": Reader(samples.bffhq, data("bffhq", **_SMALL), sound_data),
    "spuco": Reader(samples.spuco, data("spuco-animals", **_SMALL), sound_data),
    "backgrounds": Reader(
        samples.backgrounds,
        lambda folder: fastdd.data.load("bg-fmnist", folder, backgrounds=folder / "scenes"),
        sound_data,
        ("scenes/**/*",),
    ),
}


def _set(**kinds: bool) -> Reader:
    return Reader(
        lambda folder: samples.made(**kinds).save(folder / "s.safetensors"),
        lambda folder: SyntheticSet.load(folder / "s.safetensors"),
        sound_set,
    )


READERS["set"] = _set()
READERS["set soft"] = _set(soft=True)
READERS["set zca"] = _set(zca=True)
READERS["zca"] = Reader(_set(zca=True).make, lambda folder: Zca.load(folder / "s.safetensors"))
READERS["embeddings"] = Reader(
    samples.weights, lambda folder: kde.load_embeddings(folder / "w.safetensors", samples.toy()), changed=("w.*",)
)
