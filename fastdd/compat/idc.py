"""What code of the IDC family (IDC, DREAM and forks) has in its ``misc.augment``, ``condense``, ``data``, ``models``
and ``train``. What needs torchvision's transforms takes any callable in their place.
"""

from fastdd.compat._diffaug import (
    DiffAug,
)
from fastdd.compat._idc import (
    MEANS,
    STDS,
    ClassBatchSampler,
    ClassDataLoader,
    ClassMemDataLoader,
    Compose,
    Logger,
    MultiEpochsDataLoader,
    Normalize,
    Synthesizer,
    TensorDataset,
    TimeStamp,
    add_loss,
    decode,
    decode_fn,
    decode_zoom,
    decode_zoom_multi,
    diffaug,
    dist,
    matchloss,
    remove_aug,
)
from fastdd.compat._idc_networks import (
    ConvNet,
    DenseNet,
    ResNet,
    ResNetAP,
    define_model,
    densenet_cifar,
)
from fastdd.compat._idc_training import (
    load_ckpt,
    rand_bbox,
    random_indices,
    test_data,
    train,
    train_epoch,
    validate,
)
from fastdd.compat._training import (
    get_time,
)

__all__ = [
    "MEANS",
    "STDS",
    "ClassBatchSampler",
    "ClassDataLoader",
    "ClassMemDataLoader",
    "Compose",
    "ConvNet",
    "DenseNet",
    "DiffAug",
    "Logger",
    "MultiEpochsDataLoader",
    "Normalize",
    "ResNet",
    "ResNetAP",
    "Synthesizer",
    "TensorDataset",
    "TimeStamp",
    "add_loss",
    "decode",
    "decode_fn",
    "decode_zoom",
    "decode_zoom_multi",
    "define_model",
    "densenet_cifar",
    "diffaug",
    "dist",
    "get_time",
    "load_ckpt",
    "matchloss",
    "rand_bbox",
    "random_indices",
    "remove_aug",
    "test_data",
    "train",
    "train_epoch",
    "validate",
]
