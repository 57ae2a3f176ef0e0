"""Names that the substitute lacks."""

from typing import NoReturn


class _Missing(type):
    """A class that can be named, imported and derived from; to use it is an error that says what is missing."""

    def __call__(cls, *_: object, **__: object) -> NoReturn:
        raise ImportError(f"{cls.__name__} needs torchvision, which is not installed")

    def __getattr__(cls, name: str) -> "_Missing":
        if name.startswith("__"):
            raise AttributeError(name)
        return _Missing(f"{cls.__name__}.{name}", (), {})


def missing(name: str) -> type:
    """What stands for ``name``, such as ``transforms.ColorJitter``."""
    # What Python and pytest ask every module for is no name of torchvision's.
    if name.rpartition(".")[2].startswith(("__", "pytest_")):
        raise AttributeError(name)
    return _Missing(name, (), {})
