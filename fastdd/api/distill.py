"""``distill``: condense a data set into a few synthetic images per class."""

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from fastdd.api.distillation import Distillation
from fastdd.api.initial import init_of_resumed
from fastdd.api.signature import keywords_of, with_keywords
from fastdd.data import Dataset, SyntheticSet
from fastdd.session import Callback, Progress

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from fastdd.api.arguments import DistillationArguments


@with_keywords(keywords_of(Distillation))
def distill(
    data: Dataset,
    *,
    out: str | os.PathLike | None = None,
    resume: bool = False,
    checkpoint_seconds: float = 30.0,
    progress: Callable[[Progress], None] | bool | None = None,
    embedding_progress: Callable[[int, int], None] | None = None,
    eval_progress: Callable[[dict[str, Any]], None] | None = None,
    callbacks: Sequence[Callback] = (),
    **arguments: "Unpack[DistillationArguments]",
) -> SyntheticSet:
    """Condense a data set into a few synthetic images per class.

    All that decides what comes out, or how long it takes, is checked before any of it is done
    (:class:`fastdd.Distillation`); :func:`fastdd.estimate` takes the same.

    Args:
        data: from :func:`fastdd.data.load`, or built by hand.
        out: run folder, for the set, a preview, metrics and checkpoints; None keeps everything in memory.
        resume: continue the run that ``out`` holds; the result is bit-identical to an uninterrupted run's.
        checkpoint_seconds: least time between two checkpoints.
        progress: True shows a bar on a terminal or in a notebook, and elsewhere a line every ten seconds (standard
            error); a function is called about once a second with a :class:`fastdd.session.Progress`.
        embedding_progress: called with (steps done, steps) while a bias embedding is trained for weights or groups.
        eval_progress: called with every row of the evaluations on the way: ``iteration``, and what
            :func:`fastdd.report.result_row` has but ``seconds``.
        callbacks: further :class:`fastdd.session.Callback`; the set must not depend on them.
        method: dm (distribution matching, the default), dc (gradient matching), dsa (the same with Siamese
            augmentation), or mtt (trajectory matching, which needs ``experts``).
        debias: none (the default); fairdd to match every protected group alike (fairdd-iw, fairdd-ldam and
            fairdd-groupdro are the weightings of its ablation); kde to let images count by ``weights``. That of mtt is
            its experts'.
        ipc: synthetic images per class; by default 10.
        device: auto (the default), cpu or cuda.
        weights: of the training images, for debias kde: from :func:`kde_weights`, an array [N] (at least 0, some above
            0 in every class), or the path of either (``.safetensors``, ``.npy``). None: those in the folder of a run
            that is resumed, else those of :func:`kde_weights` with its defaults.
        groups: in place of the training images' protected attribute: int64 [N] from 0, the path of such a ``.npy``, or
            kmeans or dbscan for those that :func:`pseudo_groups` finds.
        experts: of mtt, trained on ``data``: from :func:`train_experts`, or their folder. The network is theirs.
        eval_every: evaluate the set on the way, as :func:`evaluate` does with the run's seed: before the first step,
            after every so many iterations, and at the end. The figures go to ``evaluations.jsonl`` in ``out``, a row an
            evaluation. They are of the data set's test split (of validation images with its option ``val_split``), so
            that the best of them is no result. The set does not depend on them, nor does ``resume``, which goes on
            with other ``eval_`` arguments too.
        eval_nets: networks of each of these evaluations; by default 2.
        eval_epochs: of each network; by default as published. An evaluation takes ``eval_nets`` trainings of so many
            epochs on the set, with the published 1,000 often longer than the steps between two: two networks on 10
            images a class of ``c-digits`` 20 s on a core, as 500 iterations of dm do. :func:`estimate` knows.
        snapshots: how many times the set is kept on the way, as a set of its own below ``snapshots`` in ``out``: as it
            is at first, and after iterations from 1 to the last that are evenly spaced by their logarithms. The set
            does not depend on them.
        init: real (random training images), balanced (as many of every group) or noise; or a run folder, or the file
            of a synthetic set, one's own or imported, to go on from its images. Its classes go by their names; soft
            labels and a learned step size are not taken. A class with fewer training images than ``ipc`` gives all it
            has, and starts from noise for the rest, with a warning.
        **arguments: these and any other field of the method's :class:`fastdd.methods.Settings` (iterations, arch,
            batch_real, lr_img, dsa_strategy, sampling, seed ...); what is not given comes from the shipped presets.

    Returns:
        The synthetic set: normalised float32 images, labels, and metadata that says how to use them; with mtt also the
        learned step size, soft labels and ZCA where there are any.

    Raises:
        TypeError: data that is not a data set, or callbacks that are none.
        ValueError: settings that are unknown or do not fit the data, or an ``out`` that holds another run.
        RuntimeError: a loss that is not finite, or a GPU that is not there.

    >>> import fastdd
    >>> data = fastdd.data.load("c-digits")
    >>> synthetic = fastdd.distill(data, debias="fairdd", ipc=1, iterations=2, width=8)
    >>> synthetic.images.shape
    torch.Size([10, 3, 16, 16])
    """
    if resume and "init" in arguments:
        arguments["init"] = init_of_resumed(arguments["init"], out)
    return Distillation(data, **arguments).run(
        out=out,
        resume=resume,
        checkpoint_seconds=checkpoint_seconds,
        progress=progress,
        embedding_progress=embedding_progress,
        eval_progress=eval_progress,
        callbacks=callbacks,
    )
