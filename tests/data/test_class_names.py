"""Classes of a synthetic set in a data set's numbers."""

import pytest
import torch

from fastdd.data.class_names import places, renumbered


@pytest.mark.parametrize(
    ("own", "of_data", "expected"),
    [
        (["a", "b"], ["a", "b"], [0, 1]),
        (["a", "b"], ["b", "a"], [1, 0]),
        (["0", "1", "10", "2"], [str(number) for number in range(11)], [0, 1, 10, 2]),
        (["Cat ", "t-shirt_top"], ["T-shirt/top", "cat"], [1, 0]),
        (["A", "a"], ["a", "A"], [1, 0]),
        (["+", "-"], ["-", "+"], [1, 0]),
        (["0", "1"], ["cat", "dog"], [0, 1]),
        (["01", "00"], ["cat", "dog"], [1, 0]),
        (["cat", "dog"], ["0", "1"], None),
    ],
)
def test_classes_go_by_their_names(own, of_data, expected):
    assert places(own, of_data) == expected


@pytest.mark.parametrize(
    ("own", "stray"), [(["cat", "ant"], "'ant'"), (["7", "1"], "'7'"), (["cat", "CAT"], "'cat'"), (["cat", "1"], "'1'")]
)
def test_others_are_refused_by_name(own, stray):
    with pytest.raises(ValueError, match=rf"^{stray} is no class of the data set \(cat, dog\), .*rename"):
        places(own, ["cat", "dog"])


def test_labels_and_soft_labels_are_renumbered():
    soft = torch.tensor([[0.75, 0.25], [0.5, 0.5]])
    labels, moved = renumbered(torch.tensor([0, 1]), soft, [2, 0], 3)
    assert labels.tolist() == [2, 0]
    assert moved.tolist() == [[0.25, 0, 0.75], [0.5, 0, 0.5]]
