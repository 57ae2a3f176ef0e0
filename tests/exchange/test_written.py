"""What is written for others, DC-Bench among them."""

import json
from dataclasses import replace

import pytest
import torch
from PIL import Image

import fastdd
from fastdd.exchange import torch_files
from tests.exchange.samples import images, made, read_mnist, refused, same


def test_results_load_everywhere(tmp_path):
    original = replace(made(learning_rate=0.02), soft_labels=None)
    original.images.requires_grad_()
    fastdd.export_synthetic(original, tmp_path, to="dc")
    value = torch.load(tmp_path / "res_DM_CIFAR10_ConvNetD2_2ipc.pt", weights_only=True)
    ((pixels, labels),) = value["data"]
    assert (pixels.dtype, labels.dtype, pixels.requires_grad) == (torch.float32, torch.int64, False)
    assert torch.equal(pixels, original.images)
    assert value["accs_all_exps"] == {}


def test_published_accuracies_are_written_as_fractions_of_python(result, tmp_path):
    read = read_mnist(result(accuracies={"ConvNet": [50.0, 25.0]}))
    fastdd.export_synthetic(read, tmp_path / "again.pt", to="dc")
    stored = torch.load(tmp_path / "again.pt", weights_only=True)["accs_all_exps"]
    assert stored == {"ConvNet": [0.5, 0.25]}
    assert type(stored["ConvNet"][0]) is float


def test_only_what_is_exported_is_stored(tmp_path):
    """Not the tensor that it is a part of."""
    large = images(1000, (3, 8, 8))
    original = replace(made(), images=large[:4])
    file = fastdd.export_synthetic(original, tmp_path / "a.pt", to="dc").files[0]
    assert file.stat().st_size < large.nbytes / 10


def test_soft_labels_where_there_is_no_place_for_them(tmp_path):
    soft = torch.tensor([[0.9, 0.1], [0.4, 0.6], [0.0, 1.0], [0.25, 0.75]])
    original = made(soft_labels=soft, learning_rate=0.5)
    for to in ("dc", "idc", "dcbench", "folder"):
        with refused(ValueError, "no soft labels: export to mtt or npz, or classes only"):
            fastdd.export_synthetic(original, tmp_path / to, to=to)
        written = fastdd.export_synthetic(original, tmp_path / to, to=to, hard_labels=True)
        assert any("step size 0.5 is not in it" in note for note in written.notes)
    fastdd.export_synthetic(original, tmp_path / "mtt", to="mtt")
    assert torch.equal(torch.load(tmp_path / "mtt" / "labels_best.pt", weights_only=True), soft)
    assert torch.load(tmp_path / "mtt" / "lr_best.pt", weights_only=True).item() == 0.5


def test_nothing_is_replaced_unasked(tmp_path):
    for to, name in (("dc", "a.pt"), ("mtt", "m"), ("idc", "i"), ("npz", "n.npz"), ("dcbench", "b")):
        fastdd.export_synthetic(made(learning_rate=0.5), tmp_path / name, to=to)
        with refused(ValueError, "exists; give another place, or --force"):
            fastdd.export_synthetic(made(), tmp_path / name, to=to)
        fastdd.export_synthetic(made(), tmp_path / name, to=to, force=True)
    # What the set does not have, the folder must not keep of another.
    assert not (tmp_path / "m" / "lr_best.pt").exists()
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "mine.txt").write_text("keep")
    for force in (False, True):
        with refused(ValueError, "not an empty folder"):
            fastdd.export_synthetic(made(), tmp_path / "f", to="folder", force=force)
    assert (tmp_path / "f" / "mine.txt").read_text() == "keep"
    with refused(ValueError, "must end in .npz"):
        fastdd.export_synthetic(made(), tmp_path / "n", to="npz")
    with refused(ValueError, "unknown format 'png'"):
        fastdd.export_synthetic(made(), tmp_path / "n", to="png")


def test_a_full_disk_leaves_no_half_folder(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with refused(OSError, "No space left"):
        fastdd.export_synthetic(made(), tmp_path / "f", to="folder")
    assert list(tmp_path.iterdir()) == []


def test_json_beside_is_readable(tmp_path):
    fastdd.export_synthetic(made(), tmp_path / "m", to="mtt")
    content = json.loads((tmp_path / "m" / "fastdd.json").read_text())
    assert set(content) == {"sha256", "metadata"}
    assert content["metadata"]["class_names"] == ["cat", "dog"]


def test_dc_bench(tmp_path):
    root = tmp_path / "distilled_results"
    fastdd.export_synthetic(made(), root, to="dcbench")
    assert (root / "DM/CIFAR10/IPC2/res_DM_CIFAR10_ConvNet_2ipc.pt").is_file()
    fastdd.export_synthetic(made(), tmp_path, to="dcbench", method="tm")  # a checkout, as it has that folder
    pair = [torch.load(root / f"TM/CIFAR10/IPC2/{name}_best.pt", weights_only=True) for name in ("images", "labels")]
    assert torch.equal(pair[0], made().images)
    assert torch.equal(pair[1], made().labels)
    with refused(ValueError, "holds 2 such sets (DM/CIFAR10/IPC2, TM/CIFAR10/IPC2)", "--method"):
        fastdd.import_synthetic(root)
    for path in (root, tmp_path):
        for method in ("dm", "tm"):
            same(
                fastdd.import_synthetic(path, method=method, ipc=2),
                replace(made(), metadata={**made().metadata, "method": method}),
            )
    with refused(ValueError, "has no such set"):
        fastdd.import_synthetic(root, ipc=50)
    with refused(ValueError, "no such set"):
        fastdd.import_synthetic(root, dataset="mnist")
    with refused(ValueError, "DC-Bench has no method kip"):
        fastdd.export_synthetic(made(), root, to="dcbench", method="kip")
    with refused(ValueError, "classes have 1 to 3 images"):
        fastdd.export_synthetic(made(labels=(0, 1, 1, 1)), root, to="dcbench")


def test_tiny_imagenet_for_dc_bench_is_in_five_parts(tmp_path):
    labels = [label for label in range(2) for _ in range(50)]
    original = made(size=2, labels=labels, metadata={"dataset": "tiny-imagenet", "method": "mtt"})
    written = fastdd.export_synthetic(original, tmp_path, to="dcbench")
    assert [file.name for file in written.files[:5]] == [f"images_best_{part}.pt" for part in range(5)]
    assert torch.equal(fastdd.import_synthetic(tmp_path).images, original.images)


def test_links_stay_and_what_they_point_to_is_written(tmp_path):
    (tmp_path / "far").mkdir()
    for to, names in (("mtt", ("images_best.pt", "labels_best.pt", "lr_best.pt")), ("idc", ("data.pt",))):
        folder = tmp_path / to
        fastdd.export_synthetic(made(learning_rate=0.5), folder, to=to)
        for name in names:
            (folder / name).rename(tmp_path / "far" / name)
            (folder / name).symlink_to(tmp_path / "far" / name)
        with refused(ValueError, "exists; give another place, or --force"):
            fastdd.export_synthetic(made(), folder, to=to)
        fastdd.export_synthetic(made(learning_rate=0.25), folder, to=to, force=True)
        assert all((folder / name).is_symlink() for name in names)
    assert torch.load(tmp_path / "far" / "lr_best.pt", weights_only=True).item() == 0.25
    fastdd.export_synthetic(made(), tmp_path / "mtt", to="mtt", force=True)
    assert not (tmp_path / "mtt" / "lr_best.pt").is_symlink()
    assert torch.equal(torch.load(tmp_path / "far" / "images_best.pt", weights_only=True), made().images)


@pytest.mark.parametrize(("to", "method"), [("mtt", None), ("dcbench", "mtt")])
def test_a_kill_while_a_set_is_replaced_leaves_no_mix_of_two(tmp_path, monkeypatch, to, method):
    other = replace(made(), images=made().images + 1, labels=made().labels.flip(0))
    fastdd.export_synthetic(made(), tmp_path / "out", to=to, method=method)
    seen = []

    def spy(value, path):
        seen.append(sorted(file.name for file in tmp_path.rglob("*_best.pt")))
        save(value, path)

    save = torch_files.save
    monkeypatch.setattr(torch_files, "save", spy)
    fastdd.export_synthetic(other, tmp_path / "out", to=to, method=method, force=True)
    assert seen == [[], ["labels_best.pt"]]
