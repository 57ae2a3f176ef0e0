"""Keyword arguments: the generated file is current, and notebooks see them."""

import inspect

import fastdd
from fastdd.api import generate
from fastdd.api.arguments import DistillationArguments, EvaluateSettings, TrainExpertsSettings
from fastdd.experts import ExpertSettings
from fastdd.methods import METHODS


def test_the_checked_in_file_is_current():
    assert generate.FILE.read_text(encoding="utf-8") == generate.text(), "run python -m fastdd.api.generate"


def test_all_settings_of_all_methods_and_of_experts_are_there():
    of_verbs = {"dataset", "method", "debias", "ipc"}
    for kind in METHODS.values():
        assert kind.Settings.model_fields.keys() - {"dataset"} <= DistillationArguments.__annotations__.keys()
    assert ExpertSettings.model_fields.keys() - of_verbs == TrainExpertsSettings.__annotations__.keys()


def test_evaluations_and_their_estimates_take_the_same():
    taken = inspect.signature(fastdd.evaluate).parameters.keys() - {"what", "data", "device", "progress", "keep_nets"}
    assert taken == EvaluateSettings.__annotations__.keys()


def test_signatures_have_every_keyword():
    """Notebooks complete from them."""
    arguments = DistillationArguments.__annotations__.keys()
    run = inspect.signature(fastdd.Distillation.run).parameters.keys() - {"self"}
    assert inspect.signature(fastdd.Distillation).parameters.keys() == {"data"} | arguments
    assert inspect.signature(fastdd.distill).parameters.keys() == {"data"} | run | arguments
    assert inspect.signature(fastdd.estimate).parameters.keys() == {"data", "nets", "epochs"} | arguments
    assert inspect.signature(fastdd.distill).parameters["ipc"].default == 10
    assert inspect.signature(fastdd.train_experts).parameters.keys() > TrainExpertsSettings.__annotations__.keys()
