"""``fastdd experts``, ``distill --method mtt`` and ``evaluate``, one after another; one line for every bad input."""

import numpy as np
import pytest
import torch
import yaml

from fastdd import report
from fastdd.cli import main
from fastdd.data import SyntheticSet
from fastdd.experts.store import Experts

DATA = ["--dataset", "c-digits"]
FEW = ["--ipc", 1, "--iterations", 2, "--syn-steps", 2, "--expert-epochs", 1, "--max-start-epoch", 2]


@pytest.fixture(scope="module")
def experts(tmp_path_factory):
    """Folders of tiny experts: plain, debiased, and of whitened images."""
    folder = tmp_path_factory.mktemp("experts")
    common = [
        "experts",
        *DATA,
        "--num-experts",
        2,
        "--epochs",
        2,
        "--width",
        4,
        "--batch-train",
        256,
        "--eval-every",
        0,
    ]
    for name, more in {"none": [], "fairdd": ["--debias", "fairdd"], "zca": ["--zca"]}.items():
        with pytest.raises(SystemExit) as done:
            main([str(word) for word in [*common, *more, "--out", folder / name]])
        assert not done.value.code
    return folder


def test_distill_and_evaluate_follow_the_experts(run, experts, tmp_path):
    code, text, errors = run("distill", "--method", "mtt", "--experts", experts / "fairdd", *DATA, *FEW)
    assert (code, errors) == (0, "")
    out = tmp_path / "runs" / "mtt-fairdd-c-digits-1"
    assert "10 images in" in text
    made = SyntheticSet.load(out / "synthetic.safetensors")
    assert (made.metadata["method"], made.metadata["debias"]) == ("mtt", "fairdd")
    settings = yaml.safe_load((out / "config.yaml").read_text())["run"]
    assert (settings["arch"], settings["width"], settings["depth"], settings["zca"]) == ("ConvNet", 4, 2, False)
    code, text, errors = run("evaluate", out, "--nets", 1, "--epochs", 1)
    assert (code, errors) == (0, "")
    assert "mtt+fairdd" in text
    (row,) = report.read_json(out / "result.json")["rows"]
    assert row["learning_rate"] == made.learning_rate
    code, text, errors = run("distill", "--method", "mtt", "--experts", experts / "fairdd", *DATA, *FEW, "--resume")
    assert (code, errors) == (0, "")


def test_every_setting_reaches_the_run(run, experts, tmp_path):
    settings = {
        "batch_syn": 4,
        "lr_teacher": 0.03,
        "lr_lr": 1e-6,
        "step_size": "raw",
        "unroll": "tesla",
        "soft_labels": "learned",
        "lr_label": 0.5,
        "lr_img": 7.0,
        "memory": "low",
        "init": "noise",
    }
    options = [word for name, value in settings.items() for word in (f"--{name.replace('_', '-')}", value)]
    command = ["distill", "--method", "mtt", "--experts", experts / "none", *DATA, *FEW, *options, "--published-factor"]
    code, _, errors = run(*command, "--out", "r")
    assert (code, errors) == (0, "")
    found = yaml.safe_load((tmp_path / "r" / "config.yaml").read_text())["run"]
    settings |= {"syn_steps": 2, "expert_epochs": 1, "max_start_epoch": 2, "published_factor": True, "debias": "none"}
    assert {name: found[name] for name in settings} == settings
    assert SyntheticSet.load(tmp_path / "r" / "synthetic.safetensors").soft_labels.shape == (10, 10)


def test_whitened_sets_have_pictures_and_are_evaluated(run, experts, tmp_path):
    command = ["distill", "--method", "mtt", "--experts", experts / "zca", *DATA, *FEW, "--lr-img", 1e-30, "--out", "r"]
    code, _, errors = run(*command, "--evaluate", "--nets", 1, "--epochs", 1)
    assert (code, errors) == (0, "warning: no synthetic image has changed in 2 steps; raise lr_img (1e-30)\n")
    made = SyntheticSet.load(tmp_path / "r" / "synthetic.safetensors")
    assert made.zca.digest() == Experts.open(experts / "zca").zca.digest()
    assert not np.allclose(made.images.numpy(), made.to_uint8().numpy() / 127.5 - 1, atol=0.1)
    # One channel of every pixel of a coloured digit is dark: whitened values shown as pixels would be grey throughout.
    assert (made.to_uint8().amin(1) < 8).float().mean() > 0.5


def one_line(result, code, *parts):
    assert result[0] == code, result
    lines = [line for line in result[2].splitlines() if not line.startswith("warning: fastdd runs on its slower")]
    assert len(lines) == 1, result[2]
    assert all(part in lines[0] for part in parts), lines[0]


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--batch-syn", 11], ["batch_syn 11 is larger than the synthetic set of 10 images"]),
        (["--max-start-epoch", 3], ["trained for 2 epochs", "max_start_epoch 3 with expert_epochs 1 needs 3"]),
        (["--arch", "ConvNetD1"], ["the experts have", "ConvNetD1 has"]),
        (["--width", 8], ["the experts have", "ConvNet has"]),
        (["--debias", "fairdd"], ["trained with debias=none, not fairdd"]),
        (["--unroll", "half"], ["unroll: ", "'half'"]),
        (["--soft-labels", "learned"], ["lr_label goes with soft_labels=learned"]),
        (["--published-factor"], ["published_factor is TESLA's"]),
        (["--precision", "bf16"], ["precision is a setting of", "not of mtt"]),
        (["--batch-real", 8], ["batch_real is a setting of", "not of mtt"]),
        (["--lr-teacher", -0.01], ["lr_teacher: ", "-0.01"]),
    ],
)
def test_settings_that_do_not_fit(run, experts, tmp_path, options, parts):
    command = ["distill", "--method", "mtt", "--experts", experts / "none", *DATA, *FEW, *options, "--out", "r"]
    one_line(run(*command), 2, *parts)
    assert not (tmp_path / "r").exists()


def test_experts_that_are_not_there_damaged_or_of_other_data(run, experts, tmp_path):
    command = ["distill", "--method", "mtt", *DATA, *FEW, "--out", "r"]
    one_line(run(*command), 2, "method mtt needs the trajectories of experts")
    one_line(run(*command, "--experts", tmp_path / "nothing"), 2, "there are no experts in")
    one_line(run(*command, "--experts", experts / "none", "--bias-ratio", 0.5), 2, "trained on other data (c-digits)")
    one_line(run(*command, "--experts", experts / "none", "--groups", "kmeans"), 2, "mtt looks at no real images")
    one_line(run(*command, "--experts", experts / "fairdd", "--groups", "kmeans"), 2, "mtt looks at no real images")
    one_line(
        run("distill", *DATA, "--experts", experts / "none", "--out", "r"),
        2,
        "experts are for method mtt or ncfm, not dm",
    )
    cut = tmp_path / "cut"
    cut.mkdir()
    for file in (experts / "none").iterdir():
        content = file.read_bytes()
        (cut / file.name).write_bytes(content[:-100] if file.name == "trajectories.npy" else content)
    one_line(run(*command, "--experts", cut), 1, "trajectories.npy", "it is truncated")
    assert not (tmp_path / "r").exists()


def test_published_buffers_serve_as_experts(run, experts, tmp_path):
    """In the published layout: a list of experts, of epochs, of float32 tensors."""
    own = Experts.open(experts / "none")
    shapes = [parameter["shape"] for parameter in own.manifest["parameters"]]
    sizes = [int(np.prod(shape)) for shape in shapes]
    buffer = [
        [[p.view(shape).clone() for p, shape in zip(row.split(sizes), shapes, strict=True)] for row in expert]
        for expert in own.values
    ]
    torch.save(buffer, tmp_path / "replay_buffer_0.pt")
    network = [*DATA, "--width", 4, "--depth", 2]
    assert run("experts", "import", tmp_path / "replay_buffer_0.pt", *network, "--out", "imported")[0] == 0
    for folder, out in ((experts / "none", "a"), ("imported", "b")):
        code, _, errors = run("distill", "--method", "mtt", "--experts", folder, *DATA, *FEW, "--out", out)
        assert (code, errors) == (0, "")
    first, second = (SyntheticSet.load(tmp_path / out / "synthetic.safetensors") for out in "ab")
    assert torch.equal(first.images, second.images)
    one_line(
        run("experts", "import", tmp_path / "replay_buffer_0.pt", *DATA, "--width", 8, "--out", "c"), 2, "[4, 3, 3, 3]"
    )
