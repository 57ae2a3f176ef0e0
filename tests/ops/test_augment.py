import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from opchecks import opcheck

from fastdd.core import rng
from fastdd.ops.augment import Param, augment, augment_adjoint, identity_params
from fastdd.ops.dsa import DSA_OPS, DSA_STRATEGY, dsa_params

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
BACKENDS = ["auto", "reference"]


def theta_of(params, size):
    """F.affine_grid's matrix of a parameter row: pixels to normalised coordinates on both sides."""
    height, width = size
    rows = []
    for p in params.double():
        pixel = torch.eye(3, dtype=torch.float64)
        pixel[:2] = p[:6].cpu().view(2, 3)
        # Normalised to pixels: x = ((xn + 1) W - 1) / 2.
        to_pixels = torch.tensor(
            [[width / 2, 0, (width - 1) / 2], [0, height / 2, (height - 1) / 2], [0, 0, 1]], dtype=torch.float64
        )
        rows.append((torch.linalg.inv(to_pixels) @ pixel @ to_pixels)[:2])
    return torch.stack(rows).to(params.device)


def plain(x, params):
    """What anyone would write: F.grid_sample and a line per colour operation, in x's dtype."""
    height, width = x.shape[-2:]
    theta = theta_of(params, (height, width)).to(x.dtype)
    y = F.grid_sample(x, F.affine_grid(theta, list(x.shape), align_corners=False), align_corners=False)
    p = params.to(x.dtype)[:, :, None, None, None]
    y = y + p[:, Param.BRIGHTNESS]
    mean = y.mean(1, keepdim=True)
    y = (y - mean) * p[:, Param.SATURATION] + mean
    mean = y.mean((1, 2, 3), keepdim=True)
    y = (y - mean) * p[:, Param.CONTRAST] + mean
    mask = torch.ones_like(y)
    for i, row in enumerate(params.long().tolist()):
        mask[i, :, row[Param.TOP] : row[Param.BOTTOM], row[Param.LEFT] : row[Param.RIGHT]] = 0
    return y * mask


def random_params(seed, n, size, dtype=torch.float64):
    """Rows with every operation in them at once, shears, reflections and large shifts included."""
    generator = torch.Generator().manual_seed(seed)
    height, width = size
    params = identity_params(n, dtype=torch.float64)
    u = torch.rand(n, 13, generator=generator, dtype=torch.float64)
    angle, sx, sy = (u[:, 0] - 0.5) * 2 * math.pi, 0.5 + u[:, 1] * 1.5, 0.5 + u[:, 2] * 1.5
    sign = torch.where(u[:, 3] < 0.5, -1.0, 1.0)
    params[:, Param.A], params[:, Param.B] = sign * sx * angle.cos(), -sy * angle.sin()
    params[:, Param.D], params[:, Param.E] = sign * sx * angle.sin(), sy * angle.cos()
    params[:, Param.C], params[:, Param.F] = (u[:, 4] * 1.5) * width, (u[:, 5] * 1.5) * height
    params[:, Param.BRIGHTNESS : Param.TOP] = u[:, 6:9] * 2 - 0.5
    rectangle = (u[:, 9:13] * torch.tensor([height, width, height, width]) * 1.2).floor()
    params[:, Param.TOP :] = rectangle
    return params.to(dtype)


def images(seed, shape, dtype=torch.float64, device="cpu"):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(device, dtype)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("op", [*DSA_OPS, DSA_STRATEGY])
def test_every_operation_in_float64(op, backend, device):
    x = images(0, (12, 3, 9, 12), device=device)
    params = dsa_params(op, rng.lanes(rng.key(0, op), 12, device), (9, 12), dtype=torch.float64)
    expected = plain(x, params)
    torch.testing.assert_close(augment(x, params, backend=backend), expected, rtol=0, atol=1e-13)
    g = images(1, x.shape, device=device)
    x.requires_grad_()
    (expected,) = torch.autograd.grad(plain(x, params), x, g)
    torch.testing.assert_close(augment_adjoint(g, params, backend=backend), expected, rtol=0, atol=1e-13)
    (got,) = torch.autograd.grad(augment(x, params, backend=backend), x, g)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-13)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 1000),
    n=st.integers(0, 4),
    channels=st.integers(1, 4),
    height=st.integers(1, 19),
    width=st.integers(1, 37),
)
def test_any_shape_and_any_matrix(seed, n, channels, height, width):
    x = images(seed, (n, channels, height, width))
    params = random_params(seed, max(n, 1), (height, width))[:n]
    got = augment(x, params)
    # Coordinates of tens of pixels, so 1e-13 of a pixel, times differences of neighbours.
    torch.testing.assert_close(got, augment(x, params, backend="reference"), rtol=0, atol=1e-11)
    if n:
        torch.testing.assert_close(got, plain(x, params), rtol=0, atol=1e-11)
    g = images(seed + 1, x.shape)
    adjoint = augment_adjoint(g, params)
    torch.testing.assert_close(adjoint, augment_adjoint(g, params, backend="reference"), rtol=0, atol=1e-11)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("op", DSA_OPS)
def test_error_is_at_most_twice_plain_torchs(op, dtype, device):
    x = images(2, (32, 3, 32, 32), dtype, device)
    params = dsa_params(op, rng.lanes(rng.key(1, op), 32, device), (32, 32))
    exact = plain(x.double(), params)
    error = (augment(x, params).double() - exact).abs().max()
    assert error <= 2 * (plain(x, params).double() - exact).abs().max()
    leaf, g = x.double().requires_grad_(), images(3, x.shape, dtype, device)
    (exact,) = torch.autograd.grad(plain(leaf, params), leaf, g.double())
    leaf = x.clone().requires_grad_()
    (theirs,) = torch.autograd.grad(plain(leaf, params), leaf, g)
    (ours,) = torch.autograd.grad(augment(leaf, params), leaf, g)
    assert (ours.double() - exact).abs().max() <= 2 * (theirs.double() - exact).abs().max()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_whole_pixel_shifts_and_flips_are_exact(dtype, backend, device):
    x = images(4, (4, 3, 7, 8), dtype, device)
    params = identity_params(4, device=device)
    params[1, [Param.A, Param.C]] = torch.tensor([-1.0, 7.0], device=device)
    params[2, [Param.C, Param.F]] = torch.tensor([2.0, -3.0], device=device)
    params[3, [Param.A, Param.C, Param.E, Param.F]] = torch.tensor([-1.0, 5.0, -1.0, 6.0], device=device)
    expected = torch.zeros_like(x)
    expected[0] = x[0]
    expected[1] = x[1].flip(-1)
    expected[2, :, 3:, :-2] = x[2, :, :-3, 2:]
    expected[3, :, :, :6] = x[3].flip(-1, -2)[:, :, 2:]
    assert torch.equal(augment(x, params, backend=backend), expected)
    transposed = torch.zeros_like(x)
    transposed[0] = x[0]
    transposed[1] = x[1].flip(-1)
    transposed[2, :, :-3, 2:] = x[2, :, 3:, :-2]
    transposed[3, :, :, :6] = x[3].flip(-1, -2)[:, :, 2:]
    assert torch.equal(augment_adjoint(x, params, backend=backend), transposed)


def mirrored(size, dx, dy, left_right, upside_down):
    """Shifted by (dx, dy) and mirrored about the image's centre: a matrix that the CPU copies by."""
    height, width = size
    a, e = (-1.0 if left_right else 1.0), (-1.0 if upside_down else 1.0)
    return [a, 0, dx + (width - 1) * left_right, 0, e, dy + (height - 1) * upside_down]


def copied(x, params):
    """Matrices of whole numbers, by indexing; then cutout."""
    rows = []
    for image, p in zip(x, params.long().tolist(), strict=True):
        v, u = torch.arange(x.shape[2]) * p[Param.E] + p[Param.F], torch.arange(x.shape[3]) * p[Param.A] + p[Param.C]
        inside = ((v >= 0) & (v < x.shape[2]))[:, None] & (u >= 0) & (u < x.shape[3])
        inside[p[Param.TOP] : p[Param.BOTTOM], p[Param.LEFT] : p[Param.RIGHT]] = False
        rows.append(image[:, v.clamp(0, x.shape[2] - 1)][:, :, u.clamp(0, x.shape[3] - 1)] * inside)
    return torch.stack(rows)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 1000),
    channels=st.integers(1, 5),
    height=st.integers(1, 11),
    width=st.integers(1, 40),
    shift=st.tuples(st.integers(-45, 45), st.integers(-12, 12)),
    flips=st.tuples(st.booleans(), st.booleans()),
    steps=st.tuples(st.booleans(), st.booleans(), st.booleans(), st.booleans()),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16]),
)
def test_copies_followed_by_any_steps(seed, channels, height, width, shift, flips, steps, dtype):
    size = (height, width)
    params = identity_params(2, dtype=torch.float64)
    params[0, :6] = torch.tensor(mirrored(size, *shift, *flips))
    colour = torch.tensor([0.5, 1.75, 0.625], dtype=torch.float64)
    params[:, Param.BRIGHTNESS : Param.TOP] = torch.where(
        torch.tensor(steps[:3]), colour, params[:, Param.BRIGHTNESS : Param.TOP]
    )
    if steps[3]:
        corners = random_params(seed, 2, size)[:, Param.TOP :].view(2, 2, 2)
        params[:, Param.TOP :] = corners.sort(1).values.flatten(1)
    x, g = images(seed, (2, channels, *size), dtype), images(seed + 1, (2, channels, *size), dtype)
    leaf = x.double().requires_grad_()
    expected = plain(leaf, params)
    (adjoint,) = torch.autograd.grad(expected, leaf, g.double())
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 0.04}[dtype]
    torch.testing.assert_close(augment(x, params).double(), expected.detach(), rtol=0, atol=tolerance)
    torch.testing.assert_close(augment_adjoint(g, params).double(), adjoint, rtol=0, atol=tolerance)
    if not any(steps[:3]):
        leaf = x.clone().requires_grad_()
        expected = copied(leaf, params)
        (adjoint,) = torch.autograd.grad(expected, leaf, g)
        assert torch.equal(augment(x, params), expected)
        assert torch.equal(augment_adjoint(g, params), adjoint)


@settings(deadline=None, max_examples=80)
@given(
    seed=st.integers(0, 1000),
    channels=st.integers(1, 6),
    height=st.integers(1, 18),
    width=st.integers(1, 70),
    matrix=st.tuples(*[st.integers(-24, 24)] * 4),
    shift=st.tuples(st.integers(-100, 600), st.integers(-100, 200)),
)
def test_float32_warps_are_exact_where_the_arithmetic_is(seed, channels, height, width, matrix, shift):
    # Eighths of a pixel and small whole numbers: nothing is rounded, whichever way the taps are added up.
    a, b, d, e = (v / 8 for v in matrix)
    squares, det = a * a + b * b + d * d + e * e, abs(a * e - b * d)
    assume(math.sqrt(squares + 2 * det) - math.sqrt(max(squares - 2 * det, 0)) > 0.51)
    params = identity_params(2)
    params[0, :6] = torch.tensor([a, b, shift[0] / 8, d, e, shift[1] / 8])
    params[1, :6] = torch.tensor([1.0, b, shift[1] / 8, -b, 1.0, shift[0] / 8])  # a small window, as DSA's
    x = torch.randint(-64, 65, (2, channels, height, width), generator=torch.Generator().manual_seed(seed)).float()
    for function in (augment, augment_adjoint):
        expected = function(x.double(), params.double(), backend="reference")
        assert torch.equal(function(x, params).double(), expected)


@pytest.mark.parametrize("width", range(5, 40))
def test_the_image_before_leaves_nothing_behind(width):
    # One thread's buffers serve its images in turn. The first is enlarged: the adjoint's window and border are wider.
    height = 6
    params = identity_params(2)
    params[0, [Param.A, Param.E]] = 0.3
    # Half of the windows lie beyond the lower right corner.
    params[1, :6] = torch.tensor([1.0, 0.25, -width / 2, -0.25, 1.0, -height / 2])
    x = images(14, (2, 3, height, width), torch.float32)
    for function in (augment, augment_adjoint):
        expected = function(x, params)[1]
        x[0] = math.nan
        assert torch.equal(function(x, params)[1], expected)


@pytest.mark.parametrize("device", DEVICES)
def test_interpolation_at_whole_pixels_is_exact_too(device):
    # A quarter turn is not a shift, so it goes through the interpolation, with weights 0 and 1.
    x = images(5, (1, 2, 6, 6), torch.float32, device)
    params = identity_params(1, device=device)
    params[0, :6] = torch.tensor([0.0, 1.0, 0.0, -1.0, 0.0, 5.0], device=device)
    assert torch.equal(augment(x, params), x.rot90(1, (2, 3)).flip(-1, -2))


@pytest.mark.parametrize("device", DEVICES)
def test_derivatives_of_first_and_second_order(device):
    x = images(6, (3, 2, 5, 6), device=device).requires_grad_()
    params = random_params(6, 2, (5, 6)).to(device)
    rows = torch.tensor([1, 0, 1], device=device)
    for function in (augment, augment_adjoint):
        assert torch.autograd.gradcheck(lambda t, f=function: f(t, params, rows), x)
        assert torch.autograd.gradgradcheck(lambda t, f=function: f(t, params, rows), x)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_opcheck(device, dtype):
    x = images(7, (3, 2, 5, 6), dtype, device).requires_grad_()
    params = random_params(7, 2, (5, 6), torch.float32).to(device)
    rows = torch.tensor([1, 0, 1], device=device)
    for linear in (False, True):
        opcheck(torch.ops.fastdd.augment, (x, params, rows, linear), dtype)
    opcheck(torch.ops.fastdd.augment, (x, params[:1], None, False), dtype)
    opcheck(torch.ops.fastdd.augment_adjoint, (x, params, rows), dtype)
    raw = torch.randint(0, 256, (3, 2, 5, 6), dtype=torch.uint8, device=device)
    mean, std = torch.tensor([[0.4, 0.5], [0.2, 0.3]], device=device)
    opcheck(torch.ops.fastdd.augment_uint8, (raw, params, rows, mean, std, dtype), dtype)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_uint8_is_normalised_on_the_way(device, dtype):
    raw = torch.arange(3 * 256).remainder(256).to(torch.uint8).view(1, 3, 16, 16).repeat(12, 1, 1, 1)
    mean, std = torch.tensor([[0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]])
    params = dsa_params(DSA_STRATEGY, rng.lanes(5, 12, device), (16, 16))
    compute = torch.float64 if dtype == torch.float64 else torch.float32
    # On the CPU: PyTorch's division by a number on a GPU is a multiplication by its reciprocal.
    normalised = (raw.to(compute) / 255 - mean.to(compute)[:, None, None]) / std.to(compute)[:, None, None]
    raw, mean, std = raw.to(device), mean.to(device), std.to(device)
    expected = augment(normalised.to(device), params).to(dtype)
    assert torch.equal(augment(raw, params, mean=mean, std=std, dtype=dtype), expected)
    reference = augment(raw, params, mean=mean, std=std, dtype=dtype, backend="reference")
    torch.testing.assert_close(reference, expected)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_images_with_the_same_row_get_the_same_transform(backend, device):
    x = images(8, (1, 3, 8, 8), torch.float32, device).repeat(6, 1, 1, 1)
    params = random_params(8, 2, (8, 8), torch.float32).to(device)
    y = augment(x, params, torch.tensor([0, 1, 0, 0, 1, 0], device=device), backend=backend)
    assert torch.equal(y[0], augment(x[:1], params[:1], backend=backend)[0])
    assert torch.equal(y[1], augment(x[:1], params[1:], backend=backend)[0])
    for i, same in ((2, 0), (3, 0), (4, 1), (5, 0)):
        assert torch.equal(y[i], y[same])
    # One row serves all images.
    assert torch.equal(augment(x, params[:1], backend=backend)[5], y[0])


@pytest.mark.parametrize("device", DEVICES)
def test_strides_do_not_matter(device):
    x = images(9, (4, 3, 8, 8), torch.float32, device)
    params = random_params(9, 4, (8, 8), torch.float32).to(device)
    expected = augment(x, params)
    assert torch.equal(augment(x.contiguous(memory_format=torch.channels_last), params), expected)
    assert torch.equal(augment(x, params.t().contiguous().t()), expected)
    one = x[:1].expand(4, -1, -1, -1)
    assert torch.equal(augment(one, params), augment(one.contiguous(), params))
    # Gradients of sums arrive with stride 0.
    leaf = x.clone().requires_grad_()
    augment(leaf, params).sum().backward()
    assert torch.equal(leaf.grad, augment_adjoint(torch.ones_like(x), params))


@pytest.mark.parametrize("device", DEVICES)
def test_two_runs_are_bitwise_equal(device):
    x = images(10, (16, 3, 32, 32), torch.float32, device)
    params = random_params(10, 16, (32, 32), torch.float32).to(device)
    assert torch.equal(augment(x, params), augment(x, params))
    assert torch.equal(augment_adjoint(x, params), augment_adjoint(x, params))


def test_results_do_not_depend_on_the_number_of_threads():
    x = images(11, (16, 3, 32, 32), torch.float32)
    params = random_params(11, 16, (32, 32), torch.float32)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append((augment(x, params), augment_adjoint(x, params)))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.gpu
@pytest.mark.parametrize("size", [(32, 32), (64, 64), (128, 128), (224, 224)])
def test_gpu_agrees_with_the_reference_at_every_size(size):
    # The last no longer fits shared memory and takes the other path.
    x, params = images(12, (3, 3, *size)), random_params(12, 3, size)
    for function in (augment, augment_adjoint):
        expected = function(x, params, backend="reference")
        torch.testing.assert_close(function(x.cuda(), params.cuda()).cpu(), expected, rtol=0, atol=1e-10)


@pytest.mark.gpu
def test_runs_on_the_current_stream():
    x, params = images(13, (8, 3, 32, 32), torch.float32), random_params(13, 8, (32, 32), torch.float32)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        there, rows = x.pin_memory().to("cuda", non_blocking=True), params.pin_memory().to("cuda", non_blocking=True)
        torch.cuda._sleep(10_000_000)
        got = augment(there * 2, rows)
    stream.synchronize()
    torch.testing.assert_close(got.cpu(), augment(x * 2, params), rtol=1e-4, atol=1e-4)


@pytest.mark.gpu
def test_gpu_marks_a_row_that_does_not_exist():
    y = augment(torch.zeros(2, 1, 4, 4, device="cuda"), identity_params(1).cuda(), torch.tensor([0, 1]).cuda())
    assert torch.equal(y[0], torch.zeros(1, 4, 4).cuda())
    assert y[1].isnan().all()


def test_what_does_not_fit_is_refused():
    x, params = torch.zeros(3, 2, 4, 4), identity_params(3)
    with pytest.raises(TypeError, match=r"uint8, not torch\.float16"):
        augment(x.half(), params)
    with pytest.raises(ValueError, match=r"\[N, C, H, W\], not \[2, 4, 4\]"):
        augment(x[0], params)
    with pytest.raises(ValueError, match=r"\[R, 13\], not \[3, 12\]"):
        augment(x, params[:, :12])
    with pytest.raises(ValueError, match="2 rows for 3 images"):
        augment(x, params[:2])
    with pytest.raises(ValueError, match=r"rows must be int64 \[3\]"):
        augment(x, params, torch.tensor([0, 1]))
    with pytest.raises(ValueError, match=r"params\.detach"):
        augment(x, params.requires_grad_())
    params = identity_params(3)
    with pytest.raises(ValueError, match=r"uint8 images need mean and std of shape \[2\]"):
        augment(x.byte(), params)
    with pytest.raises(ValueError, match="for uint8 images"):
        augment(x, params, mean=torch.zeros(2), std=torch.ones(2))
    with pytest.raises(TypeError, match=r"not torch\.float16"):
        augment(x.byte(), params, mean=torch.zeros(2), std=torch.ones(2), dtype=torch.float16)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", ["augment", "augment_adjoint", "uint8"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_that_do_not_fit_are_refused(dtype, kind, backend):
    x, params = torch.zeros(3, 2, 4, 4), identity_params(3, dtype=dtype)
    if kind == "uint8":
        normalisation = {"mean": torch.zeros(2), "std": torch.ones(2)}

        def run(p, rows=None):
            return augment(x.byte(), p, rows, backend=backend, **normalisation)
    else:

        def run(p, rows=None):
            return {"augment": augment, "augment_adjoint": augment_adjoint}[kind](x, p, rows, backend=backend)

    for wrong in ([0, 3, 1], [0, -1, 1]):
        with pytest.raises(ValueError, match=r"0\.\.2, the rows of params; got (0\.\.3|-1\.\.1)"):
            run(params, torch.tensor(wrong))
    for matrix in ((0.2, 0, 0, 0, 1, 0), (1, 1, 0, 1, 1, 0), (0, 0, 0, 0, 0, 0)):
        wrong = params.clone()
        wrong[1, :6] = torch.tensor(matrix)
        with pytest.raises(ValueError, match=r"params row 1: the matrix .* more than 4 times or is singular"):
            run(wrong)
    for value in (math.nan, math.inf, -math.inf):
        wrong = params.clone()
        wrong[2, Param.RIGHT] = value
        with pytest.raises(ValueError, match="row 2 is not finite"):
            run(wrong)
    # The largest that is allowed: 4 times.
    edge = params.clone()
    edge[:, [Param.A, Param.E]] = 0.25
    assert run(edge).shape == x.shape


def test_ops_of_the_dispatcher_refuse_values_too():
    x, wrong = torch.zeros(3, 2, 4, 4), identity_params(3)
    wrong[1, Param.A] = 0
    for op, rest in ((torch.ops.fastdd.augment, [False]), (torch.ops.fastdd.augment_adjoint, [])):
        with pytest.raises((RuntimeError, ValueError), match=r"params row 1.*singular"):
            op(x, wrong, None, *rest)
