"""``explain``: what a trained network has learned, by its features and by what its predictions rest on."""

import os
from collections.abc import Callable

from fastdd.api.checks import check_dataset
from fastdd.api.device import pick_device
from fastdd.data import Dataset
from fastdd.session.explanation import Explanation, explain_network
from fastdd.session.trained import StoredNetwork, read_network


def explain(
    network: str | os.PathLike | StoredNetwork,
    data: Dataset,
    *,
    features: int = 2000,
    projection: str = "tsne",
    images: int = 20,
    of: str = "own",
    masks: int = 2000,
    cells: int | None = None,
    seed: int = 0,
    device: str = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> Explanation:
    """What a trained network has learned: do its features follow classes or groups, and what do predictions rest on.

    Features are what the network's last layer sees of test images; how far classes and groups are apart in them are the
    silhouettes, and t-SNE shows it (FairDD's figure 3). Saliency is RISE's (:func:`fastdd.evaluation.saliency.rise`) of
    each image's own class, as in figures 1 and 5 of From Fake to Real, or of the class that the network takes it for,
    and where the data set knows which pixels are the object, the share of it inside.

    Args:
        network: a file that :func:`evaluate` (``keep_nets``) or :func:`train_network` kept, or the folder: the first.
        data: the data set that it was trained for; its test images are looked at.
        features: test images whose features are looked at, at most.
        projection: of the features in the plane: tsne, pca, or none.
        images: test images that saliency is of, as many of every class; 0 for none.
        of: the class of an image that saliency is of: own or predicted.
        masks: of RISE; the noise of a map falls with their square root.
        cells: of a mask, a side; by default 7, as published, or 4 for images of less than 64 pixels.
        seed: which test images, and the masks.
        device: auto, cpu or cuda.
        progress: called with (forward passes of RISE done, all).

    Raises:
        TypeError: data that is not a data set.
        ValueError: a network of other images or classes, another projection, or numbers out of range.
        FileNotFoundError: there is no network.

    Cost: ``features`` + ``images`` * ``masks`` forward passes, and t-SNE of ``features`` points: 10 s for 2,000.
    Deterministic on a machine and thread count.

    >>> import fastdd, tempfile
    >>> data = fastdd.data.load("c-digits")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     trained = fastdd.evaluate("random", data, ipc=1, nets=1, epochs=1, width=4, keep_nets=folder)
    ...     found = fastdd.explain(folder, data, features=50, projection="pca", images=1, masks=8)
    >>> found.plane.shape, found.saliency.raw.shape, len(found.inside)
    ((50, 2), (1, 16, 16), 1)
    """
    check_dataset(data)
    stored = network if isinstance(network, StoredNetwork) else read_network(network)
    return explain_network(
        stored,
        data,
        pick_device(device),
        features=features,
        projection=projection,
        images=images,
        of=of,
        masks=masks,
        cells=cells,
        seed=seed,
        progress=progress,
    )
