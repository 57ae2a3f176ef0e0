"""What every method must do, on every kind of data and with every debias mode.

A method, or a mode, that is added to the registry is tested here with no line written. Of every method with every mode
the default suite has the first step (test_oracles.py) and the second on a pretended GPU (tests/device); with resumed
runs, and some of the classes, modes take turns, and ``full`` has the rest.
"""

import dataclasses
import inspect

import numpy as np
import pytest
import torch
import yaml
from tiny_runs import KINDS, in_turn, inputs, made, modes_of, tiny

import fastdd
from fastdd import session
from fastdd.data import SyntheticSet
from fastdd.data.initial import random_set
from fastdd.debias import MODES
from fastdd.methods import METHODS, Context, Settings, methods_with_steps, parse
from fastdd.report.page import write_page
from fastdd.report.record import read_record
from fastdd.session import Callback, estimate

CPU = torch.device("cpu")
# Those that make classes one after another have no steps, and tests of their own (tests/session/test_by_class.py).
STEPPING = methods_with_steps()
ALL_MODES = [(method, mode, "colour") for method in STEPPING for mode in modes_of(method)]
ALL_KINDS = [(method, "fairdd", kind) for method in STEPPING for kind in KINDS if kind != "colour"]
everything = pytest.mark.parametrize(("method", "mode", "kind"), in_turn([*ALL_MODES, *ALL_KINDS]))
apart = pytest.mark.parametrize(
    ("method", "mode"), in_turn([case[:2] for case in ALL_MODES if METHODS[case[0]].classes_apart])
)
methods = pytest.mark.parametrize("method", METHODS)


@everything
def test_a_run_stopped_and_resumed_has_the_same_bits(method, mode, kind, tmp_path):
    class Stop(Callback):
        def wants_checkpoint(self, run):
            if run.step == 1:
                run.stop.set()
            return False

    config, data = tiny(method, debias=mode), made(kind)
    whole = session.run(config, data, **inputs(config, kind))
    assert whole.images.isfinite().all()
    # The gradients of a classifier of one class are zero.
    moved = not torch.equal(whole.images, random_set(data, config.ipc).images)
    assert moved or data.num_classes == 1
    with pytest.raises(KeyboardInterrupt, match="stopped after 1 of"):
        session.run(config, data, out=tmp_path, callbacks=[Stop()], **inputs(config, kind))
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 1
    resumed = session.run(config, data, out=tmp_path, resume=True, **inputs(config, kind))
    assert torch.equal(resumed.images, whole.images)
    assert resumed.learning_rate == whole.learning_rate
    read = SyntheticSet.load(tmp_path / "synthetic.safetensors")
    assert torch.equal(read.images, whole.images)
    assert parse(read.metadata["run"]) == config
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["run"] == config.model_dump()


class OfClasses:
    """A method that changes some of the classes, beside others that change the rest: ``course`` has the images of all
    classes after so many matchings, from none on."""

    def __init__(self, config: Settings, context: Context, classes: range, course: list[torch.Tensor]):
        self.rows, self._course, self._matchings = (
            slice(classes.start * config.ipc, classes.stop * config.ipc),
            course,
            0,
        )
        self.method = METHODS[config.method](config, dataclasses.replace(context, classes=classes, gather=self._gather))
        self._match, self.method.match = self.method.match, self._counted

    def _counted(self, number: int) -> torch.Tensor:
        loss = self._match(number)
        self._matchings += 1
        return loss

    def _gather(self) -> None:
        images = self.method.images.detach()
        here = images[self.rows].clone()
        images.copy_(self._course[self._matchings])
        images[self.rows] = here


@apart
def test_some_of_the_classes_have_the_bits_that_they_have_among_all(method, mode):
    """As ranks share them."""
    data, config = made("colour"), tiny(method, debias=mode)
    weights = inputs(config, "colour").get("weights")
    images = random_set(data, config.ipc).images
    context = Context(data, CPU, images, None if weights is None else torch.as_tensor(weights))
    whole, course = METHODS[method](config, context), [images.clone()]
    for number in range(config.steps):
        whole.step(number)
        course.append(whole.images.detach().clone())
    for classes in (range(1), range(1, 3)):
        part = OfClasses(config, context, classes, course)
        for number in range(config.steps):
            part.method.step(number)
        assert torch.equal(part.method.images.detach()[part.rows], course[-1][part.rows])


@methods
def test_settings_there_and_back(method):
    config = tiny(method)
    assert parse(config.model_dump()) == config
    assert parse(yaml.safe_load(yaml.safe_dump(config.model_dump()))) == config
    assert config.method == method
    assert method not in STEPPING or config.steps >= config.iterations


@methods
def test_words_for_people(method):
    kind = METHODS[method]
    assert kind.about[0].islower()
    assert kind.source
    assert inspect.getdoc(kind) != inspect.getdoc(kind.__mro__[1])
    assert inspect.getdoc(inspect.getmodule(kind))
    for name, field in kind.Settings.model_fields.items():
        assert field.description, name
        assert not field.description.endswith("."), name
        assert len(field.description) > len(name), name


@methods
def test_bad_settings_are_one_line_that_names_them(method):
    for name, field in METHODS[method].Settings.model_fields.items():
        for limit in field.metadata:
            for edge, beyond in (("ge", -1), ("gt", 0), ("le", 1), ("lt", 0)):
                if (bound := getattr(limit, edge, None)) is not None:
                    with pytest.raises(ValueError, match=name if name != "ipc" else "(?i)ipc") as error:
                        tiny(method, **{name: bound + beyond})
                    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="no_such_setting"):
        tiny(method, no_such_setting=1)
    others = {name for other in METHODS.values() for name in other.Settings.model_fields}
    for name in others - METHODS[method].Settings.model_fields.keys():
        with pytest.raises(ValueError, match=f"{name} is a setting of .*, not of {method}"):
            tiny(method, **{name: 1})


@pytest.mark.parametrize("method", STEPPING)
def test_estimate(method, monkeypatch):
    monkeypatch.setattr(estimate, "_SECONDS", 0.0)
    config = tiny(method)
    seconds, disk, notes = estimate.distillation(config, made("colour"), CPU)
    assert seconds > 0
    assert disk > 0
    assert not notes
    context = Context(made("colour"), CPU, random_set(made("colour"), config.ipc).images, **inputs(config, "colour"))
    parts = METHODS[method](config, context).parts()
    assert max(part.times for part in parts) * config.iterations == config.steps


@methods
def test_report_and_evaluation_of_a_run(method, tmp_path):
    config = tiny(method)
    run = tmp_path / "run"
    synthetic = session.run(config, made("colour"), out=run, **inputs(config, "colour"))
    found = fastdd.evaluate(synthetic, made("colour"), nets=1, epochs=1, device="cpu")
    assert 0 <= found.summary()["accuracy"]["mean"] <= 100
    write_page(tmp_path / "page.html", [read_record(run)], made("colour"))
    assert method in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize("mode", MODES)
def test_modes_have_words_for_people(mode):
    about = MODES[mode].about
    assert not about.endswith(".")
    assert dataclasses.is_dataclass(MODES[mode])


@methods
def test_what_changes_nothing_is_refused(method):
    config = tiny(method)
    groups = np.zeros(len(made("colour").train), np.int64)
    with pytest.raises(ValueError, match="groups"):
        session.run(config, made("colour"), groups=groups, **inputs(config, "colour"))
    with pytest.raises(ValueError, match="no weights"):
        session.run(config, made("colour"), weights=np.ones(len(groups)), **inputs(config, "colour"))
