"""The truth of deferral: random programs over the vocabulary, with ways out of it, do what they do without it."""

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastdd.compat import deferred
from fastdd.compat.dc import ConvNet, match_loss

RECORDED = type("ConvNet", (ConvNet,), {"__module__": "networks", **deferred.methods(ConvNet)})
ARGS = type("Args", (), {"dis_metric": "ours", "device": "cpu"})


@pytest.fixture(autouse=True, scope="module")
def _on_and_off():
    yield
    deferred.use(False)


class Program:
    """One program, drawn by ``seed``: a pool of tensors, and steps that take some and add others."""

    def __init__(self, seed: int, steps: int):
        self.draw = random.Random(seed)
        torch.manual_seed(seed)
        self.net = RECORDED(1, 3, 4, 2, "relu", "instancenorm", "avgpooling", (28, 28)).double()
        self.frozen = self.draw.random() < 0.4
        self.net.requires_grad_(not self.frozen)
        self.leaf = torch.randn(6, 1, 28, 28, dtype=torch.float64, requires_grad=True)
        self.real = torch.randn(8, 1, 28, 28, dtype=torch.float64)
        self.steps = steps
        # What the script holds: embeddings and logits [n, d], vectors and numbers.
        self.rows: list[torch.Tensor] = []
        self.scalars: list[torch.Tensor] = [torch.zeros((), dtype=torch.float64)]
        self.seen: list[float] = []
        # Something that a held graph saved was changed: torch's own backward would raise, or mix old and new values.
        self.stale = False

    def run(self) -> list[float]:
        """Values that the program has looked at, at its end those of all it holds, and gradients."""
        kinds = [getattr(self, name) for name in dir(self) if name.startswith("_do_")]
        for _ in range(self.steps):
            self.draw.choice(kinds)()
        for tensor in (*self.rows, *self.scalars):
            self._look(tensor)
        total = sum(self.scalars) + sum(r.pow(2).mean() for r in self.rows)
        if total.requires_grad and not self.stale:
            total.backward()
        for tensor in (self.leaf, *self.net.parameters()):
            grad = torch.zeros(1) if tensor.grad is None else tensor.grad
            self.seen += [*grad.flatten()[:3].tolist(), grad.norm().item()]
        return self.seen

    def _look(self, tensor: torch.Tensor) -> None:
        self.seen += [tensor.sum().item(), float(tensor.requires_grad), *tensor.shape, float(tensor.dtype.itemsize)]

    def _some_rows(self) -> torch.Tensor:
        if not self.rows:
            self._do_call()
        return self.draw.choice(self.rows)

    def _images(self) -> torch.Tensor:
        if self.draw.random() < 0.5:
            first = self.draw.randrange(4)
            return self.leaf[first : first + 2]
        return self.real[: self.draw.randrange(2, 8)]

    def _do_call(self) -> None:
        embed = self.draw.random() < 0.5
        out = (self.net.embed if embed else self.net)(self._images())
        if self.draw.random() < 0.3:
            out = out.detach()
        self.rows.append(out)

    def _do_distance(self) -> None:
        a, b = self._some_rows(), self._some_rows()
        if a.shape[1] == b.shape[1]:
            self.scalars.append(torch.sum((torch.mean(a, dim=0) - torch.mean(b, dim=0)) ** 2))

    def _do_group(self) -> None:
        rows = self._some_rows()
        mask = torch.arange(len(rows)) % 2 == 0
        self.rows.append(rows[mask])

    def _do_slice(self) -> None:
        self.rows.append(self._some_rows()[:2])

    def _do_add_in_place(self) -> None:
        total = torch.zeros((), dtype=torch.float64)
        other = total if self.draw.random() < 0.2 else None
        for _ in range(2):
            total += self.draw.choice(self.scalars)
        self.scalars.append(total)
        if other is not None:
            self.scalars.append(other)

    def _do_add_to_held(self) -> None:
        k = self.draw.randrange(len(self.scalars))
        if self.scalars[k].grad_fn is None and not self.scalars[k].requires_grad:
            held = self.scalars[k]
            held += 0.5 * self.scalars[self.draw.randrange(len(self.scalars))].detach()
            self.seen.append(float(held is self.scalars[k]))

    def _do_scale(self) -> None:
        self.scalars.append(self.draw.choice(self.scalars) * self.draw.choice([0.5, 2.0, -1.0]))

    def _do_stack(self) -> None:
        self.scalars.append(torch.stack([self.draw.choice(self.scalars) for _ in range(2)]).abs().mean())

    def _do_look(self) -> None:
        self.seen.append(self.draw.choice(self.scalars).item())

    def _do_escape(self) -> None:
        rows = self._some_rows()
        way = self.draw.randrange(5)
        if way == 0:
            self.rows.append(torch.tanh(rows))
        elif way == 1:
            self.rows.append(rows.view(-1).view(rows.shape))
        elif way == 2:
            self.seen.append(float(rows.detach().numpy().max()))
        elif way == 3:
            self.seen.append(float(rows.max() > 0))
        else:
            self.seen.append(float(torch.allclose(rows, rows + 1)))

    def _do_write_into_rows(self) -> None:
        rows = self._some_rows()
        if not rows.requires_grad:
            alias = rows.detach()
            alias.mul_(1.25)

    def _change(self) -> None:
        self.stale |= any(tensor.requires_grad for tensor in (*self.rows, *self.scalars))

    def _do_change_weights(self) -> None:
        self._change()
        with torch.no_grad():
            for p in self.net.parameters():
                if self.draw.random() < 0.5:
                    p.data.mul_(1.01)

    def _do_change_images(self) -> None:
        self._change()
        self.leaf.data.add_(0.01) if self.draw.random() < 0.5 else self.real.add_(0.01)

    def _do_match(self) -> None:
        if self.frozen:
            return
        parameters = [*self.net.parameters()]
        labels = torch.arange(8) % 3
        images = self.leaf[:2]
        loss = torch.nn.functional.cross_entropy(self.net(images), labels[:2])
        synthetic = torch.autograd.grad(loss, parameters, create_graph=True)
        outputs, groups = self.net(self.real), torch.arange(8) % self.draw.randrange(1, 4)
        for group in torch.unique(groups):
            loss = torch.nn.CrossEntropyLoss()(outputs[groups == group], labels[groups == group])
            real = torch.autograd.grad(loss, parameters, retain_graph=True)
            real = [g.detach().clone() for g in real]
            self.scalars.append(match_loss(synthetic, real, ARGS))
            if self.draw.random() < 0.2:
                self.seen.append(real[0].norm().item())

    def _do_no_grad(self) -> None:
        with torch.no_grad():
            self.rows.append(self.net.embed(self._images()))


def outcomes(seed: int, steps: int) -> list[list[float]]:
    found = []
    for on in (False, True):
        deferred.use(on)
        found.append(Program(seed, steps).run())
    return found


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(0, 10**6), st.integers(3, 14))
def test_random_programs(seed, steps):
    eager, recorded = outcomes(seed, steps)
    assert recorded == pytest.approx(eager, rel=1e-5, abs=1e-7)


@pytest.mark.full
def test_many_random_programs():
    for seed in range(400):
        eager, recorded = outcomes(seed, 3 + seed % 20)
        assert recorded == pytest.approx(eager, rel=1e-5, abs=1e-7), seed
