"""The text of modules in the conventions of distillation code, for tests to change and to import."""

import sys
from pathlib import Path

# Code in the conventions of the field. Not the published text, so first calls are compared.
UTILS = """
import numpy as np
import torch
import torch.nn.functional as F
from fastdd.compat import dc
from networks import ConvNet

ParamDiffAug = dc.ParamDiffAug

def DiffAugment(x, strategy='', seed = -1, param = None):
    return dc.DiffAugment(x, strategy, seed, param, rng="legacy")

def augment(images, dc_aug_param, device):
    return images

def distance_wb(gwr, gws):
    if gwr.dim() == 1:
        return torch.tensor(0.0)
    gwr, gws = gwr.flatten(1), gws.flatten(1)
    return (1 - (gwr * gws).sum(-1) / (gwr.norm(dim=-1) * gws.norm(dim=-1) + 0.000001)).sum()

def match_loss(gw_syn, gw_real, args):
    return sum(distance_wb(real, syn) for syn, real in zip(gw_syn, gw_real))

def epoch(mode, dataloader, net, optimizer, criterion, args, aug):
    total, right, seen = 0.0, 0, 0
    net.train(mode == 'train')
    for img, lab in dataloader:
        if aug:
            img = DiffAugment(img, args.dsa_strategy, param=args.dsa_param) if args.dsa else augment(img, None, 'cpu')
        output = net(img)
        loss = criterion(output, lab)
        total += loss.item() * len(lab)
        right += (output.argmax(1) == lab).sum().item()
        seen += len(lab)
        if mode == 'train':
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return total / seen, right / seen

def get_loops(ipc):
    return 1, 1
"""
NETWORKS = """
import torch.nn as nn

class ConvNet(nn.Module):
    def __init__(self, channel, num_classes, net_width, net_depth, net_act, net_norm, net_pooling, im_size=(32, 32)):
        super(ConvNet, self).__init__()
        self.features = self._make_layers(channel, net_width, net_depth, net_norm, net_act, net_pooling, im_size)
        self.classifier = nn.Linear(net_width * (im_size[0] >> net_depth) ** 2, num_classes)

    def forward(self, x):
        return self.classifier(self.embed(x))

    def embed(self, x):
        return self.features(x).flatten(1)

    def _get_activation(self, net_act):
        return nn.ReLU(inplace=True)

    def _get_pooling(self, net_pooling):
        return nn.AvgPool2d(2)

    def _get_normlayer(self, net_norm, shape_feat):
        return nn.GroupNorm(shape_feat, shape_feat)

    def _make_layers(self, channel, net_width, net_depth, net_norm, net_act, net_pooling, im_size):
        layers = []
        for depth in range(net_depth):
            layers += [nn.Conv2d(net_width if depth else channel, net_width, 3, padding=1)]
            layers += [self._get_normlayer(net_norm, net_width), self._get_activation(net_act)]
            layers += [self._get_pooling(net_pooling)]
        return nn.Sequential(*layers)
"""
IDC_NETWORK = """
import torch.nn as nn

class ConvNet(nn.Module):
    def __init__(self, num_classes, net_norm='instance', net_depth=3, net_width=128, channel=3, net_act='relu',
                 net_pooling='avgpooling', im_size=(32, 32)):
        super().__init__()
        self.depth = net_depth
        self.layers = self._make_layers(channel, net_width, net_depth, net_norm, net_pooling, im_size)
        self.classifier = nn.Linear(net_width * (im_size[0] >> net_depth) ** 2, num_classes)

    def forward(self, x, return_features=False):
        x = self.get_feature(x, self.depth - 1)[0].flatten(1)
        return (self.classifier(x), x) if return_features else self.classifier(x)

    def get_feature(self, x, idx_from, idx_to=-1, return_prob=False, return_logit=False):
        features = []
        for depth in range(self.depth):
            for kind in ("conv", "norm", "act", "pool"):
                x = self.layers[kind][depth](x)
            features.append(x)
        return features[idx_from : max(idx_from, idx_to) + 1]

    def _get_normlayer(self, net_norm, shape_feat):
        return nn.GroupNorm(shape_feat, shape_feat)

    def _make_layers(self, channel, net_width, net_depth, net_norm, net_pooling, im_size):
        act, pool = nn.ReLU(), nn.AvgPool2d(2)
        kinds = {"conv": [], "norm": [], "act": [], "pool": []}
        for depth in range(net_depth):
            kinds["conv"].append(nn.Conv2d(net_width if depth else channel, net_width, 3, padding=1))
            kinds["norm"].append(self._get_normlayer(net_norm, net_width))
            kinds["act"].append(act)
            kinds["pool"].append(pool)
        return nn.ModuleDict({kind: nn.ModuleList(layers) for kind, layers in kinds.items()})
"""


def path_of_a_script() -> list[str]:
    """``sys.path`` without folders of tests: modules there would pass for the script's, and each be read."""
    tests = Path(__file__).parent.parent
    return [entry for entry in sys.path if not Path(entry).is_relative_to(tests)]
