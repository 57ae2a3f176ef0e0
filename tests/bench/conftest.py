"""Calls without a warm-up; a stand-in for a checkout of published code: its files and names, over our own baseline."""

import pytest

from fastdd.bench.framework import timing

UTILS = """
import os
from torchvision import datasets, transforms
from torchvision.datasets.utils import download_url
from no_such_package.deep import thing
from networks import ConvNet
from data_handler.celeba import CelebA
from fastdd.bench.baselines import published
from fastdd.bench.oracles import dc

class Faces(datasets.VisionDataset):
    pass

class ParamDiffAug:
    pass

def DiffAugment(x, strategy='', seed=-1, param=None):
    row, operation = published.draw(strategy, seed, tuple(x.shape[2:]), x.device)
    return published.augment(x, row, operation)

def match_loss(gw_syn, gw_real, args):
    return dc.match(gw_syn, gw_real, args.dis_metric).to(args.device)
"""
NETWORKS = """
from fastdd.bench.baselines import plain

class ConvNet(plain.ConvNet):
    def __init__(self, channel, num_classes, net_width, net_depth, net_act, net_norm, net_pooling, im_size):
        assert (net_norm, net_pooling) == ('instancenorm', 'avgpooling')
        super().__init__(channel, num_classes, im_size, net_width, net_depth, net_act)
"""


@pytest.fixture
def once(monkeypatch):
    """What is timed is called as often as that was asked for, and not to warm up before."""
    monkeypatch.setattr(timing, "WARM_UP", 0)


@pytest.fixture
def checkout(tmp_path):
    folder = tmp_path / "DatasetCondensation"
    (folder / "data_handler").mkdir(parents=True)
    (folder / "utils.py").write_text(UTILS)
    (folder / "networks.py").write_text(NETWORKS)
    (folder / "data_handler" / "celeba.py").write_text("import cv2_that_is_missing\nclass CelebA: pass\n")
    return folder
