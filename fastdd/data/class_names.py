"""Which class of a data set a class of a synthetic set is: by its name, as numbers depend on someone's order."""

import re
import unicodedata
from collections.abc import Sequence

import torch
from torch import Tensor

from fastdd.data.sets.imagenet import SUBSETS

_WORDNET = {number: name for classes in SUBSETS.values() for number, name in classes.items()}
_SHOWN = 4


def places(own: Sequence[str], of_data: Sequence[str], kind: str = "class") -> list[int] | None:
    """The number in the data set of each class of a set.

    Names are the same if they are but for case, and for what is neither letter nor digit (a folder can't be called
    T-shirt/top); ImageNet's by their WordNet numbers too. A set whose classes are called by numbers, as they are where
    a file names none, goes by these.

    Args:
        own: names of the set's classes.
        of_data: of the data set's.
        kind: ``class``, or ``group``, of which the same holds.

    Returns:
        None if the data set's classes are called by their numbers, but the set's are not.

    Raises:
        ValueError: a class that the data set does not have.

    >>> places(["dog", "cat"], ["cat", "cow", "dog"])
    [2, 0]
    >>> places(["0", "10", "2"], ["cat", "dog"] * 6)
    [0, 10, 2]
    """
    if list(own) == list(of_data):
        return list(range(len(own)))
    for look in (str, _look):
        place = {look(name): number for number, name in enumerate(of_data)}
        looks = [look(name) for name in own]
        if len(place) == len(of_data) and len(set(looks)) == len(own) and place.keys() >= set(looks):
            return [place[name] for name in looks]
    if all(name.isdecimal() for name in own):
        numbers = [int(name) for name in own]
        if max(numbers) < len(of_data) and len(set(numbers)) == len(own):
            return numbers
    if list(of_data) == [str(number) for number in range(len(of_data))]:
        return None
    stray = next((name for name in own if _look(name) not in set(map(_look, of_data))), own[0])
    plural = {"class": "classes", "group": "groups"}[kind]
    raise ValueError(
        f"{stray!r} is no {kind} of the data set ({_listed(of_data)}), and {plural} go by their names: rename the "
        "set's as the data set's, or number them from 0 as it does"
    )


def renumbered(labels: Tensor, soft: Tensor | None, place: Sequence[int], classes: int) -> tuple[Tensor, Tensor | None]:
    """Labels, and soft labels, of a set in the numbers of :func:`places`.

    Args:
        labels: int64 [M].
        soft: [M, len(place)] or None; of another width, they are of the data set's classes already.
        place: of :func:`places`.
        classes: of the data set.
    """
    numbers = torch.tensor(place, device=labels.device)
    if soft is not None and soft.shape[1] == len(place):
        soft = soft.new_zeros(len(soft), classes).index_copy(1, numbers, soft)
    return numbers[labels], soft


def _look(name: str) -> str:
    """What is left of a name whose spelling does not matter; itself if that is nothing."""
    known = unicodedata.normalize("NFKC", _WORDNET.get(name, name)).casefold()
    return re.sub(r"[\W_]+", " ", known).strip() or name


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
