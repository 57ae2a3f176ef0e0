"""What code of the trajectory matching family (MTT, TESLA and forks) has in its ``utils``, ``networks`` and
``reparam_module``.
"""

from fastdd.compat._augment import (
    AUGMENT_FNS_MTT as AUGMENT_FNS,
)
from fastdd.compat._augment import (
    DiffAugment_mtt as DiffAugment,
)
from fastdd.compat._augment import (
    ParamDiffAug,
    augment,
    rand_brightness,
    rand_contrast,
    rand_crop,
    rand_cutout,
    rand_flip,
    rand_saturation,
    set_seed_DiffAug,
)
from fastdd.compat._augment import (
    rand_rotate_mtt as rand_rotate,
)
from fastdd.compat._augment import (
    rand_scale_mtt as rand_scale,
)
from fastdd.compat._datasets import (
    IMAGENET_NUMBERS,
    TensorDataset,
)
from fastdd.compat._datasets import (
    get_dataset_mtt as get_dataset,
)
from fastdd.compat._networks import (
    MLP,
    VGG,
    VGG11,
    VGG11BN,
    VGG13,
    VGG16,
    VGG19,
    AlexNet,
    BasicBlock,
    BasicBlock_AP,
    Bottleneck,
    Bottleneck_AP,
    ConvNet,
    ConvNetGAP,
    LeNet,
    ResNet,
    ResNet6ImageNet,
    ResNet18,
    ResNet18_AP,
    ResNet18BN,
    ResNet18BN_AP,
    ResNet18ImageNet,
    ResNet34,
    ResNet50,
    ResNet101,
    ResNet152,
    ResNet_AP,
    ResNetImageNet,
)
from fastdd.compat._networks import (
    get_network_mtt as get_network,
)
from fastdd.compat._reparam import (
    ReparamModule,
)
from fastdd.compat._training import (
    epoch_mtt as epoch,
)
from fastdd.compat._training import (
    evaluate_synset_mtt as evaluate_synset,
)
from fastdd.compat._training import (
    get_daparam,
    get_default_convnet_setting,
    get_time,
)
from fastdd.compat._training import (
    get_eval_pool_mtt as get_eval_pool,
)

__all__ = [
    "AUGMENT_FNS",
    "IMAGENET_NUMBERS",
    "MLP",
    "VGG",
    "VGG11",
    "VGG11BN",
    "VGG13",
    "VGG16",
    "VGG19",
    "AlexNet",
    "BasicBlock",
    "BasicBlock_AP",
    "Bottleneck",
    "Bottleneck_AP",
    "Config",
    "ConvNet",
    "ConvNetGAP",
    "DiffAugment",
    "LeNet",
    "ParamDiffAug",
    "ReparamModule",
    "ResNet",
    "ResNet6ImageNet",
    "ResNet18",
    "ResNet18BN",
    "ResNet18BN_AP",
    "ResNet18ImageNet",
    "ResNet18_AP",
    "ResNet34",
    "ResNet50",
    "ResNet101",
    "ResNet152",
    "ResNetImageNet",
    "ResNet_AP",
    "TensorDataset",
    "augment",
    "config",
    "epoch",
    "evaluate_synset",
    "get_daparam",
    "get_dataset",
    "get_default_convnet_setting",
    "get_eval_pool",
    "get_network",
    "get_time",
    "rand_brightness",
    "rand_contrast",
    "rand_crop",
    "rand_cutout",
    "rand_flip",
    "rand_rotate",
    "rand_saturation",
    "rand_scale",
    "set_seed_DiffAug",
]


class Config:
    """ImageNet's subsets: the numbers of their classes, as ``config.imagenette`` or ``config.dict["imagenette"]``."""

    def __init__(self):
        self.dict = {name: [*numbers] for name, numbers in IMAGENET_NUMBERS.items()}
        vars(self).update(self.dict)


config = Config()
