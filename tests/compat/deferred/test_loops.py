"""Loops in the conventions of the field: what is computed together, and that it is what the script's own calls give."""

import gc
import traceback

import pytest
import torch
from torch import nn

from fastdd import compat, ops
from fastdd.compat import deferred
from fastdd.compat.dc import ConvNet, DiffAugment, ParamDiffAug, match_loss
from fastdd.compat.deferred import calls, gradients, graph, sites
from fastdd.compat.deferred.hints import loops

RECORDED = type("ConvNet", (ConvNet,), {"__module__": "networks", **deferred.methods(ConvNet)})
CLASSES, IPC, BATCH, SIZE = 3, 2, 12, 16
ARGS = type("Args", (), {"dis_metric": "ours", "device": "cpu"})
criterion = nn.CrossEntropyLoss()


@pytest.fixture(autouse=True)
def recording():
    deferred.use(True)
    yield
    deferred.use(False)


@pytest.fixture
def net():
    torch.manual_seed(3)
    return RECORDED(3, CLASSES, 8, 2, "relu", "instancenorm", "avgpooling", (SIZE, SIZE))


@pytest.fixture
def data():
    torch.manual_seed(4)
    real = torch.randn(CLASSES, BATCH, 3, SIZE, SIZE)
    return real, torch.arange(CLASSES * BATCH).view(CLASSES, BATCH) % 3


def synthetic_images():
    torch.manual_seed(5)
    return torch.randn(CLASSES * IPC, 3, SIZE, SIZE, requires_grad=True)


def of_class(images, c):
    return images[c * IPC : (c + 1) * IPC].reshape((IPC, 3, SIZE, SIZE))


def dm(net, real, groups, images, by_group=False, augment=False):
    net.requires_grad_(False)
    loss = torch.tensor(0.0)
    for c in range(CLASSES):
        img_real, img_syn = real[c], of_class(images, c)
        if augment:
            img_real, img_syn = (
                DiffAugment(x, "color_crop_cutout_flip_scale_rotate", seed=c, param=ParamDiffAug(), rng="legacy")
                for x in (img_real, img_syn)
            )
        output_real = net.embed(img_real).detach()
        output_syn = net.embed(img_syn)
        for group in torch.unique(groups[c]) if by_group else [None]:
            of_group = output_real if group is None else output_real[(groups[c] == group)]
            loss += torch.sum((torch.mean(of_group, dim=0) - torch.mean(output_syn, dim=0)) ** 2)
    return loss


def dc(net, real, groups, images, by_group=False, held=None):
    parameters = list(net.parameters())
    loss = torch.tensor(0.0)
    for c in range(CLASSES):
        lab_real, lab_syn = (torch.ones((n,), dtype=torch.long) * c for n in (BATCH, IPC))
        output_real, output_syn = net(real[c]), net(of_class(images, c))
        gw_syn = torch.autograd.grad(criterion(output_syn, lab_syn), parameters, create_graph=True)
        for group in torch.unique(groups[c]) if by_group else [None]:
            chosen = slice(None) if group is None else groups[c] == group
            gw_real = torch.autograd.grad(
                criterion(output_real[chosen], lab_real[chosen]), parameters, retain_graph=True
            )
            gw_real = [_.detach().clone() for _ in gw_real]
            loss += match_loss(gw_syn, gw_real, ARGS)
        if held is not None:  # as the variables of a script, whose loop is no function
            held[:] = [output_real, output_syn, gw_syn, gw_real]
    return loss


def barycentre(net, real, groups, images):
    """Groups' means of embeddings of their own, and embeddings that nothing reads."""
    net.requires_grad_(False)
    loss = torch.tensor(0.0)
    for c in range(CLASSES):
        _, output_syn = net.embed(real[c]).detach(), net.embed(of_class(images, c))
        means = [torch.mean(net.embed(real[c][groups[c] == g]), dim=0) for g in torch.unique(groups[c])]
        middle = torch.mean(torch.stack(means, dim=0), dim=0)
        loss = loss + torch.sum((middle - torch.mean(output_syn, dim=0)).abs())
    return loss


LOOPS = {
    "dm": dm,
    "dm, augmented": lambda *a: dm(*a, augment=True),
    "dm by group": lambda *a: dm(*a, by_group=True),
    "dc": dc,
    "dc by group": lambda *a: dc(*a, by_group=True),
    "barycentre": barycentre,
}


def step(loop, net, data, on):
    sites._state["on"] = on
    images = synthetic_images()
    loss = loop(net, *data, images)
    loss.backward()
    return loss.item(), images.grad, [p.grad for p in net.parameters()], type(loss)


@pytest.mark.parametrize("name", LOOPS)
def test_the_same_loss_and_gradients(name, net, data):
    value, gradient, of_weights, _ = step(LOOPS[name], net, data, on=False)
    for _ in range(sites.CHECKS + 1):  # both ways at first, then together
        net.zero_grad()
        found, mine, weights_too, kind = step(LOOPS[name], net, data, on=True)
        assert kind is graph.Deferred
        assert found == pytest.approx(value, rel=1e-5)
        torch.testing.assert_close(mine, gradient, rtol=1e-4, atol=1e-5 * gradient.abs().max().item())
        for a, b in zip(weights_too, of_weights, strict=True):
            assert (a is None) == (b is None)
            if a is not None:
                torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
    differences, why = sites.comparisons()
    assert why == ""
    assert all(d < 1e-4 for d in differences)
    assert any(site.joined for site in sites.seen()) == (name != "dc")
    assert len(differences) == (0 if name == "dc" else sites.CHECKS)


def test_draws_are_the_scripts_own_in_legacy_mode(net, data):
    states = []
    for on in (False, True):
        torch.manual_seed(0)
        step(LOOPS["dm, augmented"], net, data, on)
        states.append(torch.get_rng_state())
    assert torch.equal(*states)


def test_what_nothing_reads_is_not_computed(net, data, monkeypatch):
    passes = []
    original = ConvNet.embed
    monkeypatch.setattr(ConvNet, "embed", lambda self, x: passes.append(len(x)) or original(self, x))
    recorded = type("ConvNet", (ConvNet,), {"__module__": "networks", **deferred.methods(ConvNet)})
    net.__class__ = recorded
    for _ in range(sites.CHECKS):
        step(barycentre, net, data, on=True)
    passes.clear()
    step(barycentre, net, data, on=True)
    assert BATCH not in passes
    assert CLASSES * IPC in passes


def test_no_pass_is_made_twice(net, data, monkeypatch):
    passes = []
    run = gradients.Gradients.run
    monkeypatch.setattr(gradients.Gradients, "run", lambda self, value_of: passes.append(1) or run(self, value_of))
    held = []
    step(lambda *a: dc(*a, held=held), net, data, on=True)
    assert len(passes) == 2 * CLASSES
    assert all(g.norm().isfinite() for g in (*held[2], *held[3]))
    assert len(passes) == 2 * CLASSES


def test_weights_that_change_while_something_waits(net, data):
    images, weight = data[0][0], net.features[0].weight
    before, output = net.embed(images).clone(), net.embed(images)
    with torch.no_grad():
        weight.mul_(2.0)
    waits = net.embed(images)
    weight.data.mul_(0.5)
    torch.testing.assert_close(output + 0, before + 0)
    assert not torch.allclose(waits + 0, before + 0)


def test_images_that_change_while_something_waits(net, data):
    images = data[0][0].clone()
    output, before = net.embed(images), ConvNet.embed(net, images)
    images.zero_()
    torch.testing.assert_close(output + 0, before)


def test_an_error_is_raised_where_the_script_makes_it(net, data):
    output = net(data[0][0])
    for line in (
        lambda: output[torch.ones(3, dtype=torch.bool)],
        lambda: torch.mean(output, dim=5),
        lambda: criterion(output, torch.full((BATCH,), CLASSES)),
        lambda: output + torch.zeros(7),
    ):
        with pytest.raises((IndexError, RuntimeError)) as raised:
            line()
        assert traceback.extract_tb(raised.tb)[1].name == "<lambda>"


def test_another_name_for_a_sum_keeps_its_value(net, data):
    net.requires_grad_(False)
    total = torch.tensor(0.0)
    other, view = total, torch.zeros(2)
    part = view[0]
    total += net.embed(data[0][0]).mean()
    part += net.embed(data[0][0]).mean()
    method = torch.tensor(0.0)
    method.add_(net.embed(data[0][0]).mean())
    assert other.item() == total.item() == view[0].item() == method.item() != 0.0


class _Double(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, g):
        return 2 * g


def test_ways_into_autograd_that_do_not_ask(net, data):
    images = synthetic_images()
    torch.autograd.backward([_Double.apply(net.embed(images)).sum()])
    found = images.grad.clone()
    images.grad = None
    (2 * ConvNet.embed(net, images)).sum().backward()
    torch.testing.assert_close(found, images.grad)


def test_memory_stays_flat(net, data):
    alive = []
    gc.disable()
    try:
        for _ in range(5):
            step(LOOPS["dc by group"], net, data, on=True)
            alive.append((sum(isinstance(x, graph.Node) for x in gc.get_objects()), calls._held["bytes"]))
    finally:
        gc.enable()
    assert alive[-1] == alive[-2] == alive[-3]


def test_no_more_than_a_limit_waits(net, data, monkeypatch):
    value, gradient, *_ = step(LOOPS["dm"], net, data, on=False)
    monkeypatch.setattr(calls, "MOST_HELD", 4 * data[0][0].nbytes)
    held, record = [], calls.Call.__init__
    monkeypatch.setattr(
        calls.Call, "__init__", lambda self, *a: (record(self, *a), held.append(calls._held["bytes"]))[0]
    )
    real = data[0].repeat_interleave(4, 0), data[1].repeat_interleave(4, 0)
    for _ in range(2):
        found, mine, *_ = step(LOOPS["dm"], net, data, on=True)
        assert found == pytest.approx(value, rel=1e-5)
        torch.testing.assert_close(mine, gradient, rtol=1e-4, atol=1e-5)
    several = [net.embed(x) for x in real[0]]
    assert max(held) <= calls.MOST_HELD
    assert len(several) * data[0][0].nbytes > calls.MOST_HELD


def test_a_difference_turns_it_off(net, data, monkeypatch):
    value, gradient, *_ = step(LOOPS["dc by group"], net, data, on=False)
    right = ops.gradient_match
    monkeypatch.setattr(ops, "gradient_match", lambda *a, **k: right(*a, **k) * (1.01 if len(a[0][0]) > 1 else 1))
    found, mine, *_ = step(LOOPS["dc by group"], net, data, on=True)
    assert found == pytest.approx(value, rel=1e-6)
    assert torch.equal(mine, gradient)
    assert "differs by 0.01" in sites.comparisons()[1]
    assert any("which were used instead" in line for line in deferred.notices())
    assert type(net.embed(data[0][0])) is torch.Tensor


def test_a_place_that_wins_nothing_is_left_alone(net, data):
    kinds = []
    for _ in range(sites._PATIENCE + 2):
        output = net(data[0][0])
        kinds.append(type(output))
        output.tanh()
    assert kinds == [graph.Deferred] * sites._PATIENCE + [torch.Tensor] * 2
    assert sites.seen()[0].why == {"tanh": sites._PATIENCE}


def test_networks_that_couple_images_or_have_hooks_are_not_recorded(data):
    mixed = RECORDED(3, 4, 8, 2, "relu", "batchnorm", "avgpooling", (SIZE, SIZE))
    assert type(mixed(data[0][0])) is torch.Tensor
    hooked = RECORDED(3, 4, 8, 2, "relu", "instancenorm", "avgpooling", (SIZE, SIZE))
    seen = []
    hooked.features[1].register_forward_hook(lambda *_: seen.append(1))
    assert type(hooked.embed(data[0][0])) is torch.Tensor
    assert seen
    assert {site.refusal for site in sites.seen()} == {
        "batch norm couples the images of a batch",
        "the network has hooks",
    }


SCRIPT = """
for step in range(3):
    loss = torch.tensor(0.0)
    for c in range(classes):
        batch = draw(c, args.batch_real)
        learned = pictures[c * args.ipc : (c + 1) * args.ipc]
        loss += torch.sum((torch.mean(net.embed(batch), dim=0) - torch.mean(net.embed(learned), dim=0)) ** 2)
"""


def test_two_lines_in_the_scripts_own_names(tmp_path):
    (found,) = loops(SCRIPT)
    assert (found.line, found.last) == (4, 7)
    assert found.call == "dm_loss(net, draw, pictures, args)"
    (other,) = loops(SCRIPT.replace("** 2)", ".abs())"))
    assert other.function == ""
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    (said,) = deferred.notices(path)
    assert "script.py, line 4" in said
    assert "    loss = dm_loss(net, draw, pictures, args)" in said
    assert hasattr(compat, found.function)


class Reparameterised(nn.Module):
    """As trajectory matching does it: for the time of a call the network's weights are views of a vector."""

    def __init__(self, net):
        super().__init__()
        self.net = net
        self.places = [(layer, name) for layer in net.modules() for name, _ in layer.named_parameters(recurse=False)]
        self.shapes = [getattr(layer, name).shape for layer, name in self.places]
        self.start = torch.cat([getattr(layer, name).detach().reshape(-1) for layer, name in self.places])
        for layer, name in self.places:
            delattr(layer, name)
        self.put(self.start)

    def put(self, flat):
        parts = flat.split([shape.numel() for shape in self.shapes])
        for (layer, name), part, shape in zip(self.places, parts, self.shapes, strict=True):
            setattr(layer, name, part.view(shape))

    def forward(self, x, flat_param):
        self.put(flat_param)
        try:
            return self.net(x)
        finally:
            self.put(self.start)


def test_weights_that_a_network_has_for_a_call_only_are_those_of_the_call():
    """Two steps of a student, through which the images' gradient goes."""

    def gradient(kind):
        torch.manual_seed(3)
        student = Reparameterised(kind(3, CLASSES, 8, 2, "relu", "instancenorm", "avgpooling", (SIZE, SIZE)))
        images = synthetic_images()
        flat = [student.start.clone().requires_grad_()]
        for _ in range(2):
            loss = criterion(student(images, flat[-1]), torch.arange(CLASSES).repeat_interleave(IPC))
            (grad,) = torch.autograd.grad(loss, flat[-1], create_graph=True)
            flat.append(flat[-1] - 0.1 * grad)
        ((flat[-1] - flat[0].detach() * 1.01) ** 2).sum().backward()
        return images.grad

    assert torch.equal(gradient(RECORDED), gradient(ConvNet))
    assert {site.refusal for site in sites.seen()} == {"its weights are no parameters of its own"}
