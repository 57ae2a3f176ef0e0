"""What happens beside the steps of a run: logs, progress, checkpoints, evaluations, and whatever a user adds.

A callback is a subclass of :class:`Callback`; ``fastdd.distill(callbacks=[...])`` takes them.

>>> class Losses(Callback):
...     def __init__(self):
...         self.seen = []
...     def losses(self, run, first, values):
...         self.seen += values
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastdd.core import ranks
from fastdd.core.malloc import give_back
from fastdd.data import SyntheticSet
from fastdd.session.folder import EVALUATIONS, METRICS, State

if TYPE_CHECKING:
    from fastdd.session.run import Run


class Callback:
    """Is told where a run is. Everything is called on all ranks of a job, in the order of the callbacks.

    ``run.step``, ``run.iteration``, ``run.loss``, ``run.seconds`` and ``run.synthetic()`` tell where it is;
    ``run.stop.set()`` ends it after a checkpoint, with a KeyboardInterrupt, from which ``resume`` goes on.

    Attributes:
        agreement: what must be the same on all ranks of a job.
    """

    agreement: Sequence[Any] = ()

    def begins(self, run: "Run") -> None:
        """The loop is about to begin, or to go on: ``run.step`` says where."""

    def ends(self, run: "Run") -> None:
        """The loop has ended, done or not; called once after every :meth:`begins`."""

    def evaluated(self, run: "Run", row: Mapping[str, Any]) -> None:
        """The set has been evaluated on the way; the row is the one of ``evaluations.jsonl``."""

    def pauses(self, run: "Run") -> bool:
        """Whether the run shall pause here (:meth:`paused`), after its start or a step: a function of ``run.step``."""
        return False

    def paused(self, run: "Run") -> None:
        """The run pauses, after reading losses and a checkpoint; its time stands still."""

    def losses(self, run: "Run", first: int, values: list[float]) -> None:
        """Losses of steps from ``first`` on have been read: about once a second, before checkpoints, and at the end."""

    def wants_checkpoint(self, run: "Run") -> bool:
        """Whether the state should be saved after this step; that of rank 0 counts."""
        return False

    def checkpoint(self, run: "Run") -> None:
        """The state of all classes is here, to be saved."""

    def waits(self, run: "Run") -> None:
        """A callback begins, in a pause, what takes its time."""


@dataclass(frozen=True)
class Progress:
    """Where a run is.

    Attributes:
        step: matching steps done.
        total: matching steps of the run.
        loss: of the last step; NaN before the first of this start.
        seconds: spent in the loop so far, over all starts; evaluations do not count.
        evaluating: whether an evaluation begins, which takes its time.
    """

    step: int
    total: int
    loss: float
    seconds: float
    evaluating: bool = False


class Report(Callback):
    """Calls a function with a :class:`Progress`, about once a second and at the end, on rank 0."""

    def __init__(self, function: Callable[[Progress], None]):
        self._function = function

    def losses(self, run: "Run", first: int, values: list[float]) -> None:
        self._report(run, evaluating=False)

    def waits(self, run: "Run") -> None:
        self._report(run, evaluating=True)

    def _report(self, run: "Run", *, evaluating: bool) -> None:
        if ranks.rank() == 0:
            self._function(Progress(run.step, run.total, run.loss, run.seconds, evaluating))


class Log(Callback):
    """Writes every step's loss to the run's ``metrics.jsonl``."""

    def losses(self, run: "Run", first: int, values: list[float]) -> None:
        rows = [{"step": first + i, "loss": value} for i, value in enumerate(values)]
        ranks.first(lambda: run.folder.log(METRICS, rows))


class Checkpoint(Callback):
    """Saves the state to the run's folder, at least ``seconds`` after the last time, and at the end."""

    def __init__(self, seconds: float):
        self.agreement = (seconds,)
        self._seconds, self._saved_at = seconds, None

    def wants_checkpoint(self, run: "Run") -> bool:
        if self._saved_at is None:
            self._saved_at = run.started_at
        return run.clock() - self._saved_at >= self._seconds

    def checkpoint(self, run: "Run") -> None:
        seconds = run.seconds
        ranks.first(lambda: run.folder.save(State(run.step, run.method.state(), seconds)))
        give_back()
        run.saved_step, self._saved_at = run.step, run.clock()


class Curve(Callback):
    """Evaluations of the synthetic set while a run goes on. What the run makes does not depend on them.

    The set is evaluated before the first step, after every ``every`` iterations, and as it is at the end; not again
    where a run is resumed with the figures of an iteration in its folder.

    Args:
        every: iterations from one evaluation to the next.
        evaluate: the figures of a set, JSON-able; called on all ranks.
        progress: called with every row (``iteration``, those done, and the figures), on rank 0.
    """

    def __init__(
        self,
        every: int,
        evaluate: Callable[[SyntheticSet], Mapping[str, Any]],
        progress: Callable[[dict[str, Any]], None] | None = None,
    ):
        self.agreement = (every,)
        self._every, self._evaluate, self._progress = every, evaluate, progress
        self._done: set[int] = set()

    def pauses(self, run: "Run") -> bool:
        if run.step % run.steps_per_iteration and run.step != run.total:
            return False
        if run.iteration in self._done | run.evaluated:
            return False
        return run.step == run.total or run.iteration % self._every == 0

    def paused(self, run: "Run") -> None:
        run.tell("waits")
        try:
            with run.stop.at_once():
                row = {"iteration": run.iteration, **self._evaluate(run.synthetic())}
        except KeyboardInterrupt:
            raise run.stopped(", in the evaluation there") from None
        if run.out is not None:
            ranks.first(lambda: run.folder.log(EVALUATIONS, [row]))
        run.tell("evaluated", row)
        self._done.add(run.iteration)
        if self._progress and ranks.rank() == 0:
            self._progress(row)
