"""When a LightningModule has logged what there is to decide on, and what that is."""

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from tune_stoppers.metrics import closest, number

LR = "lr"
_SHOWN = 30  # of the names that a message could list
_OF_VALIDATION = ("val", "eval", "test")  # how such names begin


class LoggedMetrics:
    """What has been logged so far, and which of it is new.

    `Trainer.callback_metrics` keeps every metric that was ever logged. What is logged anew is a new
    tensor there, so that a value of an earlier validation is told from one of this.
    """

    def __init__(self) -> None:
        self.newest: dict[str, Any] = {}  # of everything
        self.fresh: dict[str, Any] = {}  # since the last report
        self.of_validation: set[str] = set()  # the names that validations log
        self._before: dict[str, Any] = {}

    def take(self, logged: Mapping[str, Any], *, validation: bool) -> None:
        """Remember what has been logged since the last look, by a validation or by training."""
        new = {name: value for name, value in logged.items() if self._before.get(name) is not value}
        self._before = dict(logged)
        if validation:
            self.of_validation |= new.keys()
        else:  # a name that both log is a validation's
            new = {name: value for name, value in new.items() if name not in self.of_validation}
        self.newest |= new
        self.fresh |= new

    def put(self, name: str, value: Any) -> None:
        """Take a value that is known without being logged, and always new."""
        self.newest[name] = self.fresh[name] = value
        self.of_validation.add(name)

    def is_fresh(self, name: str, *, within_epoch: bool) -> bool:
        """Whether there is a new value to decide on; within an epoch, of validations alone.

        What training logs is a mean over the epoch at its end, and one batch's before.
        """
        return name in self.fresh and (not within_epoch or name in self.of_validation)

    def missing(self, name: str) -> str:
        """That it is not logged, and the names that are."""
        present = sorted(self.newest)
        listed = ", ".join(present[:_SHOWN]) + (", …" if len(present) > _SHOWN else "")
        return f"{name!r} is not logged; so far there are: {listed or 'none'}.{self._near(name)}"

    def must_have_come(self, name: str, *, within_epoch: bool) -> bool:
        """Whether a name that no log has had yet is wrong, as far as a validation shows.

        Within an epoch another one may still come at its end.
        """
        if name in self.newest:
            return False
        return not within_epoch or bool(self._near(name)) or name.startswith(_OF_VALIDATION)

    def _near(self, name: str) -> str:
        return closest(name, sorted(self.newest))

    def state_dict(self) -> dict[str, Any]:
        """As JSON data; a validation may be saved before the epoch ends that it is judged at."""
        return {
            "newest": numbers(self.newest),
            "fresh": sorted(self.fresh),
            "of_validation": sorted(self.of_validation),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict()`."""
        self.newest = dict(state["newest"])
        self.fresh = {name: self.newest[name] for name in state["fresh"] if name in self.newest}
        self.of_validation = set(state["of_validation"])


def numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The metrics that are one number, as floats."""
    values = {name: number(value) for name, value in metrics.items()}
    return {name: value for name, value in values.items() if value is not None}


class ReportHooks(Callback):
    """Calls `report` once after each validation and at the end of each epoch, on every rank.

    A validation at the end of an epoch waits for the epoch's training metrics, so that both are
    one report. The sanity check, and what is evaluated outside `fit`, are none. The learning rate
    of the first parameter group is there as `lr`, unless the module logs one by that name.
    """

    logged: LoggedMetrics
    _validated = False  # since the last epoch ended

    def report(self, trainer: Trainer, module: LightningModule, *, within_epoch: bool) -> None:
        """To be written: look at `logged`."""
        raise NotImplementedError

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """What is new up to here was logged by training."""
        if _counts(trainer):
            self.logged.take(trainer.callback_metrics, validation=False)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """What is new now was logged by the validation."""
        if not _counts(trainer):
            return
        self._validated = True
        self.logged.take(trainer.callback_metrics, validation=True)
        if not trainer.is_last_batch:
            self._end_report(trainer, pl_module, within_epoch=True)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """All of the epoch has been logged."""
        self.logged.take(trainer.callback_metrics, validation=False)
        self._end_report(trainer, pl_module, within_epoch=False)
        self._validated = False

    def _end_report(self, trainer: Trainer, module: LightningModule, *, within_epoch: bool) -> None:
        if trainer.optimizers and LR not in trainer.callback_metrics:
            self.logged.put(LR, trainer.optimizers[0].param_groups[0]["lr"])
        self.report(trainer, module, within_epoch=within_epoch)
        self.logged.fresh = {}

    def awaits_validation(self, trainer: Trainer) -> bool:
        """Whether no validation has been made in this epoch though others will be."""
        return trainer.enable_validation and not self._validated


def _counts(trainer: Trainer) -> bool:
    return trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking
