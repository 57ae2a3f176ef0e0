"""Runs of decoupled methods: the same bytes however they come about, room, damage, ranks, teachers that do not fit."""

import dataclasses
import json
import signal

import pytest
import torch
from forked import Ranks, Script
from tiny_runs import inputs, made, modes_of, teacher, tiny

import fastdd
from fastdd import models, session
from fastdd.data import SyntheticSet
from fastdd.data.set_file import SetFile
from fastdd.experts import ExpertSettings, train_experts
from fastdd.methods import METHODS, Teacher
from fastdd.session import Callback, estimate
from fastdd.session.teachers import open_teacher

BY_CLASS = [name for name, kind in METHODS.items() if kind.by_class]
CASES = [(method, mode) for method in BY_CLASS for mode in modes_of(method)]
DATA = made("colour")

RUN = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
sys.path.insert(0, sys.argv[3])
from tiny_runs import inputs, made, tiny
from fastdd import session
from fastdd.core import ranks
from fastdd.session import Callback

class Told(Callback):
    def losses(self, run, first, values):
        print(run.step, flush=True)
        if sys.argv[2] == "slow":
            import time
            time.sleep(60 if run.step == 2 else 0)

ranks.join()
config = tiny("rded")
session.run(config, made("colour"), out=sys.argv[1], resume=True, callbacks=[Told()], **inputs(config, "colour"))
"""


class Stop(Callback):
    """After one unit."""

    def losses(self, run, first, values):
        run.stop.set()


def files(folder) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in ("synthetic.safetensors", "metrics.jsonl")}


@pytest.mark.parametrize(("method", "mode"), CASES)
def test_a_run_stopped_and_resumed_has_the_same_bytes_as_in_memory(method, mode, tmp_path):
    config = tiny(method, debias=mode)
    given = inputs(config, "colour")
    whole = session.run(config, DATA, **given)
    with pytest.raises(KeyboardInterrupt, match="stopped after 1 of"):
        session.run(config, DATA, out=tmp_path / "run", callbacks=[Stop()], **given)
    assert not (tmp_path / "run" / "synthetic.safetensors").exists()
    resumed = session.run(config, DATA, out=tmp_path / "run", resume=True, **given)
    assert torch.equal(resumed.images, whole.images)
    assert resumed.metadata["teacher"] == {"path": "./teacher", "digest": "digest"}
    whole.save(tmp_path / "saved.safetensors")
    assert (tmp_path / "saved.safetensors").read_bytes() == files(tmp_path / "run")["synthetic.safetensors"]
    again = files(tmp_path / "run")
    session.run(config, DATA, out=tmp_path / "run", resume=True, **given)  # nothing is left to do
    assert files(tmp_path / "run") == again


def test_a_killed_run_goes_on_and_ranks_make_the_same_bytes(tmp_path):
    from pathlib import Path

    helpers = Path(__file__).parents[1] / "helpers"
    config = tiny("rded")
    session.run(config, DATA, out=tmp_path / "whole", **inputs(config, "colour"))
    killed = Script(RUN, tmp_path / "killed", "slow", helpers)
    killed.wait_for_lines(2)
    killed.send(signal.SIGKILL)
    killed.kill()
    assert (tmp_path / "killed" / "metrics.jsonl").read_text().count("\n") == 2
    Script(RUN, tmp_path / "killed", "fast", helpers).succeed()
    for rank in (job := Ranks(RUN, tmp_path / "ranks", "fast", helpers)).scripts:
        rank.succeed()
    assert job.scripts[0].output == "2\n3\n"
    for name in ("killed", "ranks"):
        assert files(tmp_path / name) == files(tmp_path / "whole")


def test_images_that_were_damaged_are_made_again(tmp_path):
    config = tiny("rded")
    given = inputs(config, "colour")
    session.run(config, DATA, out=tmp_path, **given)
    right = files(tmp_path)
    content = bytearray(right["synthetic.safetensors"])
    content[-1] ^= 1
    (tmp_path / "synthetic.safetensors").write_bytes(content)
    with pytest.warns(RuntimeWarning, match="the images of unit 2 are damaged, and are made again"):
        session.run(config, DATA, out=tmp_path, resume=True, **given)
    assert files(tmp_path) == right


def test_another_teacher_or_other_settings_are_another_run(tmp_path):
    config = tiny("sre2l")
    given = inputs(config, "colour")
    session.run(config, DATA, out=tmp_path, **given)
    with pytest.raises(ValueError, match="holds a run with iterations=2, not 3"):
        session.run(tiny("sre2l", iterations=3), DATA, out=tmp_path, resume=True, **given)
    other = dataclasses.replace(given["teacher"], digest="other")
    with pytest.raises(ValueError, match="holds a run on other data"):
        session.run(config, DATA, out=tmp_path, resume=True, teacher=other)


def test_the_log_has_a_row_a_unit_and_a_set_file_is_not_begun_twice(tmp_path):
    config = tiny("rded")
    session.run(config, DATA, out=tmp_path / "run", **inputs(config, "colour"))
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 1, 2]
    one = SyntheticSet(
        torch.zeros(2, 3, 8, 8), torch.tensor([0, 1]), {"class_names": ["é", "b"], "mean": [0] * 3, "std": [1] * 3}
    )
    file = SetFile(tmp_path / "set.safetensors", one.images.shape, one.labels, one.metadata)
    assert not file.open()
    file.write([1], one.images[:1])
    assert file.open()
    file.finish()
    one.save(tmp_path / "other.safetensors")
    assert (tmp_path / "set.safetensors").read_bytes() == (tmp_path / "other.safetensors").read_bytes()


def test_estimates_are_of_a_unit(monkeypatch):
    monkeypatch.setattr(estimate, "_SECONDS", 0.0)
    for method in BY_CLASS:
        config = tiny(method)
        seconds, disk, notes = estimate.distillation(
            config, DATA, torch.device("cpu"), teacher=inputs(config, "colour")["teacher"]
        )
        assert seconds > 0
        assert disk == 4 * 6 * 192
        assert notes == (
            f"measured on one of {len(METHODS[method](config, DATA, teacher('colour')).units)} units of images",
        )


def test_teachers_come_from_experts_trained_networks_and_weights_as_others_have_them(tmp_path):
    settings = ExpertSettings.configure(
        dataset="made", arch="ConvNet", width=4, depth=2, num_experts=1, epochs=1, batch_train=12
    )
    train_experts(settings, DATA, out=tmp_path / "experts")
    found = open_teacher(tmp_path / "experts", DATA, {})
    assert found.network == {"arch": "ConvNet", "width": 4, "depth": 2}
    fastdd.train_network(DATA, out=tmp_path / "net", arch="ConvNetBN", width=4, depth=2, epochs=1)
    job = fastdd.Distillation(DATA, method="rded", teacher=tmp_path / "net", ipc=1, crops=2, device="cpu")
    assert repr(job) == f"Distillation(rded, none, {DATA.name}, IPC 1, ConvNetBN, cpu)"
    assert repr(job).replace(" ", "") in job._repr_html_().replace(" ", "")
    synthetic = fastdd.distill(DATA, method="rded", teacher=tmp_path / "net", ipc=1, crops=2)
    assert synthetic.metadata["run"]["arch"] == "ConvNetBN"
    net = models.build("ResNet18ImageNetBN", 3, 3, (8, 8), key=3)
    theirs = {
        name.replace("shortcut.", "downsample.").replace("classifier.", "fc."): value
        for name, value in net.state_dict().items()
    }
    torch.save(theirs, tmp_path / "resnet18.pth")
    network = {"arch": "ResNet18ImageNetBN"}
    assert torch.equal(
        open_teacher(tmp_path / "resnet18.pth", DATA, network).net.classifier.weight, net.classifier.weight
    )


def test_teachers_that_do_not_fit_are_refused_in_one_line(tmp_path):
    settings = ExpertSettings.configure(
        dataset="made", arch="ConvNetBN", width=4, depth=2, num_experts=1, epochs=1, batch_train=12
    )
    train_experts(settings, DATA, out=tmp_path / "experts")
    fastdd.train_network(DATA, out=tmp_path / "net", arch="ConvNet", width=4, depth=2, epochs=1)
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "other.pth")
    torch.save(models.build("ConvNet", 3, 5, (8, 8), width=4, depth=2).state_dict(), tmp_path / "five.pth")
    (tmp_path / "text.pth").write_text("no weights")
    five = {"arch": "ConvNet", "width": 4, "depth": 2}
    cases = [
        (None, DATA, r"a teacher is missing \(--teacher\)"),
        (tmp_path / "none", DATA, "there is no teacher .*none"),
        (tmp_path / "experts", DATA, r"have batch norms \(ConvNetBN\), whose statistics they do not keep"),
        (
            tmp_path / "experts",
            made("not square"),
            r"learned made, images of \[3, 8, 8\] in 3 classes; made has \[3, 8, 12\]",
        ),
        (tmp_path / "net", made("one class"), "is a network of images .* in 3 classes"),
        (tmp_path / "net", dataclasses.replace(DATA, mean=(0.4,) * 3), "learned images that were normalised otherwise"),
        (tmp_path / "five.pth", DATA, "is of other classes than the 3 of made"),
        (tmp_path / "other.pth", DATA, "has no weights of ConvNet: .* is missing"),
        (tmp_path / "text.pth", DATA, "is no file of torch.save's"),
    ]
    for path, data, told in cases:
        with pytest.raises((ValueError, FileNotFoundError, RuntimeError), match=told) as error:
            open_teacher(path, data, five)
        assert "\n" not in str(error.value)


def test_a_teacher_is_in_evaluation_mode_and_judges_an_image_by_itself():
    one = teacher("colour")
    assert isinstance(one, Teacher)
    images = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert (one.logits(images)[2] - one.logits(images[2:3])[0]).abs().max() < 1e-6


def test_evaluations_and_snapshots_on_the_way_are_refused():
    with pytest.raises(ValueError, match="eval_every 1: rded makes classes one after another"):
        fastdd.Distillation(DATA, method="rded", eval_every=1)
    with pytest.raises(ValueError, match="snapshots 2: sre2l makes classes"):
        fastdd.Distillation(DATA, method="sre2l", snapshots=2)
