"""What goes into a rule and what comes out: Report, Action, Decision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal, NamedTuple

OnNonfinite = Literal["worst", "stop", "ignore"]
OnMissing = Literal["raise", "skip"]
Mode = Literal["min", "max"]


class Action(Enum):
    """What a decision asks for; STOP beats PAUSE beats CONTINUE."""

    CONTINUE = "CONTINUE"
    PAUSE = "PAUSE"
    STOP = "STOP"

    @property
    def severity(self) -> int:
        """0 for CONTINUE, 1 for PAUSE, 2 for STOP."""
        return _SEVERITY[self]


_SEVERITY = {Action.CONTINUE: 0, Action.PAUSE: 1, Action.STOP: 2}


class MissingMetricError(LookupError):
    """No report of the sweep has carried a metric that a rule reads."""


class Report(NamedTuple):
    """One evaluation as a rule sees it."""

    trial_id: str
    step: float  # the value of `time_attr`
    loss: float | None  # the objective, lower is better; None: this report does not carry it
    metrics: Mapping[str, float] = {}  # the other metrics that the rule says it reads, flat keys


class _InUnits:
    """A number that `{x:loss}` prints in the user's units: negated under mode="max"."""

    __slots__ = ("sign", "value")

    def __init__(self, value: Any, sign: int) -> None:
        self.value, self.sign = value, sign

    def __format__(self, spec: str) -> str:
        if spec == "loss":
            return f"{self.sign * self.value + 0.0:.6g}"  # + 0.0: never "-0"
        return format(self.value, spec or (".6g" if isinstance(self.value, float) else ""))


@dataclass(slots=True)  # not frozen: that would make one dearer
class Decision:
    """An action with its reason; deciding not to stop has a reason too.

    `text` may refer to `numbers` as a format string. `{best:loss}` marks a value in loss units,
    which is shown with its sign changed back when the metric is maximised, so that texts speak of
    "past", "better" and "worse" and never of "above" and "below".
    """

    action: Action
    text: str
    rule: str = ""
    numbers: Mapping[str, Any] = field(default_factory=dict)
    ends_sweep: bool = False  # a STOP that ends every trial
    parts: tuple[Decision, ...] = ()  # what a combinator combined
    sign: int | None = None  # of a metric that is not the objective (`On`): says it in its units

    def __post_init__(self) -> None:
        if not self.text:
            raise ValueError("A decision needs a reason, got an empty text.")

    @property
    def reason(self) -> str:
        """The reason in loss units."""
        return self.say()

    def say(self, sign: int = 1) -> str:
        """The reason; `sign=-1` puts losses back into the units of a maximised metric."""
        sign = sign if self.sign is None else self.sign
        if self.parts:
            listed = "; ".join(f"{part.rule}: {part.say(sign)}" for part in self.parts)
            return f"{self.text} ({listed})"
        if not self.numbers:
            return self.text
        shown = {k: _InUnits(v, sign) for k, v in self.numbers.items()}
        return self.text.format_map(shown)

    def plain_numbers(self) -> dict[str, Any]:
        """The numbers compared, for the journal; a combinator's are in a list under `parts`."""
        mine = {k: v for k, v in self.numbers.items() if isinstance(v, (int, float, str))}
        parts = [{"rule": part.rule} | part.plain_numbers() for part in self.parts]
        return mine | ({"parts": parts} if parts else {})
