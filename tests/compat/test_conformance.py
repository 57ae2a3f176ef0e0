"""Every name that code of a family imports is there, and can be called as it calls it."""

import ast
import importlib
import inspect

import pytest

# As published; a class stands for its constructor. IDC's device='cuda' is None here: a GPU where there is one.
_SHARED = """
get_default_convnet_setting()
get_time()
augment(images, dc_aug_param, device)
get_daparam(dataset, model, model_eval, ipc)
get_eval_pool(eval_mode, model, model_eval)
TensorDataset(images, labels)
ParamDiffAug()
set_seed_DiffAug(param)
DiffAugment(x, strategy='', seed=-1, param=None)
rand_scale(x, param)
rand_rotate(x, param)
rand_flip(x, param)
rand_brightness(x, param)
rand_saturation(x, param)
rand_contrast(x, param)
rand_crop(x, param)
rand_cutout(x, param)
MLP(channel, num_classes)
ConvNet(channel, num_classes, net_width, net_depth, net_act, net_norm, net_pooling, im_size=(32, 32))
LeNet(channel, num_classes)
AlexNet(channel, num_classes)
VGG(vgg_name, channel, num_classes, norm='instancenorm')
VGG11(channel, num_classes)
VGG11BN(channel, num_classes)
VGG13(channel, num_classes)
VGG16(channel, num_classes)
VGG19(channel, num_classes)
BasicBlock(in_planes, planes, stride=1, norm='instancenorm')
Bottleneck(in_planes, planes, stride=1, norm='instancenorm')
BasicBlock_AP(in_planes, planes, stride=1, norm='instancenorm')
Bottleneck_AP(in_planes, planes, stride=1, norm='instancenorm')
ResNet(block, num_blocks, channel=3, num_classes=10, norm='instancenorm')
ResNet_AP(block, num_blocks, channel=3, num_classes=10, norm='instancenorm')
ResNet18(channel, num_classes)
ResNet18BN(channel, num_classes)
ResNet18_AP(channel, num_classes)
ResNet18BN_AP(channel, num_classes)
ResNet34(channel, num_classes)
ResNet50(channel, num_classes)
ResNet101(channel, num_classes)
ResNet152(channel, num_classes)
"""
_DC = """
get_dataset(dataset, data_path)
get_network(model, channel, num_classes, im_size=(32, 32))
get_loops(ipc)
distance_wb(gwr, gws)
match_loss(gw_syn, gw_real, args)
epoch(mode, dataloader, net, optimizer, criterion, args, aug)
evaluate_synset(it_eval, net, images_train, labels_train, testloader, args)
AlexNetBN(channel, num_classes)
Swish()
"""
PUBLISHED = {
    "dc": _SHARED + _DC,
    "fairdd": _SHARED + _DC + "epoch_Fairness_Metric(mode, dataloader, net, criterion, args, aug)",
    "mtt": _SHARED
    + """
get_dataset(dataset, data_path, batch_size=1, subset='imagenette', args=None)
get_network(model, channel, num_classes, im_size=(32, 32), dist=True)
epoch(mode, dataloader, net, optimizer, criterion, args, aug, texture=False)
evaluate_synset(it_eval, net, images_train, labels_train, testloader, args, return_loss=False, texture=False)
ReparamModule(module)
ConvNetGAP(channel, num_classes, net_width, net_depth, net_act, net_norm, net_pooling, im_size=(32, 32))
ResNetImageNet(block, num_blocks, channel=3, num_classes=10, norm='instancenorm')
ResNet18ImageNet(channel, num_classes)
ResNet6ImageNet(channel, num_classes)
Config()
""",
    "idc": """
DiffAug(strategy='color_crop_cutout_flip_scale_rotate', batch=False, ratio_cutout=0.5, single=False)
Synthesizer(args, nclass, nchannel, hs, ws, device=None)
TensorDataset(images, labels, transform=None)
ClassMemDataLoader(dataset, batch_size, drop_last=False, device=None)
dist(x, y, method='mse')
add_loss(loss_sum, loss)
matchloss(args, img_real, img_syn, lab_real, lab_syn, model)
remove_aug(augtype, remove_aug)
diffaug(args, device=None)
get_time()
ConvNet(num_classes, net_norm='instance', net_depth=3, net_width=128, channel=3, net_act='relu', \
net_pooling='avgpooling', im_size=(32, 32))
ResNet(dataset, depth, num_classes, norm_type='batch', size=-1, nch=3)
ResNetAP(dataset, depth, num_classes, width=1.0, norm_type='batch', size=-1, nch=3)
define_model(args, nclass, logger=None, size=None)
""",
}
# Names that are no functions, and methods that scripts call.
OTHERS = {
    "dc": ["AUGMENT_FNS", "ConvNet.embed", "ConvNet.forward", "MLP.forward", "ResNet18"],
    "fairdd": ["AUGMENT_FNS", "ConvNet.embed"],
    "mtt": ["AUGMENT_FNS", "config", "ReparamModule.forward"],
    "idc": [
        "MEANS",
        "STDS",
        "ClassDataLoader",
        "ClassDataLoader.class_sample",
        "ClassMemDataLoader.class_sample",
        "ConvNet.get_feature",
        "Synthesizer.decode",
        "Synthesizer.init",
        "Synthesizer.loader",
        "Synthesizer.parameters",
        "Synthesizer.sample",
        "Synthesizer.subsample",
        "Synthesizer.test",
    ],
}
EACH = [(family, line) for family, text in PUBLISHED.items() for line in text.strip().splitlines() if line]


def published(line: str) -> tuple[str, list[tuple[str, object]]]:
    """Name, and (parameter, default) in order, of a line of the table."""
    node = ast.parse(f"def {line}: pass").body[0]
    names = [argument.arg for argument in node.args.args]
    defaults = [ast.literal_eval(default) for default in node.args.defaults]
    padded = [inspect.Parameter.empty] * (len(names) - len(defaults)) + defaults
    return node.name, list(zip(names, padded, strict=True))


def accepted(function) -> list[tuple[str, object]]:
    """(parameter, default) of what can be given by position; the rest must be optional."""
    parameters = inspect.signature(function).parameters.values()
    own = [p for p in parameters if p.kind is p.KEYWORD_ONLY]
    assert all(p.default is not p.empty for p in own), f"{function}: {own}"
    return [(p.name, p.default) for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]


@pytest.mark.parametrize(("family", "line"), EACH, ids=[f"{family}-{line.partition('(')[0]}" for family, line in EACH])
def test_signature_is_the_published_one(family, line):
    name, parameters = published(line)
    ours = getattr(importlib.import_module(f"fastdd.compat.{family}"), name)
    assert accepted(ours) == parameters


@pytest.mark.parametrize("family", OTHERS)
def test_other_names_are_there(family):
    module = importlib.import_module(f"fastdd.compat.{family}")
    for path in OTHERS[family]:
        value = module
        for part in path.split("."):
            value = getattr(value, part)


@pytest.mark.parametrize("family", PUBLISHED)
def test_all_of_a_family_is_listed(family):
    module = importlib.import_module(f"fastdd.compat.{family}")
    listed = {published(line)[0] for line in PUBLISHED[family].strip().splitlines() if line}
    assert listed <= set(module.__all__)
    assert all(hasattr(module, name) for name in module.__all__)
    assert len(set(module.__all__)) == len(module.__all__)


@pytest.mark.parametrize("family", ["dc", "fairdd", "mtt"])
def test_a_checkout_defines_nothing_that_is_missing(family, upstream):
    ours = importlib.import_module(f"fastdd.compat.{family}")
    _, modules = upstream(family)
    for module in modules.values():
        for name, value in vars(module).items():
            if name.startswith("_") or getattr(value, "__module__", None) != module.__name__:
                continue
            assert hasattr(ours, name), f"{module.__name__}.{name}"
            if inspect.isfunction(value) or (inspect.isclass(value) and "__init__" in vars(value)):
                assert accepted(getattr(ours, name)) == accepted(value), name
