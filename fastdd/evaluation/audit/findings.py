"""What an audit finds: plain values, which JSON holds and a report reads back. Shares are of 1, information in bits."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ClassOfData:
    """A class of the training images.

    Attributes:
        name: the class's.
        counts: images of every group.
        majority: number of its largest group, whose images are bias-aligned.
        majority_share: N_aligned / (N_aligned + N_conflicting), the biased rate (Biased-DD, equation 1).
    """

    name: str
    counts: tuple[int, ...]
    majority: int
    majority_share: float


@dataclass(frozen=True)
class Augmented:
    """Training images with fake ones of equal marginals, as From Fake to Real uses them.

    Attributes:
        use: none, usb, asb, or ffr-1 and ffr-2, its stages.
        images: real and fake.
        information: I(Y; B).
        with_source: I(Y; (B, G)), G whether an image is real or fake.
    """

    use: str
    images: int
    information: float
    with_source: float


@dataclass(frozen=True)
class DataBias:
    """What bias is in the training images.

    Attributes:
        classes: one a class.
        group_names: of the groups.
        images: how many.
        majority_share: bias-aligned images of all.
        information: I(Y; B).
        condensed: IPC (10, 50 and 100) and the share of the training set that so many a class are (FairDD, table 8).
        augmented: what fake images make of I(Y; B).
    """

    classes: tuple[ClassOfData, ...]
    group_names: tuple[str, ...]
    images: int
    majority_share: float
    information: float
    condensed: tuple[tuple[int, float], ...]
    augmented: tuple[Augmented, ...]


@dataclass(frozen=True)
class Probe:
    """The network that tells an image's group.

    Attributes:
        accuracy: percent, of held-out training images, a mean over (class, group): a probe that goes by the class has
            that of guessing.
        guessing: percent, that of a guess.
        needed: percent, below which it says nothing.
        held_out: images that it was tested on.
    """

    accuracy: float
    guessing: float
    needed: float
    held_out: int

    @property
    def tells(self) -> bool:
        """Whether it tells groups well enough."""
        return self.accuracy >= self.needed


@dataclass(frozen=True)
class ClassOfSet:
    """A class of the synthetic set; None where there is no such figure.

    Attributes:
        images: that networks see.
        shares: the probe's mean probability of every group.
        majority_share: that of the group that is the majority of the class in the data.
        conflicting: share of images that the probe takes to be of another group than that.
        entropy: of ``shares``; log2 of the number of groups where all are alike.
        position: where the class's mean lies: 0 at the optimum of vanilla matching, 1 at that of fair matching.
        position_std: over random networks.
        residual: how far off the line through the two, in units of their distance.
        coverage: share of the real images of every group that the class's synthetic ones cover.
        coverage_of_random: what as many random real images of the class are expected to cover of them.
    """

    images: int
    shares: tuple[float, ...] | None
    majority_share: float | None
    conflicting: float | None
    entropy: float | None
    position: float | None
    position_std: float | None
    residual: float | None
    coverage: tuple[float | None, ...]
    coverage_of_random: tuple[float | None, ...]


@dataclass(frozen=True)
class Bound:
    """Matching losses of the set for a distance of means, over random networks; sums over dimensions and classes.

    Attributes:
        distance: mse, mae or cosine.
        vanilla: L: to the mean of the class.
        fair: L_FairDD: to the means of its groups, summed.
        holds: whether ``fair`` is no less than ``vanilla``, of every network (FairDD, theorem 5.2: for convex
            distances; cosine's is not).
        to_mean: distance to the mean of the groups' means.
        to_median: to their coordinate-wise median, which is where L_FairDD is least for mae.
    """

    distance: str
    vanilla: float
    fair: float
    holds: bool
    to_mean: float
    to_median: float


@dataclass(frozen=True)
class SetBias:
    """What bias is in a synthetic set; None where the probe does not tell groups.

    Attributes:
        classes: one a class of the data.
        images: that networks see.
        condensed_ratio: stored images, of the training images.
        probe: what tells groups.
        groups: of every image that networks see, the group that the probe takes it to be of; image after image, and of
            one that holds several (multi-formation) part after part.
        certainty: of every one, the probe's probability of that.
        majority_share: mean probability of the class's majority in the data.
        conflicting: share of images of another group than that.
        information: I(Y; B), of the probe's probabilities.
        by_chance: what I(Y; B) of as many images is where classes and groups are independent (Miller and Madow).
        position: mean over classes.
        bounds: one a distance.
        nets: random networks that positions, bounds and coverage are over.
    """

    classes: tuple[ClassOfSet, ...]
    images: int
    condensed_ratio: float
    probe: Probe
    groups: tuple[int, ...] | None
    certainty: tuple[float, ...] | None
    majority_share: float | None
    conflicting: float | None
    information: float | None
    by_chance: float
    position: float | None
    bounds: tuple[Bound, ...]
    nets: int


@dataclass(frozen=True)
class Audit:
    """What :func:`fastdd.audit` finds.

    Attributes:
        dataset: name of the data set.
        data: of its training images.
        of_set: of the synthetic set, where one was given.

    Raises:
        ValueError: parts that are not of the same classes, groups and images.
    """

    dataset: str
    data: DataBias
    of_set: SetBias | None = None

    def __post_init__(self):
        classes, groups = self.data.classes, len(self.data.group_names)
        sizes = [len(one.counts) for one in classes]
        in_range = [one.majority for one in classes]
        made = self.of_set
        if made is not None:
            rows = made.classes
            of_groups = [row for one in rows for row in (one.shares, one.coverage, one.coverage_of_random)]
            sizes += [len(row) for row in of_groups if row is not None]
            in_range += made.groups or ()
            lengths = {len(row) for row in (made.groups, made.certainty) if row is not None}
            if len(rows) != len(classes) or not lengths <= {made.images}:
                raise ValueError(f"{len(rows)} classes and groups of {lengths} images: not of {len(classes)} classes")
        if not classes or set(sizes) != {groups} or not all(0 <= group < groups for group in in_range):
            raise ValueError(f"figures are not of {groups} groups")

    def __repr__(self) -> str:
        groups = len(self.data.group_names)
        made = "" if self.of_set is None else f", and a synthetic set of {self.of_set.images} images"
        return f"Audit({self.dataset!r}, {len(self.data.classes)} classes, {groups} groups{made})"

    @property
    def doubts(self) -> list[str]:
        """What a reader of the figures must know, a line each."""
        probe = None if self.of_set is None else self.of_set.probe
        if probe is None or probe.tells:
            return []
        return [
            f"the probe tells the groups of held-out images with an accuracy of {probe.accuracy:.1f} % (guessing "
            f"{probe.guessing:.1f} %), below {probe.needed:g} %: of the groups in the set nothing is said; give it "
            "more probe steps, or a lower probe accuracy"
        ]
