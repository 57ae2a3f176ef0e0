"""Networks that an evaluation keeps, and ``fastdd explain``."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import fastdd
from fastdd.data import Zca
from fastdd.data.initial import random_set
from fastdd.evaluation import count_right
from fastdd.session.trained import network_files, read_network

TINY = {"nets": 2, "epochs": 2, "width": 4, "depth": 1, "device": "cpu"}


@pytest.fixture(scope="module")
def digits():
    """Tested on three colours, as what is tested here does not depend on them."""
    return fastdd.data.load("c-digits", missing_groups=7)


def counts_of(path, data):
    stored, test = read_network(path), data.test
    labels, groups = (torch.from_numpy(values) for values in (test.labels, test.groups))
    return count_right(stored.net, stored.read(test), labels, groups, data)


@pytest.mark.parametrize("training", ["erm", "dfa"])
@pytest.mark.parametrize("whitened", [False, True])
def test_kept_networks_read_again_get_the_same_right(digits, tmp_path, whitened, training):
    zca = Zca.fit(digits.train.images[:200]) if whitened else None
    what = random_set(digits, 1, 0, zca)
    # As an imported set is: normalised otherwise than the data set.
    other = {} if whitened else {"mean": [0.25] * 3}
    what = replace(what, metadata={**what.metadata, **other, "method": "dm", "debias": "fairdd", "ipc": 1})
    plain = fastdd.evaluate(what, digits, training=training, **TINY)
    kept = fastdd.evaluate(what, digits, training=training, keep_nets=tmp_path / "nets", **TINY)
    paths = network_files(tmp_path / "nets")
    assert [path.name for path in paths] == ["ConvNet-0.safetensors", "ConvNet-1.safetensors"]
    for path, before, counts in zip(paths, plain.counts, kept.counts, strict=True):
        assert torch.equal(before.right, counts.right)
        assert torch.equal(counts_of(path, digits).right, counts.right)
        about = read_network(path).about
        assert about["evaluation"]["right"] == counts.right.tolist()
        assert about["evaluation"]["of"] == {"dataset": "c-digits", "method": "dm", "debias": "fairdd", "ipc": 1}
        assert about["test"]["accuracy"] == counts.metrics().accuracy
    assert torch.equal(
        fastdd.load_network(tmp_path / "nets").state_dict()[next(iter(read_network(paths[0]).net.state_dict()))],
        next(iter(read_network(paths[0]).net.state_dict().values())),
    )


def test_networks_that_are_there_are_not_replaced(digits, tmp_path):
    (tmp_path / "ConvNet-0.safetensors").write_text("mine")
    with pytest.raises(ValueError, match=r"already holds networks \(ConvNet-0.safetensors\); give another folder"):
        fastdd.evaluate("random", digits, ipc=1, keep_nets=tmp_path, **TINY)
    assert (tmp_path / "ConvNet-0.safetensors").read_text() == "mine"
    with pytest.raises(ValueError, match="is not a network of fastdd's"):
        fastdd.explain(tmp_path, digits)
    with pytest.raises(
        FileNotFoundError, match=r"there is no network at .*: fastdd train --out and evaluate --keep-nets"
    ):
        fastdd.explain(tmp_path / "nowhere", digits)


def test_networks_are_explained_in_figures_and_pictures(run, tmp_path, digits):
    of_data = ("--dataset", "c-digits", "--data-option", "missing_groups=7")
    words = ("evaluate", "random", *of_data, "--ipc", 1, "--nets", 2, "--epochs", 1)
    assert run(*words, "--keep-nets", "nets")[0] == 0
    assert run("train", *of_data, "--epochs", 1, "--width", 4, "--depth", 1, "--out", "alone")[0] == 0
    words = ("explain", "nets", "alone", *of_data, "--features", 40, "--images", 2, "--masks", 20)
    code, out, errors = run(*words, "--projection", "pca", "--out", "pictures", "--json", "e.json")
    assert (code, errors) == (0, "")
    assert "random" in out
    assert "erm" in out
    document = json.loads((tmp_path / "e.json").read_text())
    assert document["meta"]["masks"] == 20
    first, second, alone = document["rows"]
    assert first["network"].endswith("ConvNet-0.safetensors")
    assert second["network"].endswith("ConvNet-1.safetensors")
    for row in (first, second, alone):
        assert -1 <= row["silhouette_class"] <= 1
        assert 0 <= row["inside"] <= 1
        assert (row["features"], row["images"]) == (40, 2)
    again = fastdd.explain(tmp_path / "nets", digits, features=40, images=2, masks=20, projection="none")
    assert again.silhouette_group == first["silhouette_group"]
    assert again.inside == first["inside_of_images"]
    objects = fastdd.data.objects_in(digits, digits.test.images[again.explained])
    assert again.area == objects.mean((1, 2)).tolist()
    for name in ("features.png", "saliency.png"):
        with Image.open(tmp_path / "pictures" / name) as picture:
            assert len(np.unique(np.asarray(picture))) > 50


def test_a_network_of_other_images_or_settings_that_can_not_be_are_one_line(run, digits, tmp_path):
    assert run("train", "--dataset", "c-digits", "--epochs", 1, "--width", 4, "--depth", 1, "--out", "net")[0] == 0
    other = replace(digits, class_names=tuple(reversed(digits.class_names)))
    with pytest.raises(ValueError, match="give the data set that it was trained on"):
        fastdd.explain(tmp_path / "net", other)
    for words, why in (
        (("--cells", 40), "a mask of images of 16x16 pixels has 2 to 16 cells a side, not 40"),
        (("--projection", "umap"), "projection must be one of tsne, pca, none, not 'umap'"),
    ):
        pictures = () if "--cells" in words else ("--out", "pictures")
        code, _, errors = run("explain", "net", "--dataset", "c-digits", *words, *pictures)
        assert (code, errors) == (2, f"error: {why}\n")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--projection", "pca"), "--projection pca is of features.png: give --out too, or leave it out"),
        (
            ("--images", 0, "--of", "predicted"),
            "--of predicted is of saliency, and --images 0 asks for none: leave it out",
        ),
        (("--images", 0, "--masks", 9), "--masks 9 is of saliency, and --images 0 asks for none: leave it out"),
        (("--images", 0, "--cells", 5), "--cells 5 is of saliency, and --images 0 asks for none: leave it out"),
    ],
)
def test_an_option_of_what_is_not_made_is_refused(run, words, why):
    code, _, errors = run("explain", "nowhere", "--dataset", "c-digits", *words)
    assert (code, errors) == (2, f"error: {why}\n")


def test_where_the_object_is(digits):
    mine = replace(digits, provenance={"builder": "mine"})
    assert fastdd.data.objects_in(mine, digits.test.images) is None
    # The colours of a digit show the same object.
    of_one = fastdd.data.objects_in(digits, digits.test.images[:3])
    assert (of_one == of_one[0]).all()
    assert 0.1 < of_one.mean() < 0.5
    background = replace(digits, provenance={"builder": "c-mnist-bg"})
    image = np.array([[[[0, 255]], [[0, 128]], [[0, 0]]]], np.uint8)
    assert fastdd.data.objects_in(background, image).tolist() == [[[True, False]]]


def test_saliency_is_of_the_class_that_is_asked_for(digits, tmp_path):
    path = network_files(_one_network(digits, tmp_path))[0]
    asked = {"features": 20, "images": 10, "masks": 20, "projection": "none", "device": "cpu"}
    own, taken = (fastdd.explain(path, digits, of=of, **asked) for of in ("own", "predicted"))
    stored = read_network(path)
    shown = digits.test.take(own.explained)
    with torch.no_grad():
        expected = stored.net.eval()(stored.read(shown).read(torch.arange(10))).argmax(1)
    assert own.explained_classes.tolist() == shown.labels.tolist()
    assert taken.explained_classes.tolist() == expected.tolist()
    same = own.explained_classes == taken.explained_classes
    assert not same.all()  # as a network of two epochs knows little
    assert np.array_equal(own.saliency.excess[same], taken.saliency.excess[same])
    assert not np.allclose(own.saliency.excess[~same], taken.saliency.excess[~same])
    with pytest.raises(ValueError, match="of must be one of own, predicted, not 'best'"):
        fastdd.explain(path, digits, of="best")


def _one_network(digits, tmp_path):
    fastdd.evaluate("random", digits, ipc=1, keep_nets=tmp_path / "one", **{**TINY, "nets": 1})
    return tmp_path / "one"
