"""How a network is trained on images that may be biased, one recipe a file: a line of :data:`RECIPES` each."""

from fastdd.training.base import Recipe, Settings, TrainingImages
from fastdd.training.recipes import RECIPES, constants, recipe, start
from fastdd.training.settings import TrainSettings
from fastdd.training.volumes import draw_fakes, fake_counts, joined

__all__ = [
    "RECIPES",
    "Recipe",
    "Settings",
    "TrainSettings",
    "TrainingImages",
    "constants",
    "draw_fakes",
    "fake_counts",
    "joined",
    "recipe",
    "start",
]
