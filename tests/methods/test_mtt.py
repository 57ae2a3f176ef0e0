"""Trajectory matching against the graph over all steps, and TESLA against its own formula, in fp64."""

import subprocess
import sys
from contextlib import contextmanager

import pytest
import torch

from fastdd import models, ops
from fastdd.bench.oracles import mtt as oracle
from fastdd.core import ext, rng
from fastdd.methods import unroll as mtt

CLASSES, IPC, SIZE, STEPS = 4, 3, 8, 5
M = CLASSES * IPC
DSA = "color_crop_cutout_flip_scale_rotate"


def normal(name, *shape):
    return rng.normal(rng.key(0, name), torch.Size(shape).numel()).view(shape).double()


def problem(net_name="ConvNetD2", batch=M, strategy=DSA, soft=False, steps=STEPS, channels=3, width=8):
    """Arguments of ``loss_and_gradients``: a student that starts a little off its target."""
    net = models.build(net_name, channels, CLASSES, (SIZE, SIZE), width=width, key=5).double().train()
    start = mtt.parameters(net)
    target = start + 0.01 * normal("target", len(start))
    labels = normal("labels", M, CLASSES) if soft else torch.arange(CLASSES).repeat_interleave(IPC)
    order = torch.cat([rng.permutation(rng.key(0, "order", i), M) for i in range(steps)])
    batches = [rows for epoch in order.split(M) for rows in epoch.split(batch)][:steps]
    params = [
        ops.dsa_params(
            strategy,
            rng.lanes(rng.key(0, "dsa", i), len(rows)),
            (SIZE, SIZE),
            shared_op=True,
            dtype=torch.float64,
        )
        for i, rows in enumerate(batches)
    ]
    step_size = torch.tensor(0.05, dtype=torch.float64)
    return net, start, target, normal("images", M, channels, SIZE, SIZE), labels, step_size, batches, params


def augmentations(params):
    return [lambda x, p=p: ops.augment(x, p) for p in params]


@contextmanager
def plain_torch():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTDD_BACKEND", "reference")
        yield


@plain_torch()
def literal(net, start, target, images, labels, step_size, batches, params):
    """Loss, gradients in images, step size and soft labels (or None)."""
    leaves = [images.clone().requires_grad_(), step_size.clone().requires_grad_()]
    if labels.is_floating_point():
        leaves.append(labels.clone().requires_grad_())
    loss = oracle.loss(
        net, start, target, leaves[0], (leaves[2:] or [labels])[0], leaves[1], batches, augmentations(params)
    )
    gradients = torch.autograd.grad(loss, leaves)
    return loss.detach(), mtt.Gradients(*gradients[:2], gradients[2] if len(gradients) == 3 else None)


@plain_torch()
def literal_tesla(net, start, target, images, labels, step_size, batches, params):
    images = images.clone().requires_grad_()
    loss, to_images, to_step = oracle.tesla_gradients(
        net, start, target, images, labels, step_size, batches, augmentations(params)
    )
    return loss, mtt.Gradients(to_images, to_step, None)


def check(result, truth, tolerance=1e-12):
    (loss, ours), (expected_loss, expected) = result, truth
    assert abs(loss - expected_loss) <= tolerance * expected_loss
    for name in ("images", "step_size", "labels"):
        a, b = getattr(ours, name), getattr(expected, name)
        assert (a is None) == (b is None)
        if a is not None:
            assert (a - b).norm() <= tolerance * b.norm(), name


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("batch", [M, 5])
@pytest.mark.parametrize("strategy", ["none", DSA])
def test_exact_and_full_equal_the_graph_over_all_steps(strategy, batch, soft):
    arguments = problem(batch=batch, strategy=strategy, soft=soft)
    truth = literal(*arguments)
    check(mtt.loss_and_gradients(*arguments, unroll="exact"), truth)
    check(mtt.loss_and_gradients(*arguments, unroll="full"), truth)


@pytest.mark.parametrize(
    "net_name", ["ConvNetBN", "ConvNetLN", "ConvNetGN", "ConvNetNN", "ConvNetASwish", "ConvNetMP", "ConvNetNP"]
)
def test_other_networks(net_name):
    arguments = problem(net_name, batch=7)
    check(mtt.loss_and_gradients(*arguments), literal(*arguments), 1e-11)


@pytest.mark.parametrize("unroll", mtt.UNROLLS)
def test_chunks_change_nothing_but_rounding(unroll, monkeypatch):
    arguments = problem(soft=True)
    truth = mtt.loss_and_gradients(*arguments, unroll=unroll)
    monkeypatch.setattr(models, "chunk_size", lambda *_, **__: 2)
    monkeypatch.setattr(mtt, "_ARENA_BYTES", 1)
    check(mtt.loss_and_gradients(*arguments, unroll=unroll), truth)


@pytest.mark.parametrize("batch", [M, 5])
def test_tesla_is_its_formula(batch):
    arguments = problem(batch=batch)
    check(mtt.loss_and_gradients(*arguments, unroll="tesla"), literal_tesla(*arguments))


def test_tesla_is_exact_for_one_step_and_only_for_one():
    one, several = problem(steps=1), problem()
    check(mtt.loss_and_gradients(*one, unroll="tesla"), mtt.loss_and_gradients(*one))
    tesla, exact = (mtt.loss_and_gradients(*several, unroll=unroll)[1].images for unroll in ("tesla", "exact"))
    assert (tesla - exact).norm() > 0.05 * exact.norm()


def test_the_step_sizes_gradient_is_the_slope_of_the_loss():
    *before, step_size, batches, params = problem("ConvNetASwish")
    h = 1e-5
    above, below = (mtt.loss_and_gradients(*before, step_size + d, batches, params)[0] for d in (h, -h))
    slope = mtt.loss_and_gradients(*before, step_size, batches, params)[1].step_size
    assert slope == pytest.approx(((above - below) / (2 * h)).item(), rel=1e-6)


def test_the_networks_own_parameters_are_not_used_or_changed():
    arguments = problem()
    net = arguments[0]
    truth = mtt.loss_and_gradients(*arguments)
    with torch.no_grad():
        for p in net.parameters():
            p.fill_(3.0)
    check(mtt.loss_and_gradients(*arguments), truth, 0)
    assert all((p == 3.0).all() for p in net.parameters())


@pytest.mark.parametrize("unroll", mtt.UNROLLS)
def test_error_in_float32_is_at_most_twice_plain_torchs(unroll):
    arguments = problem("ConvNetASwish")  # smooth: a ReLU that rounds across zero moves either gradient by 1e-3
    truth = mtt.loss_and_gradients(*arguments, unroll=unroll)[1].images
    net, *tensors, batches, params = arguments
    single = [t.float() if t.is_floating_point() else t for t in tensors], batches, [p.float() for p in params]
    flat = (net.float(), *single[0], *single[1:])
    ours = mtt.loss_and_gradients(*flat, unroll=unroll)[1].images
    plain = (literal_tesla if unroll == "tesla" else literal)(*flat)[1].images
    errors = [((g.double() - truth).norm() / truth.norm()).item() for g in (ours, plain)]
    assert errors[0] <= 2 * errors[1]
    assert errors[1] < 1e-4


def in_float32(arguments):
    net, *tensors, batches, params = arguments
    tensors = [t.float() if t.is_floating_point() else t for t in tensors]
    return net.float(), *tensors, batches, [p.float() for p in params]


needs_kernels = pytest.mark.skipif(not ext.available(), reason="no extension")


@needs_kernels
@pytest.mark.parametrize(("channels", "unroll"), [(3, "exact"), (1, "exact"), (3, "tesla")])
def test_kernels_of_dual_numbers_are_as_exact_as_plain_torch(channels, unroll):
    arguments = problem(width=16, channels=channels, soft=unroll == "exact", batch=7)
    plain = literal_tesla if unroll == "tesla" else literal
    (true_loss, truth), single = plain(*arguments), in_float32(arguments)
    assert models.ConvNetLoss.fits(single[0], single[3])
    (loss, ours), (plain_loss, theirs) = mtt.loss_and_gradients(*single, unroll=unroll), plain(*single)
    assert abs(loss - true_loss) <= 2 * abs(plain_loss - true_loss) + 1e-6 * true_loss
    for name in ("images", "step_size", "labels")[: 3 if unroll == "exact" else 2]:
        exact = getattr(truth, name)
        errors = [(getattr(found, name).double() - exact).norm() / exact.norm() for found in (ours, theirs)]
        assert errors[0] <= 2 * errors[1] + 1e-6, name


@pytest.mark.parametrize("unroll", mtt.UNROLLS)
@pytest.mark.parametrize("width", [8, pytest.param(16, marks=needs_kernels)])
def test_two_runs_have_the_same_bits(unroll, width):
    arguments, arena = in_float32(problem(width=width, batch=7)), mtt.Arena()
    fresh, first, again = (
        mtt.loss_and_gradients(*arguments, unroll=unroll, arena=each)[1] for each in (None, arena, arena)
    )
    for found in (first, again):
        assert torch.equal(fresh.images, found.images)
        assert torch.equal(fresh.step_size, found.step_size)


def test_an_arena_serves_other_networks_and_images_too():
    arena = mtt.Arena()
    for other in (problem(), problem(width=16, steps=3), problem("ConvNetMP", batch=5), problem(channels=1)):
        check(mtt.loss_and_gradients(*other, arena=arena), mtt.loss_and_gradients(*other), 0)


def test_an_unknown_unroll_is_refused():
    with pytest.raises(ValueError, match="unroll must be one of exact, full, tesla, not 'some'"):
        mtt.loss_and_gradients(*problem(), unroll="some")


@pytest.mark.gpu
@pytest.mark.parametrize("unroll", mtt.UNROLLS)
@pytest.mark.parametrize("memory", ["auto", "low"])
def test_gpu_agrees(unroll, memory):
    net, *tensors, batches, params = problem()
    truth = mtt.loss_and_gradients(net, *tensors, batches, params, unroll=unroll)
    there = (
        net.cuda(),
        *(t.cuda() for t in tensors),
        [rows.cuda() for rows in batches],
        [p.cuda() for p in params],
    )
    loss, found = mtt.loss_and_gradients(*there, unroll=unroll, memory=memory)
    check((loss.cpu(), mtt.Gradients(found.images.cpu(), found.step_size.cpu(), None)), truth, 1e-10)


RESIDENT = """
import sys
import torch
from fastdd import models, ops
from fastdd.methods import unroll as mtt

torch.set_num_threads(1)
if sys.argv[1] == "graph":
    models.ConvNetLoss.fits = staticmethod(lambda *_: False)
net = models.build("ConvNetD2", 3, 10, (16, 16), width=32)
start = mtt.parameters(net)
images, labels, arena = torch.randn(50, 3, 16, 16), torch.arange(50) % 10, mtt.Arena()

def resident(steps, times):
    batches, params = [torch.arange(50)] * steps, [ops.identity_params(50)] * steps
    for _ in range(times):
        step_size = torch.tensor(0.01)
        mtt.loss_and_gradients(net, start, start + 0.01, images, labels, step_size, batches, params, arena=arena)
        arena.give_back()
    with open("/proc/self/statm") as file:
        return 4096 * int(file.read().split()[1])

print(resident(2, 1), resident(2, 4), resident(2, int(sys.argv[2])), resident(10, 1), resident(50, 1), 4 * len(start))
"""


def resident(kind, iterations):
    """After 1 iteration of 2 steps, 5, the given number more, one of 10 and one of 50; bytes of a parameter vector."""
    command = [sys.executable, "-c", RESIDENT, kind, str(iterations)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return list(map(int, done.stdout.split()))


@needs_kernels
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("iterations", [30, pytest.param(200, marks=pytest.mark.full)])
def test_resident_memory_is_flat_over_iterations_and_steps(iterations):
    mebibyte = 1 << 20
    first, settled, after, ten, fifty, vector = resident("duals", iterations)
    assert after - settled < 2 * mebibyte
    assert settled - first < 4 * mebibyte
    # Beyond the parameters of every step. What it grows by is told from what 10 steps need: 2 MiB of activations.
    assert fifty - ten - 40 * vector < 2 * mebibyte


@pytest.mark.full
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_resident_memory_that_grows_is_seen():
    """That of the graph of a step does: malloc's heap breaks up."""
    _, settled, after, *_ = resident("graph", 30)
    assert after - settled > 4 << 20


PEAKS = """
import sys
import torch
from pathlib import Path
from fastdd.core.malloc import give_back, map_every_tensor
map_every_tensor()
from fastdd import models, ops
from fastdd.methods import unroll as mtt

net = models.build("ConvNetD2", 3, 10, (16, 16), width=64)
start = mtt.parameters(net)
images, labels = torch.randn(50, 3, 16, 16), torch.arange(50) % 10
print(4 * len(start))

def status(name):
    (line,) = [line for line in open("/proc/self/status") if line.startswith(name)]
    return 1024 * int(line.split()[1])

for unroll in ("exact", "tesla", "full"):
    for steps in (3, 3, 30):  # the first is not counted: libraries set themselves up
        arguments = [torch.arange(50)] * steps, [ops.identity_params(50)] * steps
        give_back()
        Path("/proc/self/clear_refs").write_text("5")
        before = status("VmRSS")
        mtt.loss_and_gradients(net, start, start + 0.01, images, labels, torch.tensor(0.01), *arguments, unroll=unroll)
        print(unroll, steps, status("VmHWM") - before)
"""


@pytest.mark.full
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_grows_by_one_parameter_vector_a_step():
    done = subprocess.run([sys.executable, "-c", PEAKS], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    vector, *lines = done.stdout.splitlines()
    peaks = {(unroll, int(steps)): int(peak) for unroll, steps, peak in map(str.split, lines)}
    for unroll in ("exact", "tesla"):
        assert peaks[unroll, 30] - 27 * int(vector) <= 1.1 * peaks[unroll, 3]
    assert peaks["full", 30] > 5 * peaks["full", 3]
