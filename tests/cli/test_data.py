"""fastdd data, and the data set's options on other commands."""

import re
import shutil

import numpy as np
import pytest
from PIL import Image

from fastdd import report
from fastdd.cli.datasets import data_options
from fastdd.data import SyntheticSet, available, load, open_store


@pytest.fixture
def photos(tmp_path):
    """Two classes of 12 + 2 images, of two groups by a file other than groups.csv."""
    random = np.random.RandomState(0)
    lines = ["path,group"]
    for split, count in (("train", 12), ("test", 2)):
        for name in ("cat", "dog"):
            (tmp_path / "photos" / split / name).mkdir(parents=True)
            for number in range(count):
                path = f"{split}/{name}/{number}.png"
                Image.fromarray(random.randint(0, 256, (20, 24, 3)).astype(np.uint8)).save(tmp_path / "photos" / path)
                lines.append(f"{path},{('day', 'night')[number % 2]}")
    (tmp_path / "mine.csv").write_text("\n".join(lines))
    return tmp_path / "photos"


def one_line(result, code, *words):
    assert result[0] == code, result
    assert result[2].startswith("error: ")
    assert result[2].count("\n") == 1
    for word in words:
        assert word in result[2]


def test_values_are_yaml_scalars():
    pairs = ["seed=3", "bias-ratio=0.5", "balanced=true", "protected=Male+Young", "root=a=b", "x=5e-3", "y=", "z=[1"]
    expected = {"seed": 3, "bias_ratio": 0.5, "balanced": True, "protected": "Male+Young", "root": "a=b", "x": 0.005}
    assert data_options(pairs, size=None, groups_csv="g") == {"groups_csv": "g", **expected, "y": "", "z": "[1"}
    with pytest.raises(ValueError, match="--data-option must be NAME=VALUE, not 'seed'"):
        data_options(["seed"])
    with pytest.raises(ValueError, match="the data set's size is given twice"):
        data_options(["size=8"], size=16)


def test_the_list_has_every_set_and_its_options(run):
    code, text, _ = run("data", "list")
    assert code == 0
    assert all(re.search(rf"^ *{name} ", text, re.MULTILINE) for name in available())
    text = " ".join(text.split())
    assert "target=Attractive, protected=Male, size=64, seed=30, skip_corrupt=false, balanced=false" in text
    assert "size=32, groups_csv=none, protected=group, skip_corrupt=false" in text


def test_options_reach_the_run_and_its_evaluation(run, photos, tmp_path):
    groups = f"groups_csv={tmp_path / 'mine.csv'}"
    options = ("--data-root", photos, "--data-option", "size=16", "--data-option", groups)
    small = ("--ipc", 1, "--iterations", 1, "--width", 4, "--batch-real", 4)
    out = tmp_path / "run"
    result = run("distill", "--dataset", "folder", *options, *small, "--debias", "fairdd", "--out", out)
    assert result[0] == 0, result
    made = SyntheticSet.load(out / "synthetic.safetensors")
    assert made.images.shape[-2:] == (16, 16)
    assert made.metadata["provenance"]["parameters"]["size"] == 16
    # Without them, evaluation would be on 32x32.
    json = tmp_path / "e.json"
    result = run("evaluate", out, "--data-root", photos, "--nets", 1, "--epochs", 1, "--json", json)
    assert result[0] == 0, result
    assert report.read_json(json)["rows"][0]["deo_m"] is not None
    result = run("evaluate", out, "--data-root", photos, "--nets", 1, "--epochs", 1, "--data-option", "size=8")
    one_line(result, 2, "(3, 16, 16)", "(3, 8, 8)")


def test_check_tells_counts_digests_and_what_is_published(run, photos, tmp_path):
    picture = tmp_path / "p.png"
    code, text, _ = run("data", "check", "folder", "--data-root", photos, "--size", 16, "--preview", picture)
    assert code == 0
    assert f"folder: 3x16x16, digest {load('folder', photos, size=16).digest()}" in text
    assert "train: 24 images per class and group" in text
    assert "28 images: SHA-256" in text
    assert Image.open(picture).size == (2 * 66 + 2, 2 * 66 + 2)
    (tmp_path / "bffhq" / "test").mkdir(parents=True)
    for name in ("0.5pct/align/0/1_0_0", "0.5pct/conflict/1/2_1_0", "test/3_0_1"):
        (tmp_path / "bffhq" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "bffhq" / f"{name}.png")
    code, text, _ = run("data", "check", "bffhq", "--data-root", tmp_path)
    assert code == 0
    assert "2 + 1 images; published are 19,200 + 1,000" in text


def test_a_folder_of_a_data_sets_name_does_not_hide_it(run, tmp_path):
    (tmp_path / "c-digits").mkdir()  # in the current folder, as those of downloads are
    code, text, _ = run("data", "check", "c-digits")
    assert code == 0
    assert "c-digits: 3x16x16" in text


def test_build_then_resume_and_force(run, photos, tmp_path):
    store = tmp_path / "store"
    build = ("data", "build", "folder", "--data-root", photos, "--out", store)
    code, text, _ = run(*build, "--size", 8, "--preview", tmp_path / "p.png", "--workers", 1)
    assert code == 0
    assert f"folder: 24 + 4 images in {store}" in text
    assert (tmp_path / "p.png").exists()
    one_line(
        run(*build, "--resume"), 1, "the packed store", "exists", "choose another path, or replace it with --force"
    )
    assert run(*build, "--size", 4, "--force")[0] == 0
    assert open_store(store).size == (4, 4)
    assert "digest" in run("data", "check", store)[1]
    one_line(run("data", "check", store, "--size", 4), 2, "is a folder, which has no options: leave out size")


def test_images_for_validation_are_counted(run, photos, tmp_path):
    options = ("folder", "--data-root", photos, "--data-option", "validation=0.25")
    code, text, _ = run("data", "build", *options, "--out", tmp_path / "store", "--size", 8)
    assert code == 0
    assert f"folder: 18 + 4 images, 6 for validation, in {tmp_path / 'store'}" in text
    assert "validation: 6 images per class and group" in run("data", "check", tmp_path / "store")[1]
    assert run("data", "build", *options, "--out", tmp_path / "store", "--size", 8, "--resume")[0] == 0
    one_line(
        run("data", "check", "c-digits", "--data-option", "validation=1"), 2, "validation 1 leaves nothing to train"
    )


def test_corrupt_images(run, photos, tmp_path):
    (photos / "train/dog/3.png").write_bytes(b"nonsense")
    build = ("data", "build", "folder", "--data-root", photos, "--out", tmp_path / "store")
    one_line(run(*build), 1, "cannot decode", "train/dog/3.png", "not an image", "--skip-corrupt")
    code, text, _ = run(*build, "--skip-corrupt", "--resume")
    assert code == 0
    assert "left out: train/dog/3.png: not an image" in text
    assert "1 corrupt image left out" in text
    assert "23 + 4 images in" in text
    assert "1 corrupt image left out" in run("data", "check", tmp_path / "store")[1]


def test_what_is_left_out_is_told(run, photos, tmp_path):
    root = shutil.copytree(photos, tmp_path / "more")
    (root / "train" / "cat" / "x.heic").write_bytes(b"")
    told = "left out, files of the type .heic: 1 (train/cat/x.heic)"
    assert told in run("data", "check", "folder", "--data-root", root)[1]
    assert told in run("data", "build", "folder", "--data-root", root, "--out", tmp_path / "store")[1]
    assert told in run("data", "check", tmp_path / "store")[1]


def test_groups_that_name_unknown_files_and_classes_without_images(run, photos, tmp_path):
    (tmp_path / "bad.csv").write_text("path,group\ntrain/cat/0.png,a\ntrain/cow/1.png,b\n")
    check = ("data", "check", "folder", "--data-root", photos)
    one_line(run(*check, "--groups-csv", tmp_path / "bad.csv"), 2, "bad.csv has no group for", "(and 26 more)")
    (photos / "groups.csv").write_text((tmp_path / "mine.csv").read_text() + "\ntrain/cow/1.png,day\n")
    one_line(run(*check), 2, "groups.csv names train/cow/1.png, which is not an image of this data set")
    (photos / "groups.csv").unlink()
    (photos / "train/ant").mkdir()
    one_line(run(*check), 2, "train/ant has no images")


def test_an_option_that_is_none(run, tmp_path):
    one_line(run("distill", "--dataset", "c-digits", "--data-option", "size=8"), 2, "c-digits has no size")
    one_line(
        run("data", "check", "c-digits", "--data-option", "seed=red"), 2, "seed of c-digits must be a whole number"
    )
    one_line(run("weights", "--dataset", "c-digits", "--data-option", "seed"), 2, "must be NAME=VALUE, not 'seed'")
    one_line(run("data", "build", "celeba", "--out", tmp_path / "s"), 2, "CelebA needs its files", "http://mmlab")
