"""ReparamModule against the published one, and against torch.func."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from fastdd.compat.mtt import ConvNet, ReparamModule, get_network
from fastdd.core import rng


def draws(number, *shape):
    return rng.normal(rng.key(number, "reparam"), torch.Size(shape).numel()).view(shape).double()


def network(norm="instancenorm"):
    torch.manual_seed(1)
    return ConvNet(3, 4, 8, 2, "relu", norm, "avgpooling", (16, 16)).double()


def unrolled(student, theta, images, step, labels):
    """The gradients of matching a trajectory of three steps, in images and step size."""
    images, step = images.clone().requires_grad_(), step.clone().requires_grad_()
    start = theta.detach().requires_grad_()
    now = start
    for rows in torch.arange(6).split(2):
        loss = F.cross_entropy(student(images[rows], flat_param=now), labels[rows])
        (g,) = torch.autograd.grad(loss, now, create_graph=True)
        now = now - step * g
    loss = (now - 1.01 * theta.detach()).square().sum()
    return [loss.detach(), *torch.autograd.grad(loss, [images, step])]


def functional(net):
    names = [(name, p.shape, p.numel()) for name, p in net.named_parameters()]

    def call(images, flat_param):
        parts = flat_param.split([count for *_, count in names])
        own = {name: part.view(shape) for (name, shape, _), part in zip(names, parts, strict=True)}
        return functional_call(net, own, (images,))

    return call


def flat(net):
    return torch.cat([p.detach().flatten() for p in net.parameters()])


def test_unrolled_gradients_are_those_of_functional_calls():
    labels, images, step = torch.tensor([0, 1, 2, 3, 0, 1]), draws(1, 6, 3, 16, 16), torch.tensor(0.1).double()
    theta = flat(network())
    ours = unrolled(ReparamModule(network()), theta, images, step, labels)
    truth = unrolled(functional(network()), theta, images, step, labels)
    for found, expected in zip(ours, truth, strict=True):
        assert (found - expected).abs().max() <= 1e-13 * max(1.0, expected.abs().max())


@pytest.mark.parametrize("norm", ["instancenorm", "batchnorm"])
def test_equals_the_published_module(upstream, norm):
    """The published module around the published network, ours around ours, and the published one around ours."""
    _, modules = upstream("mtt")
    theirs, published = modules["reparam_module"].ReparamModule, modules["networks"].ConvNet
    torch.manual_seed(1)
    net = published(3, 4, 8, 2, "relu", norm, "avgpooling", (16, 16)).double()
    students = theirs(net), ReparamModule(network(norm)), theirs(network(norm))
    theta, labels = students[0].flat_param.detach().clone(), torch.tensor([0, 1, 2, 3, 0, 1])
    images, step = draws(2, 6, 3, 16, 16), torch.tensor(0.1).double()
    expected = unrolled(students[0], theta, images, step, labels)
    for student in students[1:]:
        assert student.param_numel == students[0].param_numel
        assert torch.equal(student.flat_param, students[0].flat_param)
        assert student._param_infos == students[0]._param_infos
        assert list(student.state_dict()) == list(students[0].state_dict())
        for found, truth in zip(unrolled(student, theta, images, step, labels), expected, strict=True):
            assert (found - truth).abs().max() <= 1e-11 * max(1.0, truth.abs().max())


def test_buffers_replace_the_modules_own():
    net = network("batchnorm").eval()
    values = [b.detach().clone() for b in net.buffers()]
    expected_own, images = net(draws(3, 2, 3, 16, 16)), draws(3, 2, 3, 16, 16)
    others = [b + 1 if b.is_floating_point() else b.clone() for b in values]
    for own, other in zip(net.buffers(), others, strict=True):
        own.copy_(other)
    expected_other = net(images)
    for own, value in zip(net.buffers(), values, strict=True):
        own.copy_(value)
    student = ReparamModule(net)
    theta = student.flat_param.detach().clone()
    assert torch.equal(student(images, flat_param=theta, buffers=others), expected_other)
    assert torch.equal(student(images, flat_param=theta), expected_own)
    student.train()(images, flat_param=theta, buffers=others)
    assert not torch.equal(others[0], values[0] + 1)  # running statistics are the given buffers'
    assert all(map(torch.equal, net.buffers(), values))


def test_the_modules_parameters_are_one():
    student = ReparamModule(network())
    assert [name for name, _ in student.named_parameters()] == ["flat_param"]
    assert student.flat_param.numel() == student.param_numel == flat(network()).numel()
    images = draws(4, 2, 3, 16, 16)
    assert torch.equal(student(images), network()(images))
    assert torch.equal(student(images, flat_param=student.flat_param[None]), network()(images))
    student(images).sum().backward()
    assert student.flat_param.grad.abs().max() > 0
    assert torch.equal(student.module.classifier.weight, network().classifier.weight)


def test_a_failed_call_leaves_the_modules_own_parameters():
    student = ReparamModule(network())
    with pytest.raises(RuntimeError):
        student(draws(5, 2, 5, 16, 16), flat_param=torch.zeros(student.param_numel).double())
    assert torch.equal(student.module.classifier.weight, network().classifier.weight)


def test_shared_parameters_are_one_part():
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    net[1].weight = net[0].weight
    student = ReparamModule(net)
    assert student.param_numel == 9 + 3 + 3
    theta = draws(6, 15).float().requires_grad_()
    (found,) = torch.autograd.grad(student(torch.eye(3), flat_param=theta).sum(), theta)
    weight, b0, b1 = theta[:9].view(3, 3), theta[9:12], theta[12:]
    (expected,) = torch.autograd.grad(F.linear(F.linear(torch.eye(3), weight, b0), weight, b1).sum(), theta)
    torch.testing.assert_close(found, expected)


def test_parameters_of_several_dtypes_are_refused():
    with pytest.raises(ValueError, match="several dtypes"):
        ReparamModule(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).double()))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_traced_calls_are_the_same():
    images, student = draws(7, 3, 3, 16, 16), ReparamModule(network())
    theta = (student.flat_param.detach() * 1.1).requires_grad_()
    expected = student(images, flat_param=theta)
    assert student.trace(images) is student
    found = student(images, flat_param=theta)
    assert (found - expected).abs().max() <= 1e-12
    both = (torch.autograd.grad(value.square().sum(), theta)[0] for value in (found, expected))
    torch.testing.assert_close(*both)
    with pytest.raises(RuntimeError, match="already traced"):
        student.trace(images)


def test_the_published_loop_of_the_student_runs():
    """Network without placement, wrapped, started from a flat vector, as distill.py does."""
    student = ReparamModule(get_network("ConvNetW32", 3, 10, (32, 32), dist=False)).train()
    theta = [torch.cat([p.data.reshape(-1) for p in get_network("ConvNetW32", 3, 10).parameters()])]
    theta[0].requires_grad_(True)
    images = draws(8, 4, 3, 32, 32).float().requires_grad_()
    for _ in range(2):
        loss = F.cross_entropy(student(images, flat_param=theta[-1]), torch.arange(4))
        (g,) = torch.autograd.grad(loss, theta[-1], create_graph=True)
        theta.append(theta[-1] - 0.01 * g)
    (theta[-1] - theta[0].detach()).square().sum().backward()
    assert torch.isfinite(images.grad).all()
    assert images.grad.abs().max() > 0
