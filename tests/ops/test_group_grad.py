import copy
from functools import partial
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from opchecks import opcheck
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from fastdd.models import ConvNet
from fastdd.ops._dispatch import has_kernel
from fastdd.ops.group_grad import group_grad
from fastdd.ops.grouped import grouped_conv_weight, grouped_matmul, grouped_outer

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
METHODS = ["slices", "fused"]
LENGTHS = [3, 0, 1, 4, 0]


class Functional(nn.Module):
    """The norm's parameters are used without a call of the norm, as a fused op would."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.Linear(4, 3)

    def forward(self, x):
        x = F.group_norm(self.conv(x), 2, self.norm.weight, self.norm.bias)
        return self.head(F.softplus(x).mean((2, 3)))


class Shared(nn.Module):
    """One layer called twice, and one parameter held by two layers."""

    def __init__(self):
        super().__init__()
        self.twice, self.one, self.two = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6, bias=False)
        self.two.weight = self.one.weight
        self.unused = nn.Linear(2, 2)

    def forward(self, x):
        x = torch.tanh(self.twice(torch.tanh(self.twice(x.flatten(1)[:, :6]))))
        return self.two(torch.tanh(self.one(x)))[:, :3]


class Tokens(nn.Module):
    """A linear layer and a layer norm over the positions of a sequence."""

    def __init__(self):
        super().__init__()
        self.embed, self.norm, self.head = nn.Linear(3, 5), nn.LayerNorm(5), nn.Linear(5, 3, bias=False)

    def forward(self, x):
        return self.head(F.gelu(self.norm(self.embed(input=x.flatten(2).mT))).mean(1))


def convolutions(*layers):
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.LazyLinear(3))


NETS = {
    "convnet": lambda: ConvNet(3, 3, width=4, depth=2, size=(8, 8), activation="swish"),
    "grey": lambda: ConvNet(1, 3, width=4, depth=1, size=(8, 8), norm="groupnorm"),
    "layernorm": lambda: ConvNet(3, 3, width=4, depth=2, size=(8, 8), norm="layernorm", activation="swish"),
    "without norm": lambda: ConvNet(3, 3, width=4, depth=2, size=(8, 8), norm="none"),
    "geometry": lambda: convolutions(
        nn.Conv2d(3, 4, (3, 2), stride=(2, 1), padding=(1, 2), dilation=(1, 2)),
        nn.InstanceNorm2d(4, affine=True),
        nn.GELU(),
        nn.Conv2d(4, 6, 3, groups=2, padding="same", dilation=2),
        nn.GELU(),
        nn.Conv2d(6, 6, 2, groups=6, padding="valid"),
        nn.GELU(),
        nn.Conv2d(6, 4, 3, padding=1, padding_mode="reflect", bias=False),
    ),
    "batchnorm in eval": lambda: convolutions(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Tanh()).eval(),
    "mlp": lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 5), nn.Tanh(), nn.Linear(5, 3)),
    "tokens": Tokens,
    "shared": Shared,
}


def case(name, lengths=LENGTHS, dtype=torch.float64, device="cpu"):
    torch.manual_seed(0)
    channels = 1 if name == "grey" else 3
    net = NETS.get(name, name)()
    net(torch.zeros(1, channels, 8, 8))
    n = sum(lengths)
    images, labels = torch.randn(n, channels, 8, 8, dtype=torch.float64), torch.randint(0, 3, (n,))
    weights = torch.rand(n, dtype=torch.float64)
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    net, images = net.to(device, dtype), images.to(device, dtype)
    for layer in net.modules():
        if isinstance(layer, nn.GroupNorm | nn.LayerNorm | nn.InstanceNorm2d):
            # At their start the weights are 1 and the biases 0, which hides mistakes.
            nn.init.normal_(layer.weight), nn.init.normal_(layer.bias)
    return net, images, labels.to(device), offsets.to(device), weights.to(device, dtype)


def literal(net, images, labels, offsets, weights, parameters, create_graph=False):
    """Segment by segment, from the definition."""
    net = copy.deepcopy(net).requires_grad_()
    dimensions = {"all": range(9), "weights": range(2, 9), "conv": [4]}[parameters]
    asked = {k: p for k, p in net.named_parameters() if p.dim() in dimensions}
    rows = []
    for start, end in pairwise(offsets.tolist()):
        w = weights[start:end]
        if end == start or w.sum() == 0:
            rows.append([torch.zeros_like(p) for p in asked.values()])
            continue
        loss = (w * F.cross_entropy(net(images[start:end]), labels[start:end], reduction="none")).sum() / w.sum()
        grads = torch.autograd.grad(loss, [*asked.values()], create_graph=create_graph, allow_unused=True)
        rows.append([torch.zeros_like(p) if g is None else g for p, g in zip(asked.values(), grads, strict=True)])
    return {k: torch.stack(column) for k, column in zip(asked, zip(*rows, strict=True), strict=True)}


def assert_equal(got, expected, tolerance=1e-12):
    assert list(got) == list(expected)
    # Of all parameters: the gradient of a bias before an instance norm is zero but for rounding.
    scale = max(t.abs().max() for t in expected.values())
    for name in got:
        assert got[name].shape == expected[name].shape
        assert (got[name] - expected[name]).abs().max() <= tolerance * scale, name


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("parameters", ["weights", "all"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", NETS)
def test_agrees_with_a_literal_loop(name, method, parameters, device):
    net, images, labels, offsets, weights = case(name, device=device)
    # A segment whose weights are all zero.
    weights[3] = 0
    for w, chunk in ((weights, None), (weights, 3), (None, None)):
        got = group_grad(net, images, labels, offsets, w, parameters=parameters, method=method, chunk_size=chunk)
        ones = torch.ones_like(weights) if w is None else w
        assert_equal(got, literal(net, images, labels, offsets, ones, parameters))
        assert not any(t.requires_grad for t in got.values())


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("create_graph", [False, True])
def test_gradients_of_convolutions_alone(create_graph, method, device):
    net, images, labels, offsets, weights = case("convnet", device=device)
    options = {"parameters": "conv", "create_graph": create_graph}
    got = group_grad(net, images, labels, offsets, weights, method=method, **options)
    assert got
    assert all(g.dim() == 5 for g in got.values())
    assert_equal(got, literal(net, images, labels, offsets, weights, **options))


@pytest.mark.parametrize("method", METHODS)
def test_agrees_with_per_sample_gradients(method):
    net, images, labels, offsets, weights = case("convnet")
    params = {k: p.detach() for k, p in net.named_parameters()}

    def one(params, image, label):
        return F.cross_entropy(torch.func.functional_call(net, params, (image[None],)), label[None])

    alone = [torch.func.grad(one)(params, image, label) for image, label in zip(images, labels, strict=True)]
    per_sample = {name: torch.stack([grads[name] for grads in alone]) for name in params}
    got = group_grad(net, images, labels, offsets, weights, parameters="all", method=method)
    for k, grads in per_sample.items():
        for s, (start, end) in enumerate(pairwise(offsets.tolist())):
            w = weights[start:end].view(-1, *(1,) * (grads.dim() - 1))
            expected = (w * grads[start:end]).sum(0) / w.sum() if end > start else torch.zeros_like(grads[0])
            torch.testing.assert_close(got[k][s], expected, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", NETS)
def test_second_derivatives_in_images_and_weights(name, method, device):
    net, images, labels, offsets, weights = case(name, device=device)
    images.requires_grad_()
    weights.requires_grad_()
    grads = []
    for chunk in (None, 3):
        found = group_grad(
            net,
            images,
            labels,
            offsets,
            weights,
            parameters="all",
            create_graph=True,
            method=method,
            chunk_size=chunk,
        )
        target = literal(net, images, labels, offsets, weights, "all", create_graph=True)
        assert_equal(found, target)
        # A loss that mixes the segments and is not linear.
        torch.manual_seed(1)
        probes = {k: torch.randn_like(t) for k, t in target.items()}
        grads = [
            torch.autograd.grad(
                sum((p * g[k]).sum() ** 2 + g[k].square().sum() for k, p in probes.items()), [images, weights]
            )
            for g in (found, target)
        ]
        for got, expected in zip(*grads, strict=True):
            assert (got - expected).abs().max() <= 1e-10 * expected.abs().max()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("method", ["auto", *METHODS])
@pytest.mark.parametrize("parameters", ["weights", "all"])
def test_a_network_that_fuses_its_blocks_unless_hooks_look(method, parameters, device):
    net, images, labels, offsets, weights = case(lambda: ConvNet(3, 3, width=4, depth=2, size=(8, 8)), device=device)
    got = group_grad(net, images, labels, offsets, weights, method=method, parameters=parameters)
    assert_equal(got, literal(net, images, labels, offsets, weights, parameters))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("method", ["auto", *METHODS])
def test_a_network_whose_norms_run_inside_an_op(method, device):
    net, images, labels, offsets, weights = case(Functional, device=device)
    got = group_grad(net, images, labels, offsets, weights, method=method)
    assert_equal(got, literal(net, images, labels, offsets, weights, "weights"))
    if method == "fused":
        with pytest.raises(TypeError, match=r"norm\.weight is used outside of a call of its layer"):
            group_grad(net, images, labels, offsets, weights, method=method, parameters="all")
        return
    got = group_grad(net, images, labels, offsets, weights, method=method, parameters="all")
    assert_equal(got, literal(net, images, labels, offsets, weights, "all"))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("lengths", [[], [0], [1], [0, 0]])
def test_few_samples(method, lengths):
    net, images, labels, offsets, weights = case("convnet", lengths)
    got = group_grad(net, images, labels, offsets, weights, method=method)
    for k, p in net.named_parameters():
        if p.dim() > 1:
            assert got[k].shape == (len(lengths), *p.shape)
            assert got[k].any() == (sum(lengths) > 0)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("frozen", [False, True])
def test_the_network_is_left_as_it_is(method, frozen):
    net, images, labels, offsets, _ = case("batchnorm in eval")
    net.requires_grad_(not frozen)
    if not frozen:
        net(images).sum().backward()
    state = {name: t.clone() for name, t in net.state_dict().items()}
    before = [(id(p), p.grad if frozen else p.grad.clone()) for p in net.parameters()]
    with torch.no_grad():
        group_grad(net, images, labels, offsets, parameters="all", method=method)
    assert all(torch.equal(t, state[name]) for name, t in net.state_dict().items())
    for p, (identity, grad) in zip(net.parameters(), before, strict=True):
        assert id(p) == identity
        assert p.requires_grad is not frozen
        assert p.grad is None if frozen else torch.equal(p.grad, grad)
    assert all(not layer._forward_hooks for layer in net.modules())
    assert not any(layer.training for layer in net.modules())


@pytest.mark.parametrize("method", METHODS)
def test_running_statistics_of_an_instance_norm_do_not_move(method):
    tracked = partial(nn.InstanceNorm2d, 4, affine=True, track_running_stats=True)
    net, images, labels, offsets, weights = case(lambda: convolutions(nn.Conv2d(3, 4, 3), tracked()))
    before = net[1].running_mean.clone()
    got = group_grad(net, images, labels, offsets, weights, parameters="all", method=method)
    assert torch.equal(net[1].running_mean, before)
    assert_equal(got, literal(net, images, labels, offsets, weights, "all"))
    net.eval()
    got = group_grad(net, images, labels, offsets, weights, parameters="all", method=method)
    assert_equal(got, literal(net, images, labels, offsets, weights, "all"))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("method", METHODS)
def test_two_runs_are_bitwise_equal(method, device):
    net, images, labels, offsets, weights = case("convnet", [40, 3, 20], torch.float32, device)
    with torch.backends.cudnn.flags(deterministic=True, allow_tf32=False):
        first, second = (
            group_grad(net, images, labels, offsets, weights, parameters="all", method=method) for _ in range(2)
        )
    assert all(torch.equal(first[k], second[k]) for k in first)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("method", METHODS)
def test_error_in_float32_is_at_most_twice_plain_torchs(method, device):
    # A smooth activation: with ReLU, one that rounds to the other side of zero outweighs the arithmetic.
    build = partial(ConvNet, 3, 3, width=8, depth=2, size=(8, 8), activation="swish")
    net, images, labels, offsets, weights = case(build, [40, 3, 20], torch.float32, device)
    exact = literal(net.double(), images.double(), labels, offsets, weights.double(), "weights")
    with torch.backends.cudnn.flags(deterministic=True, allow_tf32=False):
        plain = literal(net.float(), images, labels, offsets, weights, "weights")
        got = group_grad(net, images, labels, offsets, weights, method=method)
    for k, truth in exact.items():
        assert got[k].dtype == torch.float32
        assert (got[k] - truth).norm() <= 2 * (plain[k] - truth).norm()


@pytest.mark.parametrize("method", METHODS)
def test_autocast_and_narrow_parameters_give_float32(method):
    net, images, labels, offsets, weights = case("convnet", dtype=torch.float32)
    exact = literal(net, images, labels, offsets, weights, "weights")
    with torch.autocast("cpu", torch.bfloat16):
        cast = group_grad(net, images, labels, offsets, weights, method=method)
    net, images = net.bfloat16(), images.bfloat16()
    narrow = group_grad(net, images, labels, offsets, weights, method=method)
    for k, truth in exact.items():
        for got in (cast[k], narrow[k]):
            assert got.dtype == torch.float32
            assert (got - truth).norm() < 0.05 * truth.norm()


def test_auto_is_slices_on_the_cpu():
    net, images, labels, offsets, weights = case("convnet", dtype=torch.float32)
    got = group_grad(net, images, labels, offsets, weights)
    slices = group_grad(net, images, labels, offsets, weights, method="slices")
    assert all(torch.equal(got[k], slices[k]) for k in got)


class Passes(nn.Module):
    """Keeps the sizes of the batches that a network is called on."""

    def __init__(self, net):
        super().__init__()
        self.net, self.sizes = net, []

    def forward(self, x):
        self.sizes.append(len(x))
        return self.net(x)


@pytest.mark.parametrize("parameters", ["weights", "conv"])
@pytest.mark.parametrize("channels", [1, 3, 20])
def test_short_segments_share_a_pass_with_the_bits_of_their_own(channels, parameters):
    if not has_kernel("conv3x3", torch.device("cpu")):
        pytest.skip("there is no extension")
    torch.manual_seed(0)
    net = Passes(ConvNet(channels, 3, width=16, depth=2, size=(12, 12)))
    lengths = [3, 1, 0, 10, 2, 9]
    images, labels, weights = torch.randn(25, channels, 12, 12), torch.randint(0, 3, (25,)), torch.rand(25)
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    rows = group_grad(net, images, labels, offsets, weights, parameters=parameters, chunk_size=8)
    # The third part of the long segment, of two images, is with the segment of two.
    assert net.sizes == [4, 8, 4, 8, 1]
    assert not net._modules["net"].features[0].by_segment
    for segment, (start, end) in enumerate(pairwise(offsets.tolist())):
        own = slice(start, end)
        single = group_grad(
            net,
            images[own],
            labels[own],
            torch.tensor([0, end - start]),
            weights[own],
            parameters=parameters,
            chunk_size=8,
        )
        assert all(torch.equal(row[segment], one[0]) for row, one in zip(rows.values(), single.values(), strict=True))


class TwoViews(nn.Module):
    """A network that sees every image as two, so that its layers' rows are not the samples."""

    def __init__(self):
        super().__init__()
        self.net = ConvNet(3, 3, width=16, depth=1, size=(8, 4))

    def forward(self, x):
        return self.net(torch.cat(x.split(4, 3))).unflatten(0, (2, -1)).mean(0)


class OwnUse(nn.Module):
    """A layer's weight is used outside of the layer too."""

    def __init__(self):
        super().__init__()
        self.net = ConvNet(3, 3, width=16, depth=1, size=(8, 8))

    def forward(self, x):
        return self.net(x) + self.net.classifier.weight.square().sum()


@pytest.mark.parametrize("make", [TwoViews, OwnUse])
def test_what_cannot_share_a_pass_has_its_own(make):
    net, images, labels, offsets, weights = case(make, lengths=[2, 3, 0, 1], dtype=torch.float32)
    exact = group_grad(net.double(), images.double(), labels, offsets, weights.double())
    found = group_grad(net.float(), images, labels, offsets, weights)
    for name, one in found.items():
        torch.testing.assert_close(one.double(), exact[name], rtol=1e-4, atol=1e-5)


def test_another_loss():
    net, images, _, offsets, weights = case("mlp")
    targets = torch.randn(len(images), 3, dtype=torch.float64)

    def loss(outputs, targets):
        return (outputs - targets).square().sum(1)

    found = [group_grad(net, images, targets, offsets, weights, loss=loss, method=method) for method in METHODS]
    assert_equal(*found)
    with pytest.raises(ValueError, match=r"one value a sample, \[3\], not \[\]"):
        group_grad(net, images, targets, offsets, weights, loss=F.mse_loss, method="slices")


def test_layers_that_couple_samples_are_refused():
    net, images, labels, offsets, _ = case("batchnorm in eval")
    with pytest.raises(
        ValueError, match=r"^1 \(BatchNorm2d\) couples the samples .* use instance norm, or net.eval\(\)$"
    ):
        group_grad(net.train(), images, labels, offsets)
    net, images, labels, offsets, _ = case(lambda: nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False)).eval())
    with pytest.raises(ValueError, match=r"^0 \(BatchNorm2d\) couples"):
        group_grad(net, images, labels, offsets)


def test_what_fused_has_no_rule_for_is_refused_and_slices_does():
    net, images, labels, offsets, weights = case(Functional)
    for method in METHODS:
        got = group_grad(net, images, labels, offsets, weights, method=method)
        assert_equal(got, literal(net, images, labels, offsets, weights, "weights"))
    with pytest.raises(TypeError, match=r"^norm\.weight is used outside of a call of its layer: use method='slices'$"):
        group_grad(net, images, labels, offsets, parameters="all", method="fused")

    class Scaled(nn.Conv2d):
        def forward(self, x):
            return 2 * super().forward(x)

    class Merged(nn.Module):
        def forward(self, x):
            return x.flatten(0, 1).flatten(1)

    class Split(nn.Module):
        def forward(self, x):
            return x.view(-1, 3, 3).sum(1)

    class Extended(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(192, 3)
            self.head.other = nn.Parameter(torch.zeros(3, 192))

        def forward(self, x):
            return self.head(x.flatten(1))

    class Clobber(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(192, 3)

        def forward(self, x):
            x = x.flatten(1).clone()
            y = self.head(x)
            x.mul_(2)
            return y

    for build, message in (
        (lambda: convolutions(Scaled(3, 4, 3)), r"^0 \(Scaled\) has no rule"),
        (lambda: convolutions(nn.ConvTranspose2d(3, 4, 3)), r"^0 \(ConvTranspose2d\) has no rule"),
        (Extended, r"^head \(Linear\) has no rule"),
        (lambda: convolutions(weight_norm(nn.Conv2d(3, 4, 3))), r"^0\.parametrizations\.weight \(Param.*List\) has no"),
        (
            lambda: nn.Sequential(Merged(), nn.Linear(64, 3), Split()),
            r"^1 \(Linear\) is called on 24 rows for 8 samples",
        ),
    ):
        net, images, labels, offsets, weights = case(build)
        with pytest.raises(TypeError, match=message):
            group_grad(net, images, labels, offsets, method="fused")
        got = group_grad(net, images, labels, offsets, weights, method="slices")
        assert_equal(got, literal(net, images, labels, offsets, weights, "weights"))
    net, images, labels, offsets, _ = case(Clobber)
    with pytest.raises(RuntimeError, match=r"input of head \(Linear\) was modified in place"):
        group_grad(net, images, labels, offsets, method="fused")


def test_what_does_not_fit_is_refused():
    net, images, labels, offsets, weights = case("mlp")
    for options, message in (
        ({"method": "loop"}, "method='loop' is not one of auto, slices, fused"),
        ({"parameters": "biases"}, "parameters='biases' is not one of weights, conv, all"),
        ({"chunk_size": 0}, "chunk_size must be at least 1, not 0"),
        ({"weights": weights[1:]}, r"weights must be floating point \[8\]"),
        ({"labels": labels[1:]}, r"labels must be \[8\]"),
        ({"offsets": offsets - 1}, "rise from 0 to the number of rows, 8"),
    ):
        with pytest.raises(ValueError, match=message):
            group_grad(**{"net": net, "images": images, "labels": labels, "offsets": offsets, **options})
    for method in METHODS:
        with pytest.raises(RuntimeError, match="is there a no_grad in net"):
            group_grad(net, images, labels, offsets, loss=lambda y, _: y.detach().sum(1), method=method)
    with pytest.raises(ValueError, match="no parameters of more than one dimension"):
        group_grad(nn.Flatten(), images, labels, offsets)
    with pytest.raises(ValueError, match="no parameters of four dimensions: ask for parameters='all'"):
        group_grad(net, images, labels, offsets, parameters="conv")


# The grouped products.


def products(seed, lengths, rows, p, q, dtype=torch.float64, device="cpu", weighted=True):
    generator = torch.Generator().manual_seed(seed)

    def randn(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(device, dtype)

    n = sum(lengths)
    weights = torch.rand(n, generator=generator).to(device) if weighted else None
    offsets = torch.tensor([0, *lengths]).cumsum(0).to(device)
    return randn(n * rows, p), randn(n * rows, q), randn(len(lengths), q, p), weights, offsets


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 1000),
    lengths=st.lists(st.integers(0, 9), min_size=0, max_size=5),
    rows=st.integers(1, 4),
    p=st.integers(0, 20),
    q=st.integers(1, 20),
    weighted=st.booleans(),
)
def test_grouped_products_of_any_shape(seed, lengths, rows, p, q, weighted):
    a, b, g, weights, offsets = products(seed, lengths, rows, p, q, weighted=weighted)
    segment = torch.arange(len(lengths)).repeat_interleave(offsets.diff() * rows)
    w = torch.ones(sum(lengths) * rows) if weights is None else weights.repeat_interleave(rows)
    outer = grouped_outer(a, b, weights, offsets, rows_per_sample=rows)
    expected = torch.zeros_like(g).index_add(0, segment, w[:, None, None] * b[:, :, None] * a[:, None, :])
    torch.testing.assert_close(outer, expected, rtol=1e-12, atol=1e-12)
    matmul = grouped_matmul(b, g, weights, offsets, rows_per_sample=rows)
    expected = w[:, None] * torch.einsum("rq,rqp->rp", b, g[segment])
    torch.testing.assert_close(matmul, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("weighted", [False, True])
def test_error_of_grouped_products_is_at_most_twice_plain_torchs(device, dtype, weighted):
    lengths, rows = [30, 0, 1, 300, 17], 3
    a, b, g, weights, offsets = products(0, lengths, rows, 37, 21, dtype, device, weighted)
    w = torch.ones(len(a) // rows, device=device) if weights is None else weights
    w = w.repeat_interleave(rows)[:, None]
    g = g.float()

    def plain(cast):
        ends = [rows * end for end in offsets.tolist()]
        x, y, z = cast(a), cast(b), cast(g)
        outer = [(cast(w[i:j]) * y[i:j]).t() @ x[i:j] for i, j in pairwise(ends)]
        matmul = [cast(w[i:j]) * (y[i:j] @ z[s]) for s, (i, j) in enumerate(pairwise(ends))]
        return torch.stack(outer), torch.cat(matmul)

    got = (
        grouped_outer(a, b, weights, offsets, rows_per_sample=rows),
        grouped_matmul(b, g, weights, offsets, rows_per_sample=rows),
    )
    for found, exact, theirs in zip(got, plain(torch.Tensor.double), plain(lambda t: t.to(dtype)), strict=True):
        assert found.dtype == torch.float32
        assert (found.double() - exact).abs().max() <= 2 * (theirs.double() - exact).abs().max()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("lengths", [[2, 0, 3], [], [1], [0]])
@pytest.mark.parametrize("weighted", [False, True])
def test_derivatives_of_grouped_products(device, lengths, weighted):
    a, b, g, weights, offsets = products(1, lengths, 2, 3, 2, device=device, weighted=weighted)
    w = None if weights is None else weights.double().requires_grad_()
    for function, arguments in (
        (lambda x, y, z: grouped_outer(x, y, z, offsets, rows_per_sample=2), (a, b, w)),
        (lambda x, y, z: grouped_matmul(x, y, z, offsets, rows_per_sample=2), (b, g, w)),
    ):
        for t in arguments[:2]:
            t.requires_grad_()
        assert torch.autograd.gradcheck(function, arguments)
        assert torch.autograd.gradgradcheck(function, arguments)


GEOMETRIES = [
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": (3, 2), "stride": (2, 1), "padding": (1, 2), "dilation": (1, 2), "groups": 2},
    {"kernel_size": 1, "groups": 4},
    {"kernel_size": 2, "stride": 3},
]


def convolution(seed, lengths, geometry, dtype=torch.float64, device="cpu", size=(6, 5)):
    generator = torch.Generator().manual_seed(seed)
    groups, n = geometry.get("groups", 1), sum(lengths)
    x = torch.randn(n, 4, *size, generator=generator, dtype=torch.float64)
    shape = nn.Conv2d(4, 4, **geometry)(torch.zeros(1, 4, *size)).shape[1:]
    b = torch.randn(n, *shape, generator=generator, dtype=torch.float64)
    kernel = nn.Conv2d(4, 4, **geometry).kernel_size
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    return x.to(device, dtype), b.to(device, dtype), offsets.to(device), (4, 4 // groups, *kernel)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_grouped_conv_weight_is_the_derivative_of_the_convolution(device, dtype, geometry):
    x, b, offsets, shape = convolution(2, LENGTHS, geometry, dtype, device)
    got = grouped_conv_weight(x, b, offsets, **geometry)
    options = {k: v for k, v in geometry.items() if k != "kernel_size"}
    for s, (start, end) in enumerate(pairwise(offsets.tolist())):
        weight = torch.zeros(shape, dtype=torch.float64, device=device, requires_grad=True)
        value = (F.conv2d(x[start:end].double(), weight, **options) * b[start:end].double()).sum()
        expected = torch.autograd.grad(value, weight)[0] if end > start else torch.zeros(shape, device=device)
        tolerance = 1e-13 if dtype == torch.float64 else 5e-6
        torch.testing.assert_close(got[s].double(), expected.double(), rtol=0, atol=tolerance * 20)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_derivatives_of_grouped_conv_weight(device, geometry):
    x, b, offsets, _ = convolution(3, [2, 0, 1], geometry, device=device, size=(3, 3))
    x, b = x.requires_grad_(), b.requires_grad_()
    function = partial(grouped_conv_weight, offsets=offsets, **geometry)
    assert torch.autograd.gradcheck(function, (x, b))
    assert torch.autograd.gradgradcheck(function, (x, b))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_opcheck(device, dtype):
    a, b, g, weights, offsets = products(4, [2, 0, 3], 2, 3, 4, dtype, device)
    g = g.float().requires_grad_()
    for t in (a, b, weights):
        t.requires_grad_()
    for w in (None, weights):
        opcheck(torch.ops.fastdd.grouped_outer, (a, b, w, offsets, 2), dtype)
        opcheck(torch.ops.fastdd.grouped_matmul, (b, g, w, offsets, 2), dtype)
    x, b, offsets, shape = convolution(4, [2, 0, 1], GEOMETRIES[0], dtype, device)
    arguments = (x.requires_grad_(), b.requires_grad_(), offsets, list(shape[2:]), [1, 1], [1, 1], [1, 1], 1)
    opcheck(torch.ops.fastdd.grouped_conv_weight, arguments, dtype)
    x, b, offsets, kernel, *geometry = arguments
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    filters = torch.ones(len(offsets) - 1, b.shape[1], x.shape[1] // geometry[-1], *kernel, dtype=wide, device=device)
    filters.requires_grad_()
    for y, size, adjoint in ((x, b.shape[2:], False), (b, x.shape[2:], True)):
        opcheck(torch.ops.fastdd.grouped_conv, (y, filters, offsets, [*size], *geometry, adjoint), dtype)


@pytest.mark.parametrize("device", DEVICES)
def test_strides_do_not_matter(device):
    a, b, g, weights, offsets = products(5, [5, 6], 1, 8, 4, torch.float32, device)
    expected = grouped_outer(a, b, weights, offsets)
    torch.testing.assert_close(grouped_outer(a.t().contiguous().t(), b, weights, offsets), expected)
    torch.testing.assert_close(grouped_outer(a, b, torch.stack([weights, weights], 1)[:, 0], offsets), expected)
    row = b[:1]
    torch.testing.assert_close(
        grouped_outer(a, row.expand(11, 4), weights, offsets), grouped_outer(a, row.repeat(11, 1), weights, offsets)
    )
    expected = grouped_matmul(b, g, weights, offsets)
    torch.testing.assert_close(grouped_matmul(b, g.mT.contiguous().mT, weights, offsets), expected)
    # Gradients of sums arrive with stride 0.
    for t in (a, b):
        t.requires_grad_()
    grads = torch.autograd.grad(grouped_outer(a, b, weights, offsets).sum(), [a, b])
    ones = torch.ones(2, 4, 8, device=device)
    torch.testing.assert_close(grads[0], grouped_matmul(b, ones, weights, offsets))
    torch.testing.assert_close(grads[1], grouped_matmul(a, ones.mT, weights, offsets))
    x, b, offsets, _ = convolution(5, [2, 3], GEOMETRIES[1], torch.float32, device)
    expected = grouped_conv_weight(x, b, offsets, **GEOMETRIES[1])
    last = [t.contiguous(memory_format=torch.channels_last) for t in (x, b)]
    torch.testing.assert_close(grouped_conv_weight(*last, offsets, **GEOMETRIES[1]), expected)
    torch.testing.assert_close(
        grouped_conv_weight(x[:1].expand(5, -1, -1, -1), b, offsets, **GEOMETRIES[1]),
        grouped_conv_weight(x[:1].repeat(5, 1, 1, 1), b, offsets, **GEOMETRIES[1]),
    )


@pytest.mark.parametrize("device", DEVICES)
def test_grouped_products_of_two_runs_are_bitwise_equal(device):
    a, b, g, weights, offsets = products(6, [900, 3, 700], 4, 70, 33, torch.float32, device)
    for function in (
        lambda: grouped_outer(a, b, weights, offsets, rows_per_sample=4),
        lambda: grouped_matmul(b, g, weights, offsets, rows_per_sample=4),
    ):
        assert torch.equal(function(), function())


def test_grouped_products_refuse_what_does_not_fit():
    a, b, g, weights, offsets = products(7, [2, 1], 2, 3, 4, torch.float32)
    with pytest.raises(TypeError, match=r"a must be float32, .* not torch\.int64"):
        grouped_outer(a.long(), b, weights, offsets, rows_per_sample=2)
    with pytest.raises(ValueError, match=r"6 rows, which is no multiple of rows_per_sample=4"):
        grouped_outer(a, b, weights, offsets, rows_per_sample=4)
    with pytest.raises(ValueError, match=r"b must be \[6, Q\] for a \[6, 3\], not \[5, 4\]"):
        grouped_outer(a, b[1:], weights, offsets, rows_per_sample=2)
    with pytest.raises(ValueError, match="a and b must be of one dtype and device"):
        grouped_outer(a, b.double(), weights, offsets, rows_per_sample=2)
    with pytest.raises(ValueError, match="rise from 0 to the number of rows, 6"):
        grouped_outer(a, b, None, offsets)
    with pytest.raises(
        ValueError, match=r"g must be \[2, 4, M\], torch\.float32 on cpu, not \[2, 4, 3\], torch\.float64"
    ):
        grouped_matmul(b, g.double(), weights, offsets, rows_per_sample=2)
    x, b, offsets, _ = convolution(8, [2, 1], GEOMETRIES[0], torch.float32)
    with pytest.raises(ValueError, match=r"b must be \[3, O, 6, 5\] .* not \[3, 4, 6, 4\]"):
        grouped_conv_weight(x, b[..., 1:], offsets, 3, padding=1)
    with pytest.raises(ValueError, match="groups=3 does not divide the 4 channels"):
        grouped_conv_weight(x, b, offsets, 3, padding=1, groups=3)
