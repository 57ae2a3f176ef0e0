"""What objects show of themselves, in a line and in a notebook; and sets for one's own training loop."""

import base64
import dataclasses
import io
import re

import numpy as np
import pytest
import torch
from PIL import Image

import fastdd
from fastdd.data import SyntheticSet, Zca
from fastdd.evaluation import Evaluation, GroupCounts
from fastdd.evaluation.protocol import Protocol

HOSTILE = "<b>& \x1b[2J"


@pytest.fixture(scope="module")
def made():
    images = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    names = ["cat", "dog", HOSTILE]
    metadata = {"class_names": names, "mean": [0.5] * 3, "std": [0.25] * 3, "method": "dm", "debias": "none", "ipc": 2}
    return SyntheticSet(images, torch.arange(6) % 3, metadata)


def test_objects_are_told_in_a_line(made, tmp_path):
    data = fastdd.data.load("c-digits")
    job = fastdd.Distillation(data, ipc=1, iterations=2, width=8)
    right, total = torch.tensor([[1, 2]]), torch.tensor([[4, 4]])
    result = Evaluation("ConvNet", (GroupCounts(right, total),), 1.0, Protocol(epochs=1), 0)
    for thing, words in (
        (data, "Dataset('c-digits', 1,297 + 5,000 images 3x16x16, 10 classes, 10 groups)"),
        (data.train, "Split(1,297 images 3x16x16)"),
        (made, "SyntheticSet(6 images 3x8x8, 3 classes, dm none, IPC 2)"),
        (job, "Distillation(dm, none, c-digits, IPC 1, 2 iterations, ConvNet, cpu)"),
        (result, "Evaluation(ConvNet, 1 network, test set, %: accuracy 37.5 ± 0.0"),
        (Zca(torch.zeros(4), torch.eye(4)), "Zca(of 4 values)"),
    ):
        assert repr(thing).startswith(words)
        assert len(repr(thing)) < 200
        assert "\n" not in repr(thing)
    for page in (data._repr_html_(), made._repr_html_(), job._repr_html_(), result._repr_html_()):
        assert "<b>& " not in page
        assert "\x1b" not in page
        pictures = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
        assert pictures
        Image.open(io.BytesIO(base64.b64decode(pictures[0]))).load()


def test_runs_and_methods_too():
    seen = []

    class Look(fastdd.session.Callback):
        def losses(self, run, first, values):
            seen.extend([repr(run), repr(run.method), run._repr_html_()])

    fastdd.distill(fastdd.data.load("c-digits"), ipc=1, iterations=1, width=4, batch_real=8, callbacks=[Look()])
    assert seen[:2] == ["Run(Dm(none, c-digits, IPC 1, ConvNet), step 1 of 1)", "Dm(none, c-digits, IPC 1, ConvNet)"]
    assert "data:image/png" in seen[2]


def test_a_set_for_ones_own_loop(made, tmp_path):
    images, labels = made.dataset().tensors
    assert (images == made.images).all()
    assert (labels == made.labels).all()
    pixels = made.pixels()
    assert pixels.shape == (6, 8, 8, 3)
    assert pixels.dtype == np.uint8
    expected = ((made.images * 0.25 + 0.5) * 255).clamp(0, 255).round().to(torch.uint8)
    assert (made.pixels("NCHW") == expected.numpy()).all()
    with pytest.raises(ValueError, match="layout must be NHWC or NCHW, not 'HWC'"):
        made.pixels("HWC")
    soft = torch.full((6, 3), 1 / 3)
    assert (dataclasses.replace(made, soft_labels=soft).dataset().tensors[2] == soft).all()
    files = made.save_images(tmp_path / "images")
    assert [file.parent.name for file in files[:2]] == ["cat", "dog"]
    for file, image in zip(files, pixels, strict=True):
        assert (np.asarray(Image.open(file)) == image).all()
    assert len(list((tmp_path / "images").rglob("*.png"))) == 6
    with pytest.raises(ValueError, match="is not an empty folder"):
        made.save_images(tmp_path / "images")


def test_images_that_hold_several_are_decoded(made):
    several = dataclasses.replace(made, metadata={**made.metadata, "formation": 2})
    assert len(several.dataset()) == len(several.pixels()) == 24
    assert (several.dataset().tensors[0] == several.decoded().images).all()


def test_sets_are_loaded_by_the_name_of_the_package(made, tmp_path):
    made.save(tmp_path / "a.safetensors")
    assert fastdd.load_synthetic(tmp_path / "a.safetensors").digest() == made.digest()


def test_progress_is_lines_where_there_is_no_terminal(capsys):
    data = fastdd.data.load("c-digits")
    quiet = fastdd.distill(data, ipc=1, iterations=2, width=4, batch_real=8, progress=False)
    assert capsys.readouterr().err == ""
    shown = fastdd.distill(data, ipc=1, iterations=2, width=4, batch_real=8, progress=True)
    lines = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"dm none c-digits: [12]/2 \(\d+ %\), 0:\d\d gone, .*loss [\d.]+", lines[0])
    assert re.fullmatch(r"dm none c-digits: done in 0:\d\d", lines[-1])
    assert shown.digest() == quiet.digest()
