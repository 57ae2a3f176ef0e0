"""The network that IDC's arguments describe."""

from argparse import Namespace
from collections.abc import Callable

from torch import nn

from fastdd.compat.idc.networks.convnet import ConvNet
from fastdd.compat.idc.networks.densenet import densenet_cifar
from fastdd.compat.idc.networks.resnet import ResNet, ResNetAP
from fastdd.models.network import chosen

__all__ = ["define_model"]


def define_model(
    args: Namespace, nclass: int, logger: Callable[[str], None] | None = None, size: int | None = None
) -> nn.Module:
    """The network that ``args`` (net_type, depth, width, norm_type, nch, size, dataset) describe.

    Raises:
        ValueError: a net_type other than convnet, resnet, resnet_ap and densenet.
    """
    size = args.size if size is None else size
    common = {"norm_type": args.norm_type, "size": size, "nch": args.nch}
    make: dict[str, Callable[[], nn.Module]] = {
        "resnet": lambda: ResNet(args.dataset, args.depth, nclass, **common),
        "resnet_ap": lambda: ResNetAP(args.dataset, args.depth, nclass, width=args.width, **common),
        "densenet": lambda: densenet_cifar(nclass),
        "convnet": lambda: ConvNet(
            nclass,
            net_norm=args.norm_type,
            net_depth=args.depth,
            net_width=int(128 * args.width),
            channel=args.nch,
            im_size=(args.size, args.size),
        ),
    }
    model = make[chosen("net_type", args.net_type, make)]()
    if logger is not None:
        logger(f"=> creating model {args.net_type}-{args.depth}, norm: {args.norm_type}")
    return model
