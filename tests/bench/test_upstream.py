"""Published code is taken from its checkout, with nothing left behind."""

import sys

import pytest
import torch

from fastdd.bench.framework.upstream import Upstream


def test_a_checkout_is_imported_without_what_its_data_sets_need(checkout):
    modules, path = set(sys.modules), list(sys.path)
    code = Upstream.open(checkout)
    assert (code.name, code.commit) == ("DatasetCondensation", None)
    x = torch.rand(3, 3, 16, 16)
    first, again = (code.augment(x, "color_crop_rotate", seed) for seed in (4, 4))
    assert torch.equal(first, again)
    assert not torch.equal(code.augment(x, "color_crop_rotate", 5), first)
    assert code.utils.CelebA.__name__ == "CelebA"
    # Neither its modules, nor stand-ins, nor compiled files stay.
    left = {name for name in set(sys.modules) - modules if not name.startswith(("fastdd", "torch", "scipy"))}
    assert not left & {"utils", "networks", "data_handler", "torchvision", "no_such_package", "cv2_that_is_missing"}
    assert sys.path == path
    assert not list(checkout.rglob("__pycache__"))


def test_modules_of_the_same_name_come_back(checkout, monkeypatch):
    own = type(sys)("utils")
    monkeypatch.setitem(sys.modules, "utils", own)
    assert Upstream.open(checkout).utils is not own
    assert sys.modules["utils"] is own


def test_other_folders_are_refused(checkout, tmp_path):
    with pytest.raises(
        ValueError, match=r"--upstream .*nowhere is no checkout .*utils.py with DiffAugment, .*not found"
    ):
        Upstream.open(tmp_path / "nowhere")
    text = (checkout / "networks.py").read_text()
    (checkout / "networks.py").write_text(text.replace("class ConvNet", "class Other"))
    with pytest.raises(ValueError, match=r"networks.py with ConvNet was not found"):
        Upstream.open(checkout)


def test_a_checkout_that_cannot_be_imported_is_one_line(checkout):
    with open(checkout / "utils.py", "a") as file:
        file.write("\n1 / 0\n")
    with pytest.raises(RuntimeError, match=r"utils.py can't be imported: division by zero"):
        Upstream.open(checkout)
    assert "utils" not in sys.modules
