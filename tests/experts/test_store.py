"""Experts: plain numpy on disk, bit for bit to and from published buffers, one line for each way to be wrong."""

import json
import shutil

import numpy as np
import pytest
import torch
from torch import nn

from fastdd import models
from fastdd.data.zca import Zca
from fastdd.experts import buffers
from fastdd.experts import store as trajectories
from fastdd.experts.store import Experts

K, E = 3, 2


def net(name="ConvNet", width=4, depth=1, classes=3):
    return models.build(name, 1, classes, (8, 8), width=width, depth=depth)


def manifest(dtype="fp32", **more):
    config = {"arch": "ConvNet", "dtype": dtype, "epochs": E, "num_experts": K}
    return {"config": config, "parameters": trajectories.parameter_list(net()), "dataset": "digits", **more}


def published():
    """Experts of epochs of tensors, as torch.save of published code has them."""
    generator = torch.Generator().manual_seed(0)
    shapes = [parameter.shape for parameter in net().parameters()]
    return [[[torch.randn(shape, generator=generator) for shape in shapes] for _ in range(E + 1)] for _ in range(K)]


def flat(snapshot):
    return torch.cat([part.flatten() for part in snapshot])


@pytest.fixture
def buffer(tmp_path):
    path = tmp_path / "replay_buffer_0.pt"
    torch.save(published(), path)
    return path


@pytest.fixture
def folder(buffer, tmp_path):
    buffers.import_buffers([buffer], tmp_path / "experts", manifest())
    return tmp_path / "experts"


def test_published_buffers_there_and_back_bit_for_bit(folder, tmp_path):
    opened = Experts.open(folder)
    assert (opened.number, opened.epochs) == (K, E)
    # Two experts a file: the last holds what is left.
    written = buffers.export_buffers(opened, tmp_path / "out", per_file=2)
    assert [path.name for path in written] == ["replay_buffer_0.pt", "replay_buffer_1.pt"]
    loaded = [expert for path in written for expert in torch.load(path, weights_only=True)]
    assert type(loaded) is type(loaded[0]) is type(loaded[0][0]) is list
    for k, expert in enumerate(published()):
        for epoch, snapshot in enumerate(expert):
            assert len(loaded[k][epoch]) == len(snapshot)
            for ours, theirs in zip(loaded[k][epoch], snapshot, strict=True):
                assert ours.dtype == torch.float32
                assert torch.equal(ours.view(torch.int32), theirs.view(torch.int32))
                assert ours.untyped_storage().nbytes() == ours.nbytes  # no view of something larger
    again = buffers.import_buffers(written, tmp_path / "again", manifest())
    assert (tmp_path / "again" / "trajectories.npy").read_bytes() == (folder / "trajectories.npy").read_bytes()
    assert again.digest() == opened.digest()


def test_the_file_is_plain_numpy_and_expert_major(folder):
    values = np.load(folder / "trajectories.npy", mmap_mode="r")
    expected = np.stack([np.stack([flat(snapshot).numpy() for snapshot in expert]) for expert in published()])
    np.testing.assert_array_equal(values, expected)
    assert values.dtype == np.float32
    opened = Experts.open(folder)
    assert torch.equal(opened.at(2, 1), flat(published()[2][1]))


def test_what_is_read_is_a_copy(folder):
    opened = Experts.open(folder)
    opened.at(0, 0).zero_()
    opened.values[0, 1] = 0  # in memory only
    assert torch.equal(Experts.open(folder).at(0, 0), flat(published()[0][0]))
    assert torch.equal(Experts.open(folder).at(0, 1), flat(published()[0][1]))


def test_bf16_is_half_the_size_and_rounds_to_nearest(buffer, folder, tmp_path):
    small = buffers.import_buffers([buffer], tmp_path / "bf16", manifest("bf16"))
    assert small.values.dtype == torch.bfloat16
    sizes = [(path / "trajectories.npy").stat().st_size for path in (tmp_path / "bf16", folder)]
    assert sizes[1] - 128 == 2 * (sizes[0] - 128)
    original = flat(published()[1][2])
    read = small.at(1, 2)
    assert read.dtype == torch.float32
    assert ((read - original).abs() <= original.abs() * 2.0**-8).all()
    assert torch.equal(read, original.to(torch.bfloat16).float())
    # The 16 bits are the upper half of float32's.
    raw = np.load(tmp_path / "bf16" / "trajectories.npy")
    assert raw.dtype == np.uint16
    np.testing.assert_array_equal((raw[1, 2].astype(np.uint32) << 16).view(np.float32), read.numpy())
    assert small.digest() != Experts.open(folder).digest()


def test_special_values_keep_their_bits(tmp_path):
    values = torch.zeros(1, 2, sum(parameter.numel() for parameter in net().parameters()))
    values[0, 1, :3] = torch.tensor([-0.0, 1e-45, 3.4e38])
    shape = tuple(values.shape)
    trajectories.TrajectoryFile.create(tmp_path / "t.npy", shape, "fp32")
    with trajectories.TrajectoryFile(tmp_path / "t.npy", shape, "fp32") as file:
        file.write(0, 1, values[0, 1])
        assert file.sha256(0, 1).hexdigest() == trajectories.values_digest(values[0])
    assert torch.equal(torch.from_numpy(np.load(tmp_path / "t.npy")).view(torch.int32), values.view(torch.int32))


def test_in_memory_and_from_the_folder_have_one_digest(folder):
    opened = Experts.open(folder)
    assert Experts(opened.values.clone(), manifest()).digest() == opened.digest()
    changed = opened.values.clone()
    changed[0, 0, 0] += 1
    assert Experts(changed, manifest()).digest() != opened.digest()


def test_whitening_is_kept_with_the_experts(buffer, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (20, 1, 8, 8), dtype=np.uint8)
    zca = Zca.fit(images)
    made = buffers.import_buffers([buffer], tmp_path / "z", manifest(), lambda: zca)
    assert made.zca.digest() == zca.digest()
    Zca.fit(images[:10]).save(tmp_path / "z" / "zca.safetensors")
    with pytest.raises(RuntimeError, match=r"zca\.safetensors is not the whitening of these experts"):
        Experts.open(tmp_path / "z")
    (tmp_path / "z" / "zca.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"zca\.safetensors"):
        Experts.open(tmp_path / "z")


def test_changed_values_are_found(folder):
    assert Experts.open(folder).damaged() == []
    values = np.load(folder / "trajectories.npy", mmap_mode="r+")
    values[1, 2, 5] += 1
    values.flush()
    assert Experts.open(folder).damaged() == [1]


def test_another_network_is_refused(folder):
    opened = Experts.open(folder)
    opened.check_network(net(), "ConvNet")
    cases = [
        (net(width=5), r"parameter 0 is features\.0\.weight \[4, 1, 3, 3\], the student has features.* \[5, 1, 3, 3\]"),
        (net(depth=2), r"parameter 4 is classifier\.weight .* the student has features\.4\.weight"),
        (net(classes=4), r"classifier\.weight \[3, 144\], the student has classifier\.weight \[4, 144\]"),
        (nn.Sequential(), "the experts have 6 parameters, the student has 0: they are of another network"),
    ]
    for other, message in cases:
        with pytest.raises(ValueError, match=message) as caught:
            opened.check_network(other, "the student")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("start", "epochs", "fits"), [(1, 2, True), (2, 1, True), (2, 2, False), (1, 3, False)])
def test_too_few_epochs(folder, start, epochs, fits):
    opened = Experts.open(folder)  # epochs 0, 1, 2
    if fits:
        opened.check_epochs(start, epochs)
        opened.at(0, start - 1 + epochs)
    else:
        with pytest.raises(ValueError, match=rf"trained for 2 epochs; max_start_epoch {start} .* needs"):
            opened.check_epochs(start, epochs)


def test_damaged_folders_are_refused_in_one_line(folder, tmp_path):
    def damaged(change):
        path = tmp_path / "damaged"
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(folder, path)
        change(path)
        return path

    def edit(**changes):
        def change(path):
            content = json.loads((path / "manifest.json").read_text())
            (path / "manifest.json").write_text(json.dumps({**content, **changes}))

        return change

    def cut(path):
        with open(path / "trajectories.npy", "r+b") as file:
            file.truncate(1000)

    def grow(path):
        with open(path / "trajectories.npy", "ab") as file:
            file.write(b"0")

    def scribble(path):
        with open(path / "trajectories.npy", "r+b") as file:
            file.write(b"not numpy")

    entry = {"sha256": "0", "seconds": 1.0, "evaluations": []}
    cases = [
        (cut, RuntimeError, r"trajectories\.npy has 1000 bytes, not \d+: it is truncated"),
        (grow, RuntimeError, r"trajectories\.npy has \d+ bytes, not \d+: it is damaged"),
        (scribble, RuntimeError, "its header is not that of"),
        (lambda path: (path / "trajectories.npy").unlink(), RuntimeError, r"trajectories\.npy is missing"),
        (lambda path: (path / "manifest.json").unlink(), FileNotFoundError, r"no experts in .*damaged"),
        (lambda path: (path / "manifest.json").write_text("{"), RuntimeError, r"manifest\.json is not a manifest"),
        (lambda path: (path / "manifest.json").write_text("[]"), RuntimeError, r"manifest\.json is not a manifest"),
        (edit(schema=2), RuntimeError, r"manifest\.json has schema 2; this version reads 1"),
        (edit(parameters=None), RuntimeError, "is not a manifest"),
        (edit(experts=[entry] * 2), RuntimeError, "it is damaged"),
        (edit(experts=[entry, None, None]), RuntimeError, r"holds 1 of 3 experts; finish it .*--resume"),
    ]
    for change, kind, message in cases:
        with pytest.raises(kind, match=message) as caught:
            Experts.open(damaged(change))
        assert "\n" not in str(caught.value)


class Unsafe:
    def __reduce__(self):
        return print, ("this must not run",)


def test_bad_buffers_are_refused_in_one_line(tmp_path, capsys):
    good = published()

    def changed(epoch, part, value):
        buffer = published()
        buffer[1][epoch][part] = value
        return buffer

    cases = [
        (Unsafe(), RuntimeError, "is not a buffer of tensors only, or is damaged"),
        ({"a": torch.zeros(2)}, ValueError, r"is not a replay buffer \(a list of experts, of epochs, of tensors\)"),
        ([], ValueError, "is not a replay buffer"),
        ([good[0][:1]], ValueError, "expert 0 has fewer than 2 epochs"),
        ([good[0], good[1][:2]], ValueError, "the experts differ in their epochs: from 1 to 2"),
        ([good[0], good[1][:1] * 3], ValueError, r"epochs of expert 1 are one and the same: .*fastdd run"),
        (changed(1, 0, torch.zeros(4, 1, 5, 5)), ValueError, r"features\.0\.weight \[4, 1, 5, 5\], .* \[4, 1, 3, 3\]"),
        (changed(1, 0, torch.zeros(4, 1, 3, 3).half()), ValueError, "epoch 1 of expert 1 is not a list of float32"),
        (changed(2, 0, "text"), ValueError, "epoch 2 of expert 1 is not a list of float32"),
        (changed(2, 3, torch.full((4,), torch.nan)), ValueError, "expert 1 is not finite at epoch 2: it diverged"),
        ([[snapshot[:4] for snapshot in good[0]]], ValueError, "has 4 parameters, the network has 6"),
        ([[[*snapshot, torch.zeros(1)] for snapshot in good[0]]], ValueError, "has 7 parameters, the network has 6"),
    ]
    path = tmp_path / "replay_buffer_0.pt"
    for content, kind, message in cases:
        torch.save(content, path)
        with pytest.raises(kind, match=message) as caught:
            buffers.import_buffers([path], tmp_path / "out", manifest())
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "out").exists()
    assert "must not run" not in capsys.readouterr().out
    torch.save(good, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RuntimeError, match=r"replay_buffer_0\.pt is not a buffer of tensors only, or is damaged"):
        buffers.import_buffers([path], tmp_path / "out", manifest())
    with pytest.raises(FileNotFoundError, match="there is no file"):
        buffers.import_buffers([tmp_path / "nothing.pt"], tmp_path / "out", manifest())
    with pytest.raises(ValueError, match="no buffers to import"):
        buffers.import_buffers([], tmp_path / "out", manifest())


def test_nothing_is_overwritten(buffer, folder, tmp_path):
    with pytest.raises(ValueError, match="is not empty; give another folder"):
        buffers.import_buffers([buffer], folder, manifest())
    opened = Experts.open(folder)
    with pytest.raises(ValueError, match=r"holds replay_buffer_0\.pt already"):
        buffers.export_buffers(opened, buffer.parent)
    assert buffers.export_buffers(opened, buffer.parent, force=True) == sorted(buffer.parent.glob("replay_buffer_*.pt"))
    with pytest.raises(ValueError, match="at least 1 expert, not 0"):
        buffers.export_buffers(opened, tmp_path / "new", per_file=0)


def test_an_import_that_fails_leaves_nothing(buffer, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(trajectories.TrajectoryFile, "write", full)
    with pytest.raises(OSError, match="No space left"):
        buffers.import_buffers([buffer], tmp_path / "out", manifest())
    assert not list((tmp_path / "out").iterdir())


def test_values_must_fit_their_manifest():
    with pytest.raises(ValueError, match=r"must be \[experts, epochs \+ 1, \d+\], not \[1, 2, 3\]"):
        Experts(torch.zeros(1, 2, 3), manifest())
    with pytest.raises(TypeError, match="must be float32 or bfloat16"):
        Experts(torch.zeros(1, 2, 3, dtype=torch.float64), manifest())
