"""Experts side by side: the trajectories of each by itself, and the same bits after a stop between two of them."""

import json

import pytest
import torch
from tiny_runs import made

from fastdd.experts import ExpertSettings
from fastdd.experts.side_by_side import SideBySideTrainer
from fastdd.experts.training import train_experts


def trained(out, side_by_side, *, resume=False, **settings):
    tiny = {"num_experts": 3, "epochs": 4, "width": 4, "depth": 2, "batch_train": 16, "eval_every": 2}
    config = ExpertSettings.configure(dataset="made", arch="ConvNet", **{**tiny, **settings})
    return train_experts(config, made("colour"), out=out, resume=resume, side_by_side=side_by_side)


@pytest.mark.parametrize(
    "settings",
    [
        {"debias": "fairdd", "momentum": 0.5, "decay": True},
        {"debias": "fairdd", "sampling": "weighted", "momentum": 0.0, "decay": False},
    ],
    ids=["weights and momentum", "draws"],
)
def test_trajectories_are_those_of_each_by_itself(settings, tmp_path):
    alone = trained(tmp_path / "alone", None, **settings)
    for places in (1, 2, 3):
        found = trained(tmp_path / str(places), places, **settings)
        for number in range(3):
            way = alone.at(number, 4) - alone.at(number, 0)
            assert torch.equal(found.at(number, 0), alone.at(number, 0))
            # float32 rounds to 1e-7 of the parameters, which are some 30 times as long as their way; 12 steps.
            assert (found.at(number, 4) - alone.at(number, 4)).norm() < 1e-4 * way.norm()
            entries = [made.manifest["experts"][number] for made in (found, alone)]
            assert [len(entry["evaluations"]) for entry in entries] == [2, 2]


def test_a_stop_between_two_of_them_changes_no_bit(tmp_path, monkeypatch):
    whole = trained(tmp_path / "whole", 2, decay=True, momentum=0.5)
    conclude, calls = SideBySideTrainer.conclude, []

    def stopping(self, *arguments):
        if len(calls) == 5:  # expert 0 is an epoch ahead of expert 1
            raise KeyboardInterrupt
        calls.append(arguments[0])
        conclude(self, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(SideBySideTrainer, "conclude", stopping)
        with pytest.raises(KeyboardInterrupt):
            trained(tmp_path / "stopped", 2, decay=True, momentum=0.5)
    assert calls == [0, 1, 0, 1, 0]
    resumed = trained(tmp_path / "stopped", 2, resume=True, decay=True, momentum=0.5)
    assert torch.equal(resumed.values, whole.values)
    hashes = [
        [entry["sha256"] for entry in json.loads((tmp_path / name / "manifest.json").read_text())["experts"]]
        for name in ("stopped", "whole")
    ]
    assert hashes[0] == hashes[1]
