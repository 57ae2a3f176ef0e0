"""One's own networks, methods, modes and data sets: what works, and one line for every mistake."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_runs import begun, graphs_of
from torch import nn

import fastdd
from fastdd import models
from fastdd.core.settings import setting
from fastdd.data import Dataset, Split
from fastdd.debias import Batch, Segments, fairdd, none
from fastdd.methods.dm import Dm, DmSettings
from fastdd.models.pretrained import load_weights

pytestmark = pytest.mark.usefixtures("parts_apart")
SHAPE = (3, 10, (16, 16))


class Tiny(nn.Module):
    """With a batch norm, and a start of its own."""

    def __init__(self, channels, num_classes):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(channels, 4, 3, 2, 1), nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, num_classes)
        nn.init.normal_(self.fc.weight, std=0.25)

    def forward(self, images):
        return self.fc(self.norm(self.conv(images)).relu().mean((2, 3)))


@pytest.fixture(scope="module")
def digits():
    data = fastdd.data.load("c-digits")
    few = np.concatenate([np.flatnonzero(data.train.labels == label)[:12] for label in range(10)])
    return replace(data, train=data.train.take(few), test=data.test.take(np.arange(60)))


def flat(net):
    return nn.utils.parameters_to_vector(net.parameters()).detach()


def test_a_network_begins_as_its_code_says_and_leaves_the_generator_alone():
    fastdd.register_network("tiny", Tiny)
    torch.manual_seed(7)
    wanted = flat(Tiny(3, 10))
    torch.manual_seed(3)
    before = torch.get_rng_state()
    net = models.build("Tiny", *SHAPE, key=7)
    assert torch.equal(flat(net), wanted)
    assert torch.equal(torch.get_rng_state(), before)


def test_fresh_networks_are_written_in_place_with_their_statistics():
    fastdd.register_network("tiny", Tiny)
    net = models.build("tiny", *SHAPE, key=1)
    init, first = models.ParameterInit(net), flat(net)
    net.train()(torch.randn(4, 3, 16, 16))
    init.fill(2)
    assert not torch.equal(flat(net), first)
    assert torch.equal(init.flat, flat(net))
    assert torch.equal(net.module.norm.running_mean, torch.zeros(4))
    init.fill(1)
    assert torch.equal(flat(net), first)
    init.copy(first + 1)
    assert torch.equal(flat(net), first + 1)


@pytest.mark.parametrize("wrapped", [True, False])
def test_weights_from_a_file_fill_it_by_its_own_names(wrapped, tmp_path):
    """Those of a network that this package trained, and those that the network's own code has saved."""
    fastdd.register_network("tiny", Tiny)
    net, other = (models.build("tiny", *SHAPE, key=key) for key in (1, 2))
    net.train()(torch.randn(4, 3, 16, 16))
    torch.save((net if wrapped else net.module).state_dict(), tmp_path / "w.pt")
    assert load_weights(other, tmp_path / "w.pt", read=torch.load) == []
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in net.state_dict().items())


def test_the_embedding_is_what_the_last_linear_layer_is_given():
    fastdd.register_network("tiny", Tiny)
    net = models.build("tiny", *SHAPE).eval()
    images = torch.randn(5, 3, 16, 16)
    embedding = net.embed(images)
    assert embedding.shape == (5, net.embedding_dim) == (5, 4)
    torch.testing.assert_close(getattr(net, net.head)(embedding), net(images))
    torch.testing.assert_close(copy.deepcopy(net).embed(images), embedding)
    assert net.embedder(torch.bfloat16)(images.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize(("embed", "width"), [("norm", 4 * 64), ("features", 2)])
def test_the_embedding_can_be_named(embed, width):
    class Named(Tiny):
        def features(self, images):
            return images.mean((2, 3))[:, :2]

    fastdd.register_network("named", Named, embed=embed)
    net = models.build("named", *SHAPE)
    assert net.embedding_dim == width
    with pytest.raises(ValueError, match="its logits are not what a linear layer makes of its embedding"):
        getattr(net, net.head)


def test_its_own_embed_comes_first():
    class Embeds(Tiny):
        def embed(self, images):
            return images.flatten(1)[:, :7]

    fastdd.register_network("embeds", Embeds)
    assert models.build("embeds", *SHAPE).embedding_dim == 7


class WithoutGradient(Tiny):
    @torch.no_grad()
    def forward(self, images):
        return super().forward(images)


class OfTheBatch(Tiny):
    def forward(self, images):
        return super().forward(images - images.mean(0))


class FromNumpy(Tiny):
    def __init__(self, channels, num_classes):
        super().__init__(channels, num_classes)
        self.fc.weight.data += float(np.random.default_rng().random())


def conv_only(channels, num_classes):
    return nn.Sequential(nn.Conv2d(channels, num_classes, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())


@pytest.mark.parametrize(
    ("factory", "embed", "error", "words"),
    [
        (3, None, TypeError, "a factory is a function or a class, not int"),
        (Tiny(3, 10), None, TypeError, "give what makes a fresh network, such as its class"),
        (lambda classes: None, None, TypeError, r"has to name num_classes; this one is <lambda>\(classes\)"),
        (lambda num_classes: None, None, TypeError, "its factory returned nothing, not a torch.nn.Module"),
        (lambda num_classes: 1 / 0, None, ValueError, "its factory fails with images of 3x16x16 in 10 classes: Zero"),
        (lambda num_classes: Tiny(3, 9), None, ValueError, r"it makes \[3, 9\] of 3 images, not \[3, 10\]"),
        (lambda num_classes: Tiny(1, 10), None, ValueError, "fails on images of 3x16x16 in 10 classes: RuntimeError"),
        (lambda num_classes: Tiny(3, 10).double(), None, TypeError, "parameters, all of them float32"),
        (lambda num_classes: nn.Sequential(Tiny(3, 10), nn.Dropout()), None, ValueError, "dropout?"),
        (WithoutGradient, None, ValueError, "no gradient in the images"),
        (OfTheBatch, None, ValueError, "depends on the rest of the batch"),
        (FromNumpy, None, ValueError, "not a function of torch's seed"),
        (conv_only, None, ValueError, "no linear layer to take its embedding from"),
        (Tiny, "nrom", ValueError, r"no layer and no method 'nrom'.*did you mean norm\?"),
        (Tiny, 3, TypeError, "embed names a layer or a method"),
    ],
)
def test_a_wrong_network_is_one_line_before_any_work(digits, factory, embed, error, words):
    def begin():
        fastdd.register_network("wrong", factory, embed=embed)
        fastdd.Distillation(digits, arch="wrong", ipc=1)

    with pytest.raises(error, match=words) as told:
        begin()
    assert str(told.value).startswith("network wrong")
    assert "\n" not in str(told.value)


def test_width_and_depth_are_convnets():
    fastdd.register_network("tiny", Tiny)
    with pytest.raises(ValueError, match="tiny has its own width"):
        models.build("tiny", *SHAPE, width=3)


@pytest.mark.parametrize("method", ["dm", *(pytest.param(name, marks=pytest.mark.full) for name in ("dc", "idc"))])
def test_a_run_with_ones_own_network_resumes_to_the_same_bits(digits, tmp_path, method):
    fastdd.register_network("tiny", Tiny)
    how = {"method": method, "arch": "tiny", "ipc": 1, "batch_real": 4, "dsa_strategy": "none"}
    how |= {"dc": {"outer_loop": 2, "inner_loop": 1}, "idc": {"outer_loop": 2}}.get(method, {})
    whole = fastdd.distill(digits, **how, iterations=3)
    fastdd.distill(digits, **how, iterations=2, out=tmp_path / "run")
    resumed = fastdd.distill(digits, **how, iterations=3, out=tmp_path / "run", resume=True)
    assert torch.equal(whole.images, resumed.images)


@pytest.mark.filterwarnings("ignore::fastdd.evaluation.DoubtfulFigures")
def test_it_is_evaluated_trained_and_followed(digits, tmp_path):
    fastdd.register_network("tiny", Tiny)
    synthetic = fastdd.distill(digits, arch="tiny", ipc=1, iterations=1, batch_real=4)
    result = fastdd.evaluate(synthetic, digits, nets=2, epochs=1)
    assert result.arch == "tiny"
    experts = fastdd.train_experts(digits, arch="tiny", num_experts=1, epochs=2, out=tmp_path / "experts")
    how = {"max_start_epoch": 1, "expert_epochs": 1, "syn_steps": 1}
    followed = fastdd.distill(digits, method="mtt", experts=experts, ipc=1, iterations=1, **how)
    assert followed.metadata["run"]["arch"] == "tiny"
    trained = fastdd.train_network(digits, arch="tiny", epochs=1, out=tmp_path / "trained")
    images = torch.randn(2, 3, 16, 16)
    assert torch.equal(fastdd.load_network(tmp_path / "trained")(images), trained.net.eval()(images))


@pytest.mark.parametrize("method", ["dm", "dc", "idc"])
def test_no_step_of_it_is_captured_as_a_graph(method):
    fastdd.register_network("tiny", Tiny)
    made = begun(method, arch="tiny", width=None, depth=None)
    assert all(graphs._phase(number) is None for graphs in graphs_of(made) for number in range(3))


def test_what_a_script_registers_is_not_trained_in_other_processes(digits, tmp_path):
    fastdd.register_network("tiny", Tiny)
    with pytest.raises(ValueError, match="was registered by a script, which other processes do not run"):
        fastdd.train_experts(digits, arch="tiny", num_experts=2, epochs=1, out=tmp_path / "experts", processes=2)


class ScaledSettings(DmSettings):
    """DM's, and a factor."""

    scale: float = setting("factor of the loss", 2.0, gt=0)


class Scaled(Dm):
    """DM whose gradient is scaled."""

    about = "scaled"
    source = "a test"
    Settings = ScaledSettings

    def _loss_and_gradient(self, *arguments):
        loss, gradient = super()._loss_and_gradient(*arguments)
        return self._config.scale * loss, self._config.scale * gradient


def test_a_method_has_the_presets_of_what_it_derives_from_and_its_own_settings(digits):
    fastdd.register_method("scaled", Scaled, settings={"momentum": 0.25})
    settings = fastdd.Distillation(digits, method="scaled", ipc=1).settings
    plain = fastdd.Distillation(digits, method="dm", ipc=1).settings
    assert settings.model_dump(exclude={"method", "momentum", "scale"}) == plain.model_dump(
        exclude={"method", "momentum"}
    )
    assert (settings.momentum, settings.scale) == (0.25, 2.0)


@pytest.mark.filterwarnings("ignore:no synthetic image has changed")
def test_a_methods_step_is_what_it_computes(digits):
    fastdd.register_method("scaled", Scaled, settings={"momentum": 0.0})
    how = {"ipc": 1, "iterations": 1, "width": 8, "batch_real": 4}
    start = fastdd.distill(digits, **how, method="dm", momentum=0.0, lr_img=1e-12)
    twice = fastdd.distill(digits, **how, method="scaled", lr_img=1.0, scale=2.0)
    plain = fastdd.distill(digits, **how, method="dm", momentum=0.0, lr_img=2.0)
    assert not torch.equal(plain.images, start.images)
    torch.testing.assert_close(twice.images, plain.images, rtol=1e-6, atol=1e-6)
    with pytest.raises(ValueError, match="scale must be above 0"):
        fastdd.Distillation(digits, method="scaled", scale=-1.0)
    with pytest.raises(ValueError, match="there is no setting 'scael'"):
        fastdd.Distillation(digits, method="scaled", scael=1.0)


class Global(Scaled):
    def _loss_and_gradient(self, *arguments):
        loss, gradient = super()._loss_and_gradient(*arguments)
        return loss, gradient + 1e-3 * torch.rand(())


class NoLoss(Scaled):
    def step(self, number):
        super().step(number)


class Many(Scaled):
    def step(self, number):
        return super().step(number) + torch.zeros(3)


class Fails(Scaled):
    def _loss_and_gradient(self, *arguments):
        return {}["x"]


@pytest.mark.parametrize(
    ("kind", "error", "words"),
    [
        (3, TypeError, "give a subclass of fastdd.methods.Method, such as of Dm, not int"),
        (Tiny, TypeError, "not the class Tiny"),
        (type("Nameless", (Dm,), {"about": None}), TypeError, "Nameless.about is missing: a line of text"),
        (type("Loose", (Dm,), {"Settings": dict}), TypeError, "Loose.Settings is missing"),
        (Global, ValueError, "gives other images: draw by keys of fastdd.core.rng"),
        (NoLoss, TypeError, "a step returns its loss, a tensor, not NoneType"),
        (Many, ValueError, r"a step returns its loss, a scalar, not torch.float32 \[3\]"),
        (Fails, ValueError, "fails on a few images: KeyError: 'x'"),
    ],
)
def test_a_wrong_method_is_one_line_before_any_work(digits, kind, error, words, tmp_path):
    def begin():
        fastdd.register_method("wrong", kind)
        fastdd.distill(digits, method="wrong", ipc=1, width=8, out=tmp_path / "run")

    with pytest.raises(error, match=words) as told:
        begin()
    assert str(told.value).startswith("method wrong")
    assert "\n" not in str(told.value)
    assert not (tmp_path / "run").exists()


def test_a_method_without_presets_says_which_setting_it_lacks():
    class Bare(fastdd.methods.Method):
        about, source, Settings = "bare", "a test", fastdd.methods.Settings

    with pytest.raises(ValueError, match=r"method bare: iterations is missing.*settings=\{\.\.\.\}"):
        fastdd.register_method("bare", Bare)
    assert "bare" not in fastdd.methods.METHODS


def test_a_mode_is_as_fastdds_own(digits):
    fastdd.register_mode("mine", fairdd.segments, about="as fairdd", needs="groups", waits=False)
    how = {"ipc": 1, "iterations": 2, "width": 8, "batch_real": 6}
    mine, fair = (fastdd.distill(digits, debias=debias, **how) for debias in ("mine", "fairdd"))
    assert torch.equal(mine.images, fair.images)


def changed(**fields):
    return lambda batch: replace(none.MODE.segments(batch), **fields)


def halved(batch: Batch) -> Segments:
    made = none.MODE.segments(batch)
    return replace(made, weights=made.weights / 2)


def present_groups(batch: Batch) -> Segments:
    made = fairdd.segments(batch)
    kept = made.present
    return replace(made, offsets=torch.cat([made.offsets[:1], made.offsets[1:][kept]]), classes=made.classes[kept])


@pytest.mark.parametrize(
    ("segments", "more", "error", "words"),
    [
        (None, {}, TypeError, "segments is a function, not NoneType"),
        (lambda batch: batch, {}, TypeError, "it makes Batch of a batch, not fastdd.debias.Segments"),
        (lambda: None, {}, ValueError, "fails on a batch of 2 classes and 3 groups: TypeError"),
        (halved, {}, ValueError, "the weights of segment 0 sum to 0.5, not to 1"),
        (changed(offsets=torch.tensor([0, 9, 8])), {}, ValueError, r"its offsets are \[0, 9, 8\], for 2 segments of 8"),
        (changed(classes=torch.tensor([1, 0])), {}, ValueError, r"the classes of its segments are \[1, 0\]"),
        (changed(rows=torch.arange(8)), {}, ValueError, "row 0 is in a segment of class 0, and is of no class"),
        (changed(weights=torch.ones(8).double()), {}, ValueError, "its weights are torch.float64"),
        (present_groups, {"waits": False}, ValueError, "5 segments of one batch and 4 of another|6 segments"),
        (none.MODE.segments, {"needs": "luck"}, ValueError, "needs is one of nothing, groups, weights, embeddings"),
        (none.MODE.segments, {"about": 3}, TypeError, "about is a line of text, not 3"),
        (none.MODE.segments, {"in_training": lambda *_: np.ones(5)}, ValueError, r"sum to \[3.0, 2.0\] over classes"),
        (none.MODE.segments, {"in_training": lambda *_: [1]}, TypeError, "in_training returns list for 5 images"),
        (none.MODE.segments, {"in_training": lambda: 0}, ValueError, "in_training fails on 5 labels"),
    ],
)
def test_a_wrong_mode_is_one_line(segments, more, error, words):
    with pytest.raises(error, match=words) as told:
        fastdd.register_mode("wrong", segments, **{"about": "wrong", **more})
    assert "\n" not in str(told.value)
    assert "wrong" not in fastdd.debias.MODES


def noise(*, images: int = 8, seed: int = 0) -> Dataset:
    generator = np.random.default_rng(seed)
    labels = np.arange(images) % 2
    split = Split(generator.integers(0, 255, (images, 1, 8, 8), dtype=np.uint8), labels, np.zeros_like(labels))
    return Dataset("whatever", split, split, ("a", "b"), ("all",), (0.5,), (0.3,), {"seed": seed})


def test_a_data_set_has_its_name_its_options_and_those_of_all():
    fastdd.register_dataset("noise", noise, about="nothing", arch="convnetd1", width=16)
    data = fastdd.data.load("noise", images=20, val_split=0.2)
    assert (data.name, len(data.train), data.tested_on) == ("noise", 16, "validation")
    assert data.provenance["parameters"] == {"images": 20, "seed": 0, "val_split": 0.2}
    settings = fastdd.Distillation(fastdd.data.load("noise"), ipc=1).settings
    assert (settings.arch, settings.width) == ("ConvNetD1", 16)
    with pytest.raises(ValueError, match="images of noise must be a whole number"):
        fastdd.data.load("noise", images="many")


def test_a_root_is_passed_where_it_is_taken(tmp_path):
    fastdd.register_dataset("rooted", lambda root, *, seed=0: noise(images=len(str(root))), about="x")
    assert len(fastdd.data.load("rooted", "abcd").train) == 4


@pytest.mark.parametrize(
    ("load", "error", "words"),
    [
        (3, TypeError, "load is a function, not int"),
        (lambda path: None, TypeError, r"\(root, \*, option=default\).*this one is <lambda>\(path\)"),
        (lambda *, seed: None, TypeError, "option=default"),
        (lambda **options: None, TypeError, "option=default"),
        (lambda: None, TypeError, "its load returned NoneType, not a fastdd.data.Dataset"),
        (lambda: {}["x"], ValueError, "its load fails: KeyError: 'x'"),
    ],
)
def test_a_wrong_data_set_is_one_line(load, error, words):
    def begin():
        fastdd.register_dataset("wrong", load, about="x")
        fastdd.data.load("wrong")

    with pytest.raises(error, match=words) as told:
        begin()
    assert "\n" not in str(told.value)


def test_names_are_not_taken_twice_and_a_notebook_registers_again():
    fastdd.register_network("tiny", Tiny)
    fastdd.register_network("tiny", Tiny)
    for register in (
        lambda: fastdd.register_network("convnet", Tiny),
        lambda: fastdd.register_method("dm", Scaled),
        lambda: fastdd.register_mode("KDE", none.MODE.segments, about="x"),
        lambda: fastdd.register_dataset("mnist", noise, about="x"),
    ):
        with pytest.raises(ValueError, match="fastdd has a "):
            register()
