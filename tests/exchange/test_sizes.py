"""Files of other projects that state more than they hold: told before memory is taken."""

import zipfile

import numpy as np
import pytest
import torch

import fastdd
from tests.exchange.samples import images


def read(path):
    return fastdd.import_synthetic(path, mean=[0.5], std=[0.5])


@pytest.mark.parametrize("label", [10**5, 10**9, 2**62])
def test_a_label_that_is_no_classs_number(result, label):
    path = result(sets=[[images(4), torch.tensor([0, 1, 2, label])]])
    with pytest.raises(ValueError, match=rf"the label {label} of one of its 4 images is no class's number; if it is, "):
        read(path)


def test_a_subset_keeps_its_numbers(result):
    path = result(sets=[[images(4), torch.tensor([0, 1, 2, 999])]])
    assert len(read(path).metadata["class_names"]) == 1000


@pytest.mark.parametrize("position", [0, 1])
def test_values_repeated_by_strides(result, position):
    value = [images(1).expand(3 * 10**7, 1, 28, 28), torch.zeros(1, dtype=torch.int64).expand(3 * 10**7)]
    value[1 - position] = [images(4), torch.tensor([0, 1, 2, 3])][1 - position]
    with pytest.raises((ValueError, RuntimeError), match=r"would unpack to|labels must be numbers"):
        read(result(sets=[value]))


def test_an_archive_that_unpacks_to_far_more(tmp_path):
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("images", "labels"):
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                for _ in range(40):
                    member.write(bytes(1 << 20))
    with pytest.raises(RuntimeError, match=r"x.npz would unpack to 83,886,080 bytes or more from .*get it again"):
        read(path)


def test_an_array_cut_short(tmp_path):
    np.savez(tmp_path / "x.npz", images=np.zeros((4, 1, 8, 8), np.float32), labels=np.arange(4))
    with zipfile.ZipFile(tmp_path / "x.npz") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["images.npy"] = members["images.npy"].replace(b"(4, 1, 8, 8)", b"(9999999999, 1, 8, 8)", 1)[:200]
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(RuntimeError, match=r"x.npz is damaged: images.npy "):
        read(tmp_path / "x.npz")
