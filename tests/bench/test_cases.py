"""The baselines compute what they say, and the registry finds cases by name."""

from functools import partial

import pytest
import torch

from fastdd import debias, models, ops
from fastdd.bench import cases
from fastdd.bench.baselines import plain, published, published_gradient
from fastdd.bench.baselines.batched_trajectory import BatchedTrajectories
from fastdd.bench.baselines.published_trajectory import PublishedTeslaLoop, PublishedTrajectoryLoop
from fastdd.bench.cases import formation_steps, gradient_steps, steps
from fastdd.bench.framework.case import BACKENDS
from fastdd.core import rng
from fastdd.methods import unroll as mtt

SIZE = (16, 16)


def images(n=5):
    return rng.normal(rng.key(0, "x"), n * 3 * 256).view(n, 3, *SIZE).double()


@pytest.mark.parametrize("operation", ops.DSA_OPS)
@pytest.mark.parametrize("baseline", [plain.augment, published.augment])
def test_augmentation_of_the_baselines_equals_ours(operation, baseline):
    x = images()
    for draw in range(8):
        row = ops.dsa_params(operation, rng.lanes(rng.key(draw, "row"), 1), SIZE, dtype=torch.float64)
        named = published.operation_of(row[0])
        assert named in (operation, "flip")  # a crop by nothing is an identity, which counts as a flip
        assert (baseline(x, row[0], named) - ops.augment(x, row)).abs().max() < 1e-12


@pytest.mark.parametrize("operation", ops.DSA_OPS)
@pytest.mark.parametrize("baseline", [plain.augment_each, published.augment])
def test_augmentation_of_the_baselines_with_a_row_an_image_equals_ours(operation, baseline):
    x = images(7)
    for draw in range(4):
        keys = rng.lanes(rng.key(draw, "rows"), 7)
        rows = ops.dsa_params(operation, keys, SIZE, shared_op=True, dtype=torch.float64)
        named = published.operation_of_each(rows)
        assert named == operation
        assert (baseline(x, rows, named) - ops.augment(x, rows)).abs().max() < 1e-12


def test_draws_of_every_image_have_one_operation_in_its_published_range():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        found = [published.draw_each(ops.DSA_STRATEGY, 40, SIZE) for _ in range(60)]
    assert {operation for _, operation in found} == set(ops.DSA_OPS)
    for rows, operation in found:
        assert published.operation_of_each(rows) == operation
        assert {published.operation_of(row) for row in rows} <= {operation, "flip"}
        assert len(rows.unique(dim=0)) > 1  # the images do not share a draw
    crops = torch.cat([rows for rows, operation in found if operation == "crop"])
    assert crops[:, [ops.Param.C, ops.Param.F]].aminmax() == (-2, 2)
    flips = torch.cat([rows for rows, operation in found if operation == "flip"])
    assert (flips[:, ops.Param.A] < 0).double().mean().item() == pytest.approx(0.5, abs=0.15)


@pytest.mark.parametrize("n", [1, 7, 256])
def test_draws_are_the_first_of_published_code(n):
    """Published code seeds the global generator anew before each vector of draws and takes the first element."""

    def drawn(seed, function):
        torch.manual_seed(seed)
        return function().flatten()[0].item()

    with torch.random.fork_rng():
        for seed in range(0, 100, 9):
            row, name = published.draw("color_crop_cutout_flip_scale_rotate", seed, SIZE)
            torch.manual_seed(seed)
            assert name == ops.DSA_OPS[torch.randint(0, 6, size=(1,)).item()]
            row = published.draw("crop", seed, SIZE)[0]
            shift = [drawn(seed + k, lambda: torch.randint(-2, 3, size=[n, 1, 1])) for k in (1, 2)]
            assert [row[ops.Param.F], row[ops.Param.C]] == shift
            row = published.draw("color", seed, SIZE)[0]
            u = [drawn(seed + k, lambda: torch.rand(n, 1, 1, 1)) for k in (1, 2, 3)]
            assert row[6:9].tolist() == pytest.approx([u[0] - 0.5, 2 * u[1], u[2] + 0.5])
            row = published.draw("flip", seed, SIZE)[0]
            assert (row[0] < 0) == (u[0] < 0.5)
            row = published.draw("rotate", seed, SIZE)[0]
            assert torch.asin(row[3]).item() == pytest.approx((u[0] - 0.5) * 30 * torch.pi / 180)


def test_a_group_alone_has_the_gradient_that_published_code_takes_through_the_whole_batch():
    """The truth takes the short way, the published loop the long one."""
    case = cases.select(["step/dc+fairdd"])[0]
    problem = case.inputs(0, torch.device("cpu"), True).smooth
    net = problem.network().double()
    net.load_state_dict(problem.first_step.state)
    loop = published_gradient.PublishedGradientLoop(problem, torch.float64)
    drawn = [(row, published.operation_of(row)) for row in problem.first_step.params]
    gradient, loss = loop.gradient(net, problem.first_step.rows, drawn)
    expected, expected_loss = steps.first_truth(problem)
    assert (gradient - expected).norm() < 1e-12 * expected.norm()
    assert loss.item() == pytest.approx(expected_loss.item(), rel=1e-14)


# Without one that looks at the step's network, of which no case is.
MODES = [name for name, mode in debias.MODES.items() if mode.needs != "embeddings"]
LOOPS = ("none", "fairdd", "kde")
# DSA is DC's baseline with its augmentation and DREAM IDC's with its draws: of what modes do they have no lines.
PAIRS = [
    (method, mode)
    for method in ("dm", "datadam", "dc", "dsa", "idc", "dream")
    for mode in (LOOPS if method in ("dsa", "dream") else MODES)
]


@pytest.mark.parametrize(("method", "mode"), PAIRS)
def test_steps_in_plain_pytorch_are_right_for_every_mode(method, mode):
    """A mode that a baseline does not know by name must not be another one there; the published loops refuse it."""
    kinds = {"dm": steps.Step, "datadam": steps.AttentionStep}
    kinds |= {"idc": formation_steps.FormationStep, "dream": formation_steps.RepresentativeStep}
    kind = kinds.get(method) or partial(gradient_steps.GradientStep, method=method)
    case = kind("step", "any mode", debias=mode, classes=3, groups=4)
    inputs = case.inputs(0, torch.device("cpu"), True)
    truth = case.truth(inputs)
    allowed = [100 * floor for floor in case.floors(len(truth))]
    for backend in ("torch", "fastdd"):
        errors = case.check(backend, inputs, None, truth)
        assert all(error < most for error, most in zip(errors, allowed, strict=True)), backend
    if mode in LOOPS:
        assert case.check("reference-loop", inputs, None, truth)[0] < allowed[0]
    else:
        with pytest.raises(ValueError, match=f"there is no published loop for debias '{mode}'; one of: none, fairdd"):
            case.loop(inputs)


def student(problem, theta, rows, params, images):
    """Cross-entropy of our own network on augmented rows of the images."""
    config, data = problem.config, problem.dataset
    net = models.build(config.arch, data.channels, data.num_classes, data.size, width=config.width, depth=config.depth)
    logits = mtt.logits(net.double(), theta, ops.augment(images[rows], params))
    return torch.nn.functional.cross_entropy(logits, problem.labels[rows])


def formula(problem, images, step_size, batches, drawn):
    """The losses as a function of images and step size, in float64: of MTT, and TESLA's, whose every theta is a
    constant but in what its own step adds."""
    start, target = problem.experts.values[0].double()
    theta, constant, moved = start.clone().requires_grad_(), start, 0
    for rows, params in zip(batches, drawn, strict=True):
        (g,) = torch.autograd.grad(student(problem, theta, rows, params, images), theta, create_graph=True)
        theta = theta - step_size * g
        leaf = constant.detach().requires_grad_()
        (g,) = torch.autograd.grad(student(problem, leaf, rows, params, images), leaf, create_graph=True)
        moved = moved + step_size * g
        constant = constant - (step_size * g).detach()
    return [(end - target).square().sum() / (start - target).square().sum() for end in (theta, start - moved)]


@pytest.mark.parametrize("unroll", ["exact", "full", "tesla"])
def test_baselines_of_trajectory_matching_equal_the_formula_in_float64(unroll, monkeypatch):
    problem = cases.select([f"step/mtt/{unroll}"])[0].inputs(0, torch.device("cpu"), True).smooth
    batches = problem.first_trajectory.batches
    keys = [rng.lanes(rng.key(i, "dsa"), len(rows)) for i, rows in enumerate(batches)]
    params = [ops.dsa_params(ops.DSA_STRATEGY, each, SIZE, shared_op=True, dtype=torch.float64) for each in keys]
    drawn = [(rows, published.operation_of_each(rows)) for rows in params]
    images = problem.images.double().requires_grad_()
    step_size = torch.tensor(problem.config.lr_teacher, dtype=torch.float64, requires_grad=True)
    expected = formula(problem, images, step_size, batches, params)[unroll == "tesla"]
    to_images, to_step_size = torch.autograd.grad(expected, [images, step_size])
    published_loop = (PublishedTeslaLoop if unroll == "tesla" else PublishedTrajectoryLoop)(problem, torch.float64)
    batched = BatchedTrajectories(problem)
    batched.images, batched.step_size = images.detach().requires_grad_(), step_size.detach().requires_grad_()
    at = problem.experts.at
    monkeypatch.setattr(problem.experts, "at", lambda *arguments: at(*arguments).double())
    for baseline in (published_loop, batched):
        own_images, own_step_size, loss = baseline.gradients(batches, drawn)
        assert (own_images - to_images).norm() < 1e-12 * to_images.norm()
        assert own_step_size.item() == pytest.approx(to_step_size.item(), rel=1e-12)
        assert loss.item() == pytest.approx(expected.item(), rel=1e-12)


def test_tesla_is_told_from_mtt():
    """The truths differ by far more than any error that is allowed."""
    results = []
    for unroll in ("exact", "tesla"):
        case = cases.select([f"step/mtt/{unroll}"])[0]
        results.append(case.truth(case.inputs(0, torch.device("cpu"), True)))
    (exact, exact_step, loss, *_), (tesla, tesla_step, same_loss, *_) = results
    assert (exact - tesla).norm() > 1e-3 * exact.norm()
    assert abs(exact_step - tesla_step) > 1e-4 * exact_step
    assert loss.item() == pytest.approx(same_loss.item(), rel=1e-13)


def test_globs_select_in_their_own_order():
    chosen = [case.name for case in cases.select(["step/*", "augment/f*"])]
    assert (chosen[0], chosen[-1]) == ("step/dm", "augment/flip")
    assert cases.select([]) == [case for case in cases.CASES if not case.by_name]
    assert {case.name for case in cases.CASES if case.by_name} == {
        "scale/groups-dc",
        *("conv3x3/bf16x3/forward", "conv3x3/bf16x3/train"),
        *(f"scale/size-{method}{fair}" for method in ("dm", "dc") for fair in ("", "+fairdd")),
    }
    assert len(cases.select(["scale/groups-dc"])) == 6
    assert len(cases.select(["segment_mean"])) == 2
    with pytest.raises(ValueError, match="no case matches 'augment'; the cases: augment/color, "):
        cases.select(["augment"])


def test_labels_are_unique_and_every_case_is_described():
    labels = [case.label for case in cases.CASES]
    assert len(set(labels)) == len(labels)
    assert all(case.about for case in cases.CASES)
    assert {f"augment/{name}" for name in (*ops.DSA_OPS, "mix")} <= set(labels)
    names = {case.name for case in cases.CASES}
    assert {"segment_mean", "step/dm", "step/dm+fairdd", "scale/groups", "scale/batch", "scale/ipc"} <= names
    assert {"scale/classes", "scale/pixels"} <= names
    assert {"step/dc", "step/dc+fairdd", "step/dsa", "step/dsa+kde", "step/dc-inner"} <= names
    assert {"step/datadam", "step/datadam+fairdd", "step/ncfm", "step/ncfm+fairdd"} <= names
    assert {"step/idc", "step/idc+fairdd", "step/dream"} <= names
    groups = [case.variant["groups"] for case in cases.select(["scale/groups"])]
    assert groups == [0, 2, 4, 6, 8, 10]
    for unroll in ("exact", "full", "tesla"):
        assert [case.variant["steps"] for case in cases.select([f"step/mtt/{unroll}"])] == [10, 20, 50]


@pytest.mark.parametrize("case", cases.CASES, ids=lambda case: case.label)
def test_inputs_are_a_function_of_the_seed(case):
    assert {"torch", "fastdd"} <= set(case.backends(None)) <= set(BACKENDS)
    if case.name.startswith(("augment", "segment")):
        first, again, other = (case.inputs(seed, torch.device("cpu"), True).x for seed in (0, 0, 1))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)


def test_full_sizes_are_those_of_the_goals():
    """Shapes only: nothing is run."""
    sizes = {}
    for case in (
        *cases.select(["augment/mix", "step/dm", "step/dc+fairdd", "step/dc-inner"]),
        cases.select(["segment_mean"])[1],
        cases.select(["step/mtt/exact"])[0],
    ):
        sizes[case.label] = case.shape(case.inputs(0, torch.device("cpu"), False))
    assert sizes["augment/mix"] == {"images": [256, 3, 32, 32]}
    assert sizes["segment_mean segments=100"] == {"rows": [2560, 2048], "segments": 100}
    for name, groups in (("step/dm", 0), ("step/dc+fairdd", 10)):
        step = sizes[name]
        assert (step["classes"], step["batch_real"], step["ipc"], step["image"]) == (10, 256, 10, [3, 32, 32])
        assert (step["width"], step["depth"], step["groups"]) == (128, 3, groups)
    assert sizes["step/dc-inner"]["images"] == [100, 3, 32, 32]
    trajectory = sizes["step/mtt/exact steps=10"]
    assert [trajectory[key] for key in ("steps", "classes", "ipc", "batch_syn")] == [10, 10, 10, 50]
    assert [trajectory[key] for key in ("image", "width", "depth")] == [[3, 32, 32], 128, 3]
