"""Small, sound files of every kind that the product reads, each into a folder of its own."""

import contextlib
import gzip
import io
import json
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import fastdd
from fastdd import exchange, models, report
from fastdd.data import Dataset, DeviceImages, Split, SyntheticSet, Zca, save_store
from fastdd.data.initial import random_set
from fastdd.debias.density.kde import KdeWeights
from fastdd.evaluation import METRICS
from fastdd.evaluation.label_file import write_labels
from fastdd.evaluation.relabel import Relabelling, Views
from fastdd.evaluation.scores import SCORES
from fastdd.exchange.found import RECORD
from fastdd.experts.buffers import export_buffers
from fastdd.methods import Teacher

CLASSES, GROUPS, MEAN, STD = ("cat", "dog"), ("day", "night"), (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
RUN = {"ipc": 1, "iterations": 2, "width": 4, "depth": 2, "batch_real": 4, "dsa_strategy": "flip"}
EXPERTS = {"num_experts": 2, "epochs": 2, "width": 4, "depth": 2, "batch_train": 4, "eval_every": 0}


@cache
def toy() -> Dataset:
    """3x8x8, two classes by two groups."""
    pixels = np.random.RandomState(0).randint(0, 256, (16, 3, 8, 8)).astype(np.uint8)
    split = Split(pixels, np.arange(16) % 2, np.arange(16) // 2 % 2)
    return Dataset("toy", split, split, CLASSES, GROUPS, MEAN, STD, {"builder": "toy", "files": []})


def made(*, soft: bool = False, zca: bool = False) -> SyntheticSet:
    images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    rows = torch.tensor([[0.75, 0.25]] * 2 + [[0.25, 0.75]] * 2)
    metadata = {
        "class_names": list(CLASSES),
        "mean": [0.0] * 3 if zca else list(MEAN),
        "std": [1.0] * 3 if zca else list(STD),
        **{"method": "dm", "debias": "none", "dataset": "toy", "ipc": 2, "seed": 3, "versions": {"fastdd": "0.1"}},
        "run": {"arch": "ConvNetD2", "width": 4, "depth": None, "dsa_strategy": "flip", "iterations": 5},
        "provenance": {"parameters": {"bias_ratio": 0.9}},
        "kde": {"diagnostics": {"counts": [4, 4], "ess": [3.0, 2.0]}},
    }
    return SyntheticSet(
        images,
        torch.tensor([0, 0, 1, 1]),
        metadata,
        learning_rate=0.02 if soft else None,
        soft_labels=rows if soft else None,
        zca=Zca.fit(toy().train.images) if zca else None,
    )


def run_folder(folder: Path) -> None:
    fastdd.distill(
        toy(), out=folder, **RUN, eval_every=1, eval_nets=1, eval_epochs=1, checkpoint_seconds=0, device="cpu"
    )
    row = json.loads((folder / "evaluations.jsonl").read_text().splitlines()[0])
    figures = {
        name: {"mean": 50.0, "std": 1.0, "interval": None} for name in ("accuracy", "deo_m", "deo_a", "wa", "ba")
    }
    about = {"dataset": "toy", "method": "dm", "debias": "none", "ipc": 1, "arch": "ConvNet", "nets": 2, "seconds": 1.0}
    row |= {**about, **figures, "group_accuracy": [[50.0, None], [1.0, 2.0]], "warnings": ["network 0 diverged"]}
    content = {"schema": 1, "rows": [row], "meta": {"torch": "2", "threads": 1}}
    (folder / "result.json").write_text(json.dumps(content))
    (folder / ".lock").unlink(missing_ok=True)


def audited(folder: Path) -> None:
    images = random_set(toy(), 1)
    found = fastdd.audit(toy(), images, nets=1, probe_steps=1, probe_accuracy=0)
    report.write_json(folder / "audit.json", report.audit_document(found, images))


def experts(folder: Path) -> None:
    fastdd.train_experts(toy(), out=folder, **EXPERTS, zca=True)
    (folder / ".lock").unlink(missing_ok=True)


class _Enough(Exception):
    pass


def unfinished_experts(folder: Path) -> None:
    """The first is trained, the second is not: it has a state."""

    def stop(progress: object) -> None:
        if progress.epoch == EXPERTS["epochs"] + 1:
            raise _Enough

    with contextlib.suppress(_Enough):
        fastdd.train_experts(toy(), out=folder, **EXPERTS, zca=True, progress=stop)
    (folder / ".lock").unlink(missing_ok=True)


def buffers(folder: Path) -> None:
    trained = fastdd.train_experts(toy(), out=folder / "trained", **EXPERTS)
    export_buffers(trained, folder)
    for path in (folder / "trained").iterdir():
        path.unlink()
    (folder / "trained").rmdir()


def store(folder: Path) -> None:
    folder.rmdir()
    save_store(toy(), folder)


def weights(folder: Path) -> None:
    n = len(toy().train)
    values = np.full(n, 2 / n, np.float32)
    about = {"dataset": "toy", "dataset_digest": toy().digest(), "gap": None, "warnings": ["x"]}
    KdeWeights(values, np.zeros(n, np.float32), np.ones((n, 3), np.float32), about).save(folder / "w.safetensors")
    np.save(folder / "w.npy", values)
    np.save(folder / "groups.npy", toy().train.groups)


def exported(to: str, name: str = "", *, record: bool = True, **kinds: bool) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        exchange.write(made(**kinds), folder / name if name else folder, to, force=True)
        if not record:  # as other code leaves them
            (folder / RECORD).unlink()

    return write


def picture(number: int, mode: str = "RGB", size: tuple[int, int] = (9, 8)) -> Image.Image:
    pixels = np.random.RandomState(number).randint(0, 256, (size[1], size[0], 3)).astype(np.uint8)
    if mode == "I;16":
        return Image.fromarray(pixels[..., 0].astype(np.uint16) * 200)
    if mode == "F":
        return Image.fromarray(pixels[..., 0].astype(np.float32) / 255)
    return Image.fromarray(pixels).convert(mode)


def encoded(number: int, kind: str = "PNG", mode: str = "RGB", size: tuple[int, int] = (9, 8), **options) -> bytes:
    buffer = io.BytesIO()
    picture(number, mode, size).save(buffer, kind, **options)
    return buffer.getvalue()


# Of every type and mode that is read, by the name of the file.
_EXIF = Image.Exif()
_EXIF[0x0112] = 6
PICTURES = {
    **{f"{mode.replace(';', '')}.png": ("PNG", mode, {}) for mode in ("RGB", "L", "P", "RGBA", "LA", "1", "I;16")},
    "clear.png": ("PNG", "P", {"transparency": 3}),
    "turned.jpg": ("JPEG", "RGB", {"exif": _EXIF}),
    **{f"{mode}.jpg": ("JPEG", mode, {"progressive": mode == "L"}) for mode in ("L", "CMYK")},
    **{f"{mode}.webp": ("WEBP", mode, {"lossless": mode == "RGB"}) for mode in ("RGB", "RGBA")},
    **{f"{mode}.bmp": ("BMP", mode, {}) for mode in ("RGB", "P", "1", "L")},
    **{f"{mode.replace(';', '')}.tif": ("TIFF", mode, {}) for mode in ("RGB", "I;16", "F", "CMYK", "1", "RGBA")},
    **{f"{way}.tif": ("TIFF", "RGB", {"compression": f"tiff_{way}"}) for way in ("lzw", "adobe_deflate")},
    "packbits.tif": ("TIFF", "RGB", {"compression": "packbits", "exif": _EXIF}),
    "P.gif": ("GIF", "P", {"transparency": 0}),
    "L.gif": ("GIF", "L", {}),
    **{f"{mode}.{name}": ("PPM", mode, {}) for mode, name in (("RGB", "ppm"), ("L", "pgm"), ("1", "pbm"))},
    "I16.pgm": ("PPM", "I;16", {}),
}


def pictures(folder: Path) -> None:
    for number, (name, (kind, mode, options)) in enumerate(PICTURES.items()):
        (folder / name).write_bytes(encoded(number, kind, mode, **options))
    (folder / "plain.ppm").write_bytes(b"P3\n# x\n2 2\n255\n" + b"1 2 3 " * 4)


def _write(folder: Path, files: dict[str, bytes | str]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def class_folders() -> dict[str, bytes | str]:
    names = [f"{split}/{name}/{n}.png" for split in ("train", "test") for name in CLASSES for n in range(2)]
    table = "path,group\n" + "".join(f"{name},{n % 2}\n" for n, name in enumerate(names))
    return {**{name: encoded(n) for n, name in enumerate(names)}, "groups.csv": table}


def image_folder(folder: Path) -> None:
    _write(folder, class_folders())


def image_zip(folder: Path) -> None:
    with zipfile.ZipFile(folder / "d.zip", "w") as archive:
        for name, content in class_folders().items():
            archive.writestr(name, content)


def image_tar(folder: Path) -> None:
    with tarfile.open(folder / "d.tar", "w") as archive:
        for name, content in class_folders().items():
            content = content.encode() if isinstance(content, str) else content
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def image_table(folder: Path) -> None:
    """Photographs in one folder, and a spreadsheet's table of them."""
    photographs = {f"photographs/{n}.png": encoded(n) for n in range(12)}
    rows = [
        f"{name};{CLASSES[n % 2]};{GROUPS[n // 2 % 2]};{'test' if n > 7 else 'train'}"
        for n, name in enumerate(photographs)
    ]
    table = "file;what;when;part\n" + "\n".join(rows) + "\n"
    _write(folder, {**photographs, "table.csv": table.encode("utf-16")})


def idm(folder: Path) -> None:
    """IDM's best set, a pickled pair, in a folder that says what it is of."""
    place = folder / "CIFAR10_ipc_2_aug_False_model_ConvNet"
    place.mkdir()
    pair = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 0, 1, 1])
    (place / "acc_0.67.pkl").write_bytes(pickle.dumps(pair))


def shards(folder: Path) -> None:
    """WebDataset's, of both splits: classes as numbers in one, with a group in JSON."""
    for split, count in (("train", 6), ("test", 4)):
        with tarfile.open(folder / f"{split}-0.tar", "w") as archive:
            for n in range(count):
                about = json.dumps({"label": CLASSES[n % 2], "group": GROUPS[n // 2 % 2]}).encode()
                for name, content in ((f"{n:03}.png", encoded(n)), (f"{n:03}.json", about)):
                    member = tarfile.TarInfo(name)
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))


def parquet(folder: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    for split, count in (("train", 6), ("test", 4)):
        images = [{"bytes": encoded(n), "path": None} for n in range(count)]
        columns = {"image": images, "label": [CLASSES[n % 2] for n in range(count)]}
        pyarrow.parquet.write_table(pyarrow.table(columns), folder / f"{split}-0.parquet")


def labels(folder: Path) -> None:
    """Logits of two epochs' views of four images, as ``fastdd relabel`` keeps them."""
    pixels = DeviceImages.of(toy().train.images[:4], MEAN, STD, torch.device("cpu"))
    net = models.build("ConvNet", 3, 2, (8, 8), width=4, depth=2, key=0)
    about = {"of_set": "digest", "about_teacher": {"path": "./t", "digest": "digest"}}
    views = Views(0, Relabelling())
    write_labels(
        folder / "l.safetensors",
        pixels,
        Teacher(net.eval(), "./t", "digest"),
        views,
        classes=2,
        epochs=2,
        batch=3,
        **about,
    )


def ranked(folder: Path) -> None:
    """A set and a ranking of it, whose figures are made up."""
    made().save(folder / "s.safetensors")
    figures = {score: {"mean": 0.25, "std": 0.1, "interval": None} for score in SCORES}
    row = {when: dict.fromkeys(METRICS, figures) for when in ("last", "best")}
    row |= {"set_digest": made().digest(), "protocol": "ddranking", "rounds": 2, "seconds": 1.0}
    (folder / "ranking.json").write_text(json.dumps({"schema": 1, "rows": [row], "meta": {}}))


def _idx(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def idx(*, packed: bool) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        random = np.random.RandomState(7)
        for name, count in (("train", 20), ("t10k", 10)):
            pixels = random.randint(0, 256, (count, 28, 28)).astype(np.uint8)
            arrays = {f"{name}-images-idx3-ubyte": pixels, f"{name}-labels-idx1-ubyte": (np.arange(count) % 10)}
            for file, array in arrays.items():
                content = _idx(array.astype(np.uint8))
                (folder / f"{file}{'.gz' * packed}").write_bytes(gzip.compress(content, 1) if packed else content)

    return write


def _cifar(kind: str) -> dict[str, bytes]:
    random, files = np.random.RandomState(8), {}
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        data, labels = random.randint(0, 256, (10, 3072)).astype(np.uint8), list(range(10))
        if kind == "bin":
            files[f"{name}.bin"] = b"".join(
                bytes([label]) + row.tobytes() for row, label in zip(data, labels, strict=True)
            )
        else:
            files[name] = pickle.dumps({b"data": data, b"labels": labels}, protocol=2)
    return files


def cifar10(kind: str, *, packed: bool) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        if not packed:
            _write(folder, _cifar(kind))
            return
        with tarfile.open(folder / f"cifar-10-{'binary' if kind == 'bin' else 'python'}.tar.gz", "w:gz") as archive:
            for name, content in _cifar(kind).items():
                member = tarfile.TarInfo(f"cifar/{name}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))

    return write


def cifar100(folder: Path) -> None:
    data = np.random.RandomState(9).randint(0, 256, (10, 3072)).astype(np.uint8)
    batch = pickle.dumps({b"data": data, b"fine_labels": list(range(10)), b"coarse_labels": [0] * 10}, protocol=2)
    meta = pickle.dumps({b"fine_label_names": [b"class%d" % n for n in range(10)]}, protocol=2)
    _write(folder, {"train": batch, "test": batch, "meta": meta})


def svhn(folder: Path) -> None:
    from scipy.io import savemat

    pixels = np.random.RandomState(9).randint(0, 256, (32, 32, 3, 12)).astype(np.uint8)
    for name in ("train_32x32.mat", "test_32x32.mat"):
        labels = (np.arange(12) % 10 + 1).astype(np.uint8)[:, None]
        savemat(folder / name, {"X": pixels, "y": labels}, do_compression=name.startswith("train"))


def celeba(folder: Path) -> None:
    names = [f"{n:06d}.jpg" for n in range(8)]
    rows = [f"{name} {1 - 2 * (n & 1)} {1 - (n & 2)} -1" for n, name in enumerate(names)]
    table = f"{len(names)}\nAttractive Male Young\n" + "\n".join(rows) + "\n"
    split = "".join(f"{name} {2 * (n // 4)}\n" for n, name in enumerate(names))
    image = encoded(0, "JPEG", size=(178, 218))
    files = {f"img_align_celeba/{name}": image for name in names}
    _write(folder, {**files, "list_attr_celeba.txt": table, "list_eval_partition.txt": split})


def celeba_hq(folder: Path) -> None:
    rows = [f"{n}.jpg  {1 - 2 * (n & 1)} {1 - (n & 2)}" for n in range(8)]
    table = "8\nSmiling Male\n" + "\n".join(rows) + "\n"
    lines = [f"{n} {190_000 if n > 3 else n} {n:06d}.jpg" for n in range(8)]
    files = {f"CelebA-HQ-img/{n}.jpg": encoded(n, "JPEG") for n in range(8)}
    mapping = "idx orig_idx orig_file\n" + "\n".join(lines) + "\n"
    names = ("CelebAMask-HQ-attribute-anno.txt", "CelebA-HQ-to-CelebA-mapping.txt")
    _write(folder, {**files, names[0]: table, names[1]: mapping})


def utkface(folder: Path) -> None:
    cells = [(age, race, n) for age in (5, 25, 60) for race in range(4) for n in range(2 + (race > 0))]
    _write(folder, {f"{age}_0_{race}_2017{n}.jpg": encoded(age + race, "JPEG") for age, race, n in cells})


def bffhq(folder: Path) -> None:
    names = [
        f"0.5pct/{part}/{age}/{n}_{age}_{n}.png" for part in ("align", "conflict") for age in (0, 1) for n in (0, 1)
    ]
    _write(folder, {name: encoded(1) for name in (*names, "test/1_0_0.png", "test/2_1_1.png", "test/3_1_0.png")})


def spuco(folder: Path) -> None:
    parts = (
        ("spuco_birds", ("landbirds", "waterbirds"), ("land", "water")),
        ("spuco_dogs", ("small_dogs", "big_dogs"), ("indoor", "outdoor")),
    )
    places = [f"{p}/{s}/{c}/{g}/1.jpg" for p, cs, gs in parts for s in ("train", "test") for c in cs for g in gs]
    _write(folder, {name: encoded(2, "JPEG") for name in places})


def _tiny() -> dict[str, bytes | str]:
    wnids = ("n01443537", "n01629819")
    files: dict[str, bytes | str] = {
        f"train/{w}/images/{w}_{n}.JPEG": encoded(n, "JPEG") for w in wnids for n in (0, 1)
    }
    files |= {f"val/images/val_{n}.JPEG": encoded(n, "JPEG") for n in range(4)}
    files["val/val_annotations.txt"] = "".join(f"val_{n}.JPEG\t{wnids[n % 2]}\t0\t0\t9\t9\n" for n in range(4))
    files["words.txt"] = "".join(f"{wnid}\tfish {wnid}, other\n" for wnid in wnids)
    return files


def tiny(folder: Path) -> None:
    _write(folder, _tiny())


def tiny_zip(folder: Path) -> None:
    with zipfile.ZipFile(folder / "tiny-imagenet-200.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in _tiny().items():
            archive.writestr(f"tiny-imagenet-200/{name}", content)


def imagenet(folder: Path) -> None:
    from fastdd.data.sets.imagenet import SUBSETS

    names = [f"{split}/{wnid}/1.JPEG" for split in ("train", "val") for wnid in SUBSETS["imagefruit"]]
    _write(folder, {name: encoded(3, "JPEG") for name in names})


def backgrounds(folder: Path) -> None:
    idx(packed=False)(folder)
    _write(folder, {f"scenes/s{n}/{i}.jpg": encoded(n, "JPEG") for n in range(10) for i in range(2)})
