"""Settings refuse in plain words: the setting, what it has to be, and what it is."""

from typing import Literal

import pytest

import fastdd
from fastdd.core.settings import Settings, parse, setting
from fastdd.experts import ExpertSettings
from fastdd.methods import METHODS, configure


class Some(Settings):
    width: int = setting("filters", 8, ge=1, le=64)
    rate: float = setting("rate", 0.5, gt=0, lt=1)
    kind: Literal["a", "b"] = setting("kind", "a")
    on: bool = setting("on", False)
    name: str = setting("name", "x")
    needed: int = setting("needed")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"width": 0}, "width must be at least 1, not 0"),
        ({"width": 65}, "width must be at most 64, not 65"),
        ({"width": "ten"}, "width must be a whole number, not 'ten'"),
        ({"width": 1.5}, "width must be a whole number, not 1.5"),
        ({"width": "9" * 5000}, "width must be a whole number, not '9"),
        ({"width": []}, "width must be a whole number, not []"),
        ({"rate": 0}, "rate must be above 0, not 0"),
        ({"rate": 1}, "rate must be below 1, not 1"),
        ({"rate": "x"}, "rate must be a number, not 'x'"),
        ({"rate": float("nan")}, "rate must be a finite number, not nan"),
        ({"kind": "c"}, "kind must be one of a, b, not 'c'"),
        ({"on": "perhaps"}, "on must be true or false, not 'perhaps'"),
        ({"name": 3}, "name must be a word, not 3"),
        ({"widht": 3}, "there is no setting 'widht'; did you mean width?"),
        ({"zzz": 3}, "there is no setting 'zzz'"),
        ({}, "needed is missing, and no preset has it"),
    ],
)
def test_refusals_are_plain(values, message):
    if values:
        values = {"needed": 1, **values}
    with pytest.raises(ValueError, match=r".") as error:
        parse(Some, values)
    assert str(error.value).startswith(message)
    assert str(error.value) == message or str(error.value).endswith("9999...")  # of a long value its beginning


WRONG = ["ten", "", "-1", -1, 0, 1.5, 2, float("inf"), float("nan"), True, [], {}, b"x", object]


@pytest.mark.parametrize("method", [*METHODS, "experts"])
def test_no_setting_of_any_method_answers_in_the_words_of_a_library(method):
    if method == "experts":
        right = ExpertSettings.configure(dataset="c-digits")
    else:
        right = configure(dataset="c-digits", method=method)
    told = []
    for name in type(right).model_fields:
        for wrong in WRONG:
            try:
                parse(type(right), right.model_dump() | {name: wrong})
            except ValueError as error:
                told.append((name, str(error)))
    assert len(told) > 100
    for name, text in told:
        assert "\n" not in text
        assert name in text or name in ("method", "debias", "dsa_strategy"), text
        for word in ("Input should", "validation error", "pydantic", "parsing", "type="):
            assert word not in text


@pytest.mark.parametrize(
    ("verb", "wrong", "meant"),
    [
        (fastdd.distill, "iteration", "iterations"),
        (fastdd.distill, "resum", "resume"),
        (fastdd.distill, "eval_evry", "eval_every"),
        (fastdd.Distillation, "lr_image", "lr_img"),
        (fastdd.estimate, "batchreal", "batch_real"),
        (fastdd.kde_weights, "varience", "variance"),
        (fastdd.pseudo_groups, "num_group", "num_groups"),
        (lambda data, **given: fastdd.train_experts(data, out="nowhere", **given), "epoch", "epochs"),
        (lambda data, **given: fastdd.data.load("c-digits", **given), "bias_ration", "bias_ratio"),
    ],
)
def test_misspelt_keywords_get_the_one_that_is_meant(verb, wrong, meant):
    with pytest.raises(ValueError, match=rf"{wrong}.*; did you mean {meant}\?$"):
        verb(fastdd.data.load("c-digits"), **{wrong: 3})
