"""The baselines compute what they say, and the registry finds cases by name."""

import pytest
import torch

from fastdd import ops, rng
from fastdd.bench import cases, plain, published, published_gradient
from fastdd.bench.case import BACKENDS

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


@pytest.mark.parametrize("metric", ["ours", "mse", "cos"])
def test_the_published_distance_equals_ours(metric):
    shapes = [(8, 3, 3, 3), (8,), (4, 6, 5), (10, 32), (10,)]
    real, synthetic = (
        [rng.normal(rng.key(side, "g", i), torch.Size(s).numel()).view(s).double() for i, s in enumerate(shapes)]
        for side in (0, 1)
    )
    real[0][2] = 0  # a filter that no sample reaches
    batched = ([g[None] for g in side] for side in (real, synthetic))
    expected = ops.gradient_match(*batched, torch.tensor([0]), metric=metric)
    assert published_gradient.match_loss(synthetic, real, metric).item() == pytest.approx(expected.item(), rel=1e-12)


def test_a_group_alone_has_the_gradient_that_published_code_takes_through_the_whole_batch():
    """The truth takes the short way, the published loop the long one."""
    case = cases.select(["step/dc+fairdd"])[0]
    problem = case.inputs(0, torch.device("cpu"), True).smooth
    first, results = problem.first_step, []
    for alone in (True, False):
        loop = published_gradient.PublishedGradientLoop(problem, torch.float64, groups_alone=alone)
        net = problem.network()
        net.load_state_dict(first.state)
        drawn = [loop.draw(0)] * problem.dataset.num_classes
        results.append(loop.gradient(net.double(), first.rows.split(first.per_class), drawn))
    (short, loss), (long, same_loss) = results
    assert (short - long).norm() < 1e-12 * long.norm()
    assert loss.item() == pytest.approx(same_loss.item(), rel=1e-14)


def test_globs_select_in_the_order_of_the_registry():
    assert [case.name for case in cases.select(["step/*", "augment/f*"])][:1] == ["augment/flip"]
    assert cases.select([]) == cases.CASES
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
    assert {"step/dc", "step/dc+fairdd", "step/dsa", "step/dsa+kde", "step/dc-inner"} <= names
    groups = [case.variant["groups"] for case in cases.select(["scale/groups"])]
    assert groups == [0, 2, 4, 6, 8, 10]


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
    ):
        sizes[case.label] = case.shape(case.inputs(0, torch.device("cpu"), False))
    assert sizes["augment/mix"] == {"images": [256, 3, 32, 32]}
    assert sizes["segment_mean segments=100"] == {"rows": [2560, 2048], "segments": 100}
    for name, groups in (("step/dm", 0), ("step/dc+fairdd", 10)):
        step = sizes[name]
        assert (step["classes"], step["batch_real"], step["ipc"], step["image"]) == (10, 256, 10, [3, 32, 32])
        assert (step["width"], step["depth"], step["groups"]) == (128, 3, groups)
    assert sizes["step/dc-inner"]["images"] == [100, 3, 32, 32]
