"""Whole loops with and without the hook: in double precision the same images, in single precision the same step.

Gradient matching and sums of absolute differences amplify rounding from step to step (docs/drop-in.md, "How alike two
runs are"): images of two runs in single precision tell whether the runs are alike only after one step.
"""

import importlib
import sys

import pytest
import torch

from fastdd import compat
from fastdd.compat import deferred

CLASSES, IPC, BATCH, SIZE, STEPS = 3, 2, 12, 16, 4
NET = (3, CLASSES, 16, 2, "relu", "instancenorm", "avgpooling", (SIZE, SIZE))
STRATEGY = "color_crop_cutout_flip_scale_rotate"
LOOPS = """
import torch
from networks import ConvNet
from utils import DiffAugment, ParamDiffAug, match_loss

criterion = torch.nn.CrossEntropyLoss()

def fairdd(net, real, groups, syn, args):
    parameters, loss = list(net.parameters()), torch.tensor(0.0)
    for c in range(len(real)):
        lab_real, lab_syn = (torch.ones((n,), dtype=torch.long) * c for n in (len(real[c]), len(syn) // len(real)))
        output_real, output_syn = net(real[c]), net(syn[c * len(lab_syn) : (c + 1) * len(lab_syn)])
        gw_syn = torch.autograd.grad(criterion(output_syn, lab_syn), parameters, create_graph=True)
        for g in torch.unique(groups[c]):
            of = groups[c] == g
            gw_real = torch.autograd.grad(criterion(output_real[of], lab_real[of]), parameters, retain_graph=True)
            loss += match_loss(gw_syn, list(x.detach().clone() for x in gw_real), args)
    return loss

def cobra(net, real, groups, syn, args):
    ipc, labels = len(syn) // len(real), torch.arange(len(real)).repeat_interleave(len(syn) // len(real))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    for _ in range(3):
        images = DiffAugment(syn.detach().clone(), args.dsa_strategy, param=args.dsa_param)
        optimizer.zero_grad()
        criterion(net(images), labels).backward()
        optimizer.step()
    for p in net.parameters():
        p.requires_grad = False
    loss = torch.tensor(0.0)
    for c in range(len(real)):
        img_real = DiffAugment(real[c], args.dsa_strategy, seed=c + 1, param=args.dsa_param)
        img_syn = DiffAugment(syn[c * ipc : (c + 1) * ipc], args.dsa_strategy, seed=c + 1, param=args.dsa_param)
        means = [torch.mean(net.embed(img_real[groups[c] == g]), dim=0) for g in torch.unique(groups[c])]
        loss = loss + torch.sum((torch.mean(torch.stack(means), dim=0) - torch.mean(net.embed(img_syn), dim=0)).abs())
    return loss

def distill(step_loss, real, groups, syn, args, make, steps, rate):
    syn = syn.clone().requires_grad_()
    optimizer = torch.optim.SGD([syn], lr=rate, momentum=0.5)
    for step in range(steps):
        torch.manual_seed(step)
        loss = step_loss(make(ConvNet), real, groups, syn, args)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return syn.detach()
"""


@pytest.fixture
def runs(hooked, folder):
    """``runs(loop, steps, dtype)``: images of the loop's own run, without and with the hook, and what it called."""
    (folder / "loops.py").write_text(LOOPS)

    def run(loop, steps, rate):
        module = importlib.import_module("loops")
        torch.manual_seed(0)
        real = torch.randn(CLASSES, BATCH, 3, SIZE, SIZE)
        groups = torch.arange(CLASSES * BATCH).view(CLASSES, BATCH) % 3
        args = type("Args", (), {"device": "cpu", "dis_metric": "ours", "dsa": True, "dsa_strategy": STRATEGY})
        args.dsa_param = module.ParamDiffAug()
        syn = torch.randn(CLASSES * IPC, 3, SIZE, SIZE)
        step_loss = getattr(module, loop)
        return module.distill(step_loss, real, groups, syn, args, lambda kind: kind(*NET), steps, rate)

    def both(loop, steps, dtype, defer):
        usual = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        try:
            with compat.use_rng("legacy"):
                importlib.invalidate_caches()
                theirs = run(loop, steps, RATES[loop])
                for name in ("loops", "utils", "networks"):
                    del sys.modules[name]
                deferred.use(defer)
                hook, _ = hooked()
                ours = run(loop, steps, RATES[loop])
        finally:
            deferred.use(False)
            torch.set_default_dtype(usual)
            sys.modules.pop("loops", None)
        return theirs, ours, {row["name"]: row for row in hook.report().rows}

    return both


RATES = {"fairdd": 0.1, "cobra": 1.0}


def apart(theirs, ours):
    return ((theirs - ours).abs().max() / theirs.abs().max()).item()


@pytest.mark.parametrize("defer", [False, True], ids=["called", "deferred"])
@pytest.mark.parametrize("loop", RATES)
def test_in_double_precision_images_are_the_same_after_steps(runs, loop, defer):
    theirs, ours, rows = runs(loop, STEPS, torch.float64, defer)
    assert theirs.dtype == torch.float64
    assert apart(theirs, ours) < 1e-9
    used = {"fairdd": "match_loss", "cobra": "DiffAugment"}[loop]
    assert rows["ConvNet"]["original"] == rows[used]["original"] == 0
    assert rows[used]["calls"] > STEPS
    assert rows[used]["agreed"] == rows[used]["checked"] > 0


def test_in_single_precision_one_step_of_gradient_matching_is_the_same(runs):
    theirs, ours, _ = runs("fairdd", 1, torch.float32, True)
    assert apart(theirs, ours) < 1e-4
