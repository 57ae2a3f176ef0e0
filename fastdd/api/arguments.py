"""Keyword arguments of the verbs, for editors and type checkers, written by fastdd.api.generate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypedDict

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from fastdd.api.samples import Groups, Weights
    from fastdd.experts import Experts

MethodName = Literal["dm", "dc", "dsa", "mtt", "datadam", "idc", "dream", "ncfm", "rded", "sre2l"]
DebiasName = Literal[
    "none",
    "fairdd",
    "kde",
    "fairdd-iw",
    "fairdd-ldam",
    "fairdd-groupdro",
    "barycenter",
    "group-weighted",
    "biased-dd",
    "fairdd-batch",
]
RecipeName = Literal["erm", "lw", "resample", "groupdro", "lff", "dfa", "selecmix", "selecmix-lff", "dfr"]
ExpertDebiasName = Literal["none", "fairdd", "kde", "barycenter", "group-weighted"]


class DistillSettings(TypedDict, total=False):
    """Settings of all methods (:mod:`fastdd.methods`)."""

    iterations: int | None
    """Of dm, dc, dsa, mtt, datadam, idc, dream, ncfm, sre2l: length of the run: so many random networks to match
    on, or with experts so many students of theirs; by default the preset's; or iterations of every batch of images;
    by default 4000."""
    arch: str | None
    """network that the images are matched on, such as ConvNet; by default the preset's."""
    width: int | None
    """filters of each convolution; by default the network's own."""
    depth: int | None
    """blocks of layers; by default the network's own."""
    lr_img: float | None
    """Of dm, dc, dsa, mtt, datadam, idc, dream, ncfm, sre2l: learning rate of the synthetic images; by default the
    preset's; or learning rate of the synthetic images at IPC 10 and of base_size; it is multiplied by IPC / 10 and
    by their area over that of base_size; by default the preset's; or learning rate of the synthetic images, at
    first; by default 0.25."""
    momentum: float | None
    """Of dm, dc, dsa, mtt, datadam, idc, dream, ncfm: momentum of the synthetic images' updates; by default the
    preset's; or momentum of the synthetic images' updates; of optimizer adamw the first beta; by default the
    preset's."""
    init: str | None
    """Of dm, dc, dsa, mtt, datadam, idc, dream, ncfm: what the synthetic images are at first: real ones at random
    (real), as many of every group (balanced), noise, or those of a stored set (its file or run folder); by default
    the preset's; or what the synthetic images are at first: factor x factor real ones in each (mix), real ones at
    random (real), as many of every group (balanced), noise, or those of a stored set (its file or run folder); by
    default the preset's; or what the synthetic images are at first: factor x factor real ones in each, at random
    (mix) or representative (kmean), real ones at random (real), as many of every group (balanced), noise, or those
    of a stored set (its file or run folder); by default the preset's."""
    dsa_strategy: str | None
    """augmentations of real and synthetic images alike, joined by _, such as color_crop_flip; or none; by default
    the preset's."""
    seed: int | None
    """number that every random draw follows from; by default 0."""
    memory: Literal["auto", "low"] | None
    """Of dm, dc, dsa, mtt, datadam, idc, dream, ncfm: auto, or low to compute small parts at a time on GPUs too:
    slower, in less memory; by default auto."""
    batch_real: int | None
    """Of dm, dc, dsa, datadam, idc, dream, ncfm: real images of every class that a step sees; by default the
    preset's."""
    sampling: Literal["random", "stratified", "weighted"] | None
    """Of dm, dc, dsa, datadam, idc, dream, ncfm: how real images are drawn: random (as published), stratified
    (evenly over groups), or weighted (in proportion to the weights); by default random."""
    precision: Literal["fp32", "bf16"] | None
    """Of dm, dc, dsa, datadam, idc, dream, ncfm: precision of the real images' pass through the network; by default
    fp32."""
    aligned_factor: float | None
    """Of dm, dc, dsa, datadam, idc, dream, ncfm: lambda of debias biased-dd: how much of the distance to the bias-
    aligned images is taken off; by default by which the minimum is fairdd's."""
    networks: str | None
    """Of dm, dc, dsa, datadam, idc, dream: folder of trained networks, which are matched on in turn in place of
    random ones: experts (fastdd experts), or networks of fastdd train in folders of their own; by default random
    ones."""
    networks_epoch: int | None
    """Of dm, dc, dsa, datadam, idc, dream: epoch of the experts' training that networks are of; by default the
    last."""
    embed_warmup: int | None
    """Of dm, datadam: epochs of every random network on the synthetic images beforehand (COBRA: 10, 50 at IPC 50,
    100 at IPC 100); by default 0."""
    match_width: int | None
    """Of dm, datadam: filters of each convolution of the networks that are matched on, in place of width, which
    then is that of the networks that evaluate the set; fewer are faster, and the loss, a sum over them, smaller:
    raise lr_img alike; by default width."""
    lr_schedule: Literal["constant", "cosine"] | None
    """Of dm, datadam: how lr_img goes over the run: constant (as published), or cosine, which falls from lr_img to
    nothing; by default constant."""
    preset: Literal["published", "fast"] | None
    """Of dm: shipped settings that hold where none is given: the published ones, or fast, which come near their
    accuracy in a hundredth of the time (docs: records); by default published."""
    metric: Literal["l2", "l1", "cos"] | Literal["ours", "mse", "cos"] | Literal["l1", "mse"] | None
    """Of dm, dc, dsa, idc, dream: distance between mean embeddings: l2 (squared, as published), l1 (absolute
    differences) or cos; by default l2; or distance between gradients: ours (cosines of their rows, as published),
    mse or cos; by default ours; or distance between gradients of convolutions: l1 (absolute differences) or mse
    (squared ones); by default the preset's."""
    outer_loop: int | None
    """Of dc, dsa, idc, dream: matching steps of every random network; by default published for the IPC; or matching
    steps of every random network; by default 100."""
    inner_loop: int | None
    """Of dc, dsa: epochs that the network trains on the synthetic images between two matching steps; by default
    published for the IPC."""
    lr_net: float | None
    """Of dc, dsa, idc, dream: learning rate of the network when it trains on the synthetic images; by default the
    preset's; or learning rate of the network when it trains on real images; by default the preset's."""
    batch_train: int | None
    """Of dc, dsa, idc, dream: synthetic images of a step of that training; by default the preset's; or real images
    of a step of that training; by default the preset's."""
    expert_epochs: int | None
    """Of mtt: epochs of an expert between the student's start and its target; by default the preset's."""
    max_start_epoch: int | None
    """Of mtt: the student starts where an expert was at some epoch below this one; by default the preset's."""
    syn_steps: int | None
    """Of mtt: training steps of the student; by default the preset's."""
    batch_syn: int | None
    """Of mtt: synthetic images of a step of the student; by default preset; all."""
    lr_teacher: float | None
    """Of mtt: the student's learning rate at first; it is learned with the images; by default the preset's."""
    lr_lr: float | None
    """Of mtt: learning rate of the student's learning rate; by default the preset's."""
    step_size: Literal["log", "raw"] | None
    """Of mtt: learn the log of the student's learning rate, which stays positive, or it itself (raw, as published);
    by default log."""
    unroll: Literal["exact", "full", "tesla"] | None
    """Of mtt: derivative of the student's training: exact, full (the same, all of it kept in memory) or tesla
    (approximate); by default exact."""
    published_factor: bool | None
    """Of mtt: with unroll tesla, halve the images' gradient, as its published code does; by default False."""
    soft_labels: Literal["none", "teacher", "learned"] | None
    """Of mtt: soft labels of the synthetic images: none (their classes), teacher (what the target says of them) or
    learned; by default none."""
    lr_label: float | None
    """Of mtt: learning rate of soft labels that are learned; by default None."""
    zca: bool | None
    """Of mtt: whiten the images (ZCA), which the experts must have seen whitened too; by default the experts'."""
    task_balance: float | None
    """Of datadam: weight of the embeddings beside the attention maps; by default 0.01."""
    attention_power: float | None
    """Of datadam: power of features in attention maps (published code 1, its tables 4); by default 1.0."""
    base_size: int | None
    """Of idc, dream: side, in pixels, of images that lr_img is for; by default 32."""
    factor: int | None
    """Of idc, dream, ncfm, rded: parts a side of a synthetic image: factor x factor images, which networks see
    enlarged; by default the preset's; or cells a side of a synthetic image: factor x factor crops in each; by
    default 2."""
    batch_synthetic: int | None
    """Of idc, dream: parts of a class's synthetic images that a step sees at most; by default 128."""
    train_images: int | None
    """Of idc, dream: real images that the network trains on between two matching steps; by default the preset's."""
    cutmix: float | None
    """Of idc, dream: probability of CutMix when the network trains; by default the preset's."""
    warm_epochs: int | None
    """Of idc, dream: passes over the real images that a network trains for before it is matched on; by default
    0."""
    interval: int | None
    """Of dream: matching steps between two clusterings of the real images; by default 10."""
    cluster_by: Literal["class", "group"] | None
    """Of dream: what is clustered by itself: each class (as published), or each group of a class, so that none is
    left out; by default class."""
    optimizer: Literal["adamw", "sgd"] | None
    """Of ncfm: optimiser of the synthetic images: adamw or sgd; by default the preset's."""
    weight_decay: float | None
    """Of ncfm: decay of the synthetic images' pixels, of optimizer adamw; by default the preset's."""
    patience: int | None
    """Of ncfm: iterations without a new low of the loss after which lr_img is halved; by default the preset's."""
    frequencies: int | None
    """Of ncfm: random frequencies at which characteristic functions are compared; by default the preset's."""
    amplitude: float | None
    """Of ncfm: weight of the difference in amplitude, beside that in phase; by default the preset's."""
    phase: float | None
    """Of ncfm: weight of the difference in phase, beside that in amplitude; by default the preset's."""
    calibration: float | None
    """Of ncfm: weight of the synthetic images' cross-entropy under the expert; 0 leaves it out; by default the
    preset's."""
    teacher: str | None
    """Of rded, sre2l: trained network that says what belongs to a class: a folder or file of fastdd train, experts
    (the first, as it ended), or a file of weights of torchvision's or timm's, which arch names the network of; by
    default none, which is refused."""
    candidates: int | None
    """Of rded: real images of every class that crops are taken of; by default 300."""
    crops: int | None
    """Of rded: random crops of each of them that the teacher judges; by default 5."""
    batch_crops: int | None
    """Of rded: crops that the teacher judges at a time; by default 500."""
    r_bn: float | None
    """Of sre2l: weight of the distance to the teacher's batch norm statistics; by default 0.01."""
    first_bn: float | None
    """Of sre2l: how much more the first batch norm's distance counts; by default 10.0."""
    jitter: int | None
    """Of sre2l: most pixels that images are rolled by in each iteration, down and to the right; by default 32."""
    batch_classes: int | None
    """Of sre2l: classes, one image of each, whose images share their statistics; by default 100."""
    curriculum: Literal["none", "step", "linear", "cosine"] | None
    """Of sre2l: how crops get smaller over the iterations (CDA): none (they are of any size), or step, linear or
    cosine; by default none."""
    milestone: float | None
    """Of sre2l: part of the iterations that a curriculum lasts; by default 1 with a curriculum."""


class DistillationArguments(DistillSettings, total=False):
    """What :class:`fastdd.Distillation` takes, and with it :func:`fastdd.distill` and :func:`fastdd.estimate`."""

    method: MethodName
    debias: DebiasName | None
    ipc: int
    device: str
    weights: Weights | None
    groups: Groups | None
    experts: Experts | str | os.PathLike | None
    eval_every: int | None
    eval_nets: int | None
    eval_epochs: int | None
    snapshots: int | None


class TrainExpertsSettings(TypedDict, total=False):
    """Settings of expert training (:class:`fastdd.experts.ExpertSettings`)."""

    training: str | None
    """recipe by which they are trained (fastdd recipes), with plain SGD as any; by default erm."""
    constants: Mapping[str, Any] | None
    """constants of the recipe, in place of its defaults; by default its own."""
    arch: str | None
    """network to train, such as ConvNet; by default the preset's."""
    width: int | None
    """filters of each convolution; by default the network's own."""
    depth: int | None
    """blocks of layers; by default the network's own."""
    num_experts: int | None
    """networks to train, each from its own random start; published 100; by default the preset's."""
    epochs: int | None
    """passes over the training images; published 50; by default the preset's."""
    lr_teacher: float | None
    """learning rate; by default the preset's."""
    batch_train: int | None
    """images of a training step; by default the preset's."""
    momentum: float | None
    """momentum of SGD; by default the preset's."""
    weight_decay: float | None
    """weight decay of SGD; by default the preset's."""
    decay: bool | None
    """learn at a tenth of the learning rate in the second half; by default the preset's."""
    dsa_strategy: str | None
    """augmentations in training, joined by _, such as color_crop_flip; or none; by default the preset's."""
    sampling: Literal["random", "weighted"] | None
    """how debias acts: random (weights in the loss) or weighted (images drawn in proportion to them, which then
    count alike: less variance from rare images); by default random."""
    zca: bool | None
    """whiten the images (ZCA), as published for some data sets and IPC; by default the preset's."""
    dtype: Literal["fp32", "bf16"] | None
    """precision that is stored; bf16 takes half the space; by default fp32."""
    eval_every: int | None
    """epochs from one test to the next; 0 for no tests; by default 10."""
    seed: int | None
    """number that every random draw follows from; by default 0."""


class TrainNetworkSettings(TypedDict, total=False):
    """Settings of the training of a network (:class:`fastdd.training.TrainSettings`)."""

    training: str | None
    """recipe: how the network is trained (fastdd recipes); by default erm."""
    constants: Mapping[str, Any] | None
    """constants of the recipe, in place of its defaults; by default its own."""
    use: Literal["none", "usb", "asb", "ffr"] | None
    """what fake images are for: none, usb (they top every class and group up to the largest), asb (as many of each,
    beside the real ones) or ffr (as many of each, before the real ones); by default none."""
    scale: float | None
    """how many times as many fake images as usb needs; by default 1.0."""
    arch: str | None
    """network to train, such as ConvNet; by default the preset's."""
    width: int | None
    """filters of each convolution; by default the network's own."""
    depth: int | None
    """blocks of layers; by default the network's own."""
    epochs: int | None
    """passes over the training images, of each stage; by default the preset's."""
    batch_train: int | None
    """images of a training step; by default the preset's."""
    optimiser: Literal["adam", "sgd"] | None
    """how steps are made of gradients; by default the preset's."""
    lr: float | None
    """learning rate; by default the preset's."""
    pretrain_lr: float | None
    """learning rate on fake images alone (ffr); by default lr."""
    momentum: float | None
    """momentum of sgd; by default 0.9."""
    weight_decay: float | None
    """weight decay; by default the preset's."""
    dsa_strategy: str | None
    """augmentations in training, joined by _, such as crop_flip; or none; by default the preset's."""
    freeze_norms: bool | None
    """leave batch norms' statistics as the fake images left them (ffr); by default False."""
    keep: Literal["auto", "best", "last"] | None
    """which epoch's network is kept: best (highest worst-group accuracy on validation images), last, or auto: best
    where there are validation images; by default auto."""
    seed: int | None
    """number that every random draw follows from; by default 0."""


class EvaluateSettings(TypedDict, total=False):
    """What :func:`fastdd.evaluate` takes."""

    ipc: int | None
    nets: int | None
    protocol: str | None
    arch: str | None
    width: int | None
    depth: int | None
    epochs: int | None
    dsa_strategy: str | None
    learning_rate: float | None
    factor: int | None
    training: str | None
    constants: Mapping[str, Any] | None
    seed: int
    teacher: str | os.PathLike | None
    labels: str | os.PathLike | None
    groups: Groups | None


class AuditSettings(TypedDict, total=False):
    """Settings of an audit (:class:`fastdd.evaluation.audit.AuditSettings`)."""

    nets: int | None
    """random networks that positions, bounds and coverage are over; by default 20."""
    per_cell: int | None
    """real images of every class and group that stand for all of them; by default 100."""
    probe_steps: int | None
    """training steps of the probe that tells groups; by default 300."""
    probe_accuracy: float | None
    """percent, accuracy below which the probe says nothing; by default 80.0."""
    seed: int | None
    """number that every random draw follows from; by default 0."""


class KdeWeightsSettings(TypedDict, total=False):
    """Of :class:`fastdd.debias.density.kde.KdeSettings`."""

    variance: float
    temperature: float
    score: str
    clip: float | None
    scope: str
    density: str
    k: int
    batch: int
    normalise: str


class PseudoGroupsSettings(TypedDict, total=False):
    """Of :class:`fastdd.debias.density.clusters.ClusterSettings`."""

    method: str
    num_groups: int | None
    per_class: bool
    eps: float
    min_samples: int
