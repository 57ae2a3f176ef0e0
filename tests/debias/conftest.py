"""Digits of which 5 % conflict with the bias, and what is made of them in seconds."""

import pytest

import fastdd


@pytest.fixture(scope="session")
def digits():
    return fastdd.data.load("c-digits", bias_ratio=0.95)


@pytest.fixture(scope="session")
def weighed(digits):
    """Weights at the defaults, with their embeddings."""
    return fastdd.kde_weights(digits)
