"""Means and standard deviations of pixels in [0, 1], a value a channel, as the scripts have them."""

CIFAR10 = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
