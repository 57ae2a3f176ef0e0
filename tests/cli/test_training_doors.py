"""Recipes behind ``experts``, ``distill --networks`` and ``evaluate``; one line for every bad input."""

import json

import numpy as np
import pytest

from fastdd.data import SyntheticSet
from fastdd.experts.store import Experts

DATA = ("--dataset", "c-digits")
FEW = ("--num-experts", 2, "--epochs", 1, "--width", 4, "--depth", 1, "--batch-train", 256, "--eval-every", 0)
SMALL = ("--ipc", 1, "--iterations", 2, "--batch-real", 4)


@pytest.fixture
def networks(run, tmp_path):
    words = ("experts", *DATA, *FEW, "--training", "lff", "--constant", "q=0.5")
    code, text, errors = run(*words)
    assert (code, errors) == (0, "")
    assert "2 experts, 1 epochs" in text
    return tmp_path / "runs" / "experts-lff-c-digits"


def test_experts_and_networks_of_a_recipe_from_the_command_line(run, networks, tmp_path):
    config = Experts.open(networks).manifest["config"]
    assert (config["training"], config["constants"], config["debias"]) == ("lff", {"q": 0.5}, "none")
    again = ("experts", "--config", networks / "manifest.json", "--out", "again")
    assert run(*again)[0] == 0
    assert Experts.open(tmp_path / "again").digest() == Experts.open(networks).digest()
    assert run("experts", "export", networks, "--out", "buffers")[0] == 0
    assert "training lff" in run("experts", "check", networks)[1]
    buffers = tmp_path / "buffers" / "replay_buffer_0.pt"
    words = ("experts", "import", buffers, *DATA, "--width", 4, "--depth", 1, "--training", "lff", "--out", "imported")
    assert run(*words)[0] == 0
    assert Experts.open(tmp_path / "imported").digest() == Experts.open(networks).digest()

    words = ("distill", *DATA, *SMALL, "--networks", networks, "--out", "run", "--nets", 1, "--epochs", 1)
    code, text, errors = run(*words, "--json", "r.json")
    assert (code, errors) == (0, "")
    (row,) = json.loads((tmp_path / "r.json").read_text())["rows"]
    assert row["trained"] == "lff"
    assert "dm on lff" in text
    made = SyntheticSet.load(tmp_path / "run" / "synthetic.safetensors")
    assert (made.metadata["networks"]["training"], made.metadata["run"]["networks"]) == ("lff", str(networks))
    # Its configuration names them, so that nothing else is needed to have it again, or to evaluate it.
    code, _, errors = run("distill", "--config", "run/config.yaml", *DATA, "--out", "same")
    assert (code, errors) == (0, "")
    assert (SyntheticSet.load(tmp_path / "same" / "synthetic.safetensors").images == made.images).all()
    np.save(tmp_path / "groups.npy", np.arange(10))
    words = ("evaluate", "run", "--nets", 1, "--epochs", 1, "--training", "lw", "--groups", "groups.npy")
    code, text, errors = run(*words)
    assert (code, errors) == (0, "")
    assert "training lw: groups of the set's images are given, of groups.npy" in text
    assert run("report", "run")[0] == 0
    assert "dm on lff" in next((tmp_path / "run").glob("*.html")).read_text()


def test_estimates_know_recipes_and_networks(run, networks, monkeypatch):
    monkeypatch.setattr("fastdd.session.estimate._SECONDS", 0.01)
    assert run("estimate", "experts", *DATA, *FEW, "--training", "lw")[0] == 0
    assert run("estimate", *DATA, *SMALL, "--networks", networks)[0] == 0


def test_bad_input_of_each_door_is_one_line(run, networks, tmp_path):
    experts, distill = ("experts", *DATA, *FEW), ("distill", *DATA, *SMALL)
    for words, code, why in (
        ((*experts, "--training", "dfa"), 2, "training: it makes more than one network's parameters"),
        ((*experts, "--training", "x"), 2, "unknown training 'x'; one of: erm"),
        ((*experts, "--training", "lff", "--debias", "fairdd"), 2, "training lff has a loss of its own"),
        ((*experts, "--training", "lff", "--constant", "z=1"), 2, "training lff has no constant 'z'; it has: q, decay"),
        (
            (*experts, "--training", "lff", "--groups", "kmeans"),
            2,
            "groups are for debias fairdd, barycenter or",
        ),
        ((*experts, "--training", "lff", "--sampling", "weighted"), 2, "sampling weighted is for debias"),
        ((*distill, "--networks", "nothing"), 2, "there are no trained networks in nothing: give a folder of experts"),
        ((*distill, "--networks", networks, "--width", 8), 2, "are another network: their parameter 0 is"),
        ((*distill, "--networks", networks, "--networks-epoch", 7), 2, "were trained for 1 epochs"),
        ((*distill, "--networks-epoch", 1), 2, "networks_epoch 1 is of trained networks: give networks too"),
        ((*distill, "--method", "ncfm", "--networks", networks), 2, "networks is a setting of dm, dc"),
        (("evaluate", "random", *DATA, "--ipc", 1, "--groups", "g.npy"), 2, "groups are of the images of a synthetic"),
    ):
        found, text, errors = run(*words)
        assert (found, text, errors.count("\n")) == (code, "", 1), errors
        assert why in errors
    assert not (tmp_path / "runs" / "dm-none-c-digits-1").exists()
