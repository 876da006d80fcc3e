"""From what a framework logs to what a rule sees: numbers, nested keys, direction, absence."""

import difflib
import inspect
import logging
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from numbers import Real
from typing import Any, Protocol

from tune_stoppers.core import (
    MissingMetricError,
    Mode,
    OnMissing,
    Report,
    require,
    require_choice,
)

logger = logging.getLogger("tune_stoppers")

LONGEST_NUMBER = 1000  # characters of a text that is read as a number
_WORDS = re.compile(r"[^\W_]+")
MAY_SKIP = 'If it comes later, or not from all: on_missing="skip".'  # of a missing metric
_BY_REWARDS = "TRL logs it in GRPOTrainer and RLOOTrainer"
LOGGED_WHERE = {  # what turns a metric on that a Trainer may not log, by the name's beginning
    "kl": f"{_BY_REWARDS}, with beta above 0: GRPOConfig(beta=0.04)",
    "rewards/": "TRL logs it in DPOTrainer",
    "reward": _BY_REWARDS,
    "frac_reward_zero_std": _BY_REWARDS,
    "completions/": _BY_REWARDS,
    "entropy": "TRL's trainers log it, the Trainer of transformers does not",
}


def number(value: Any) -> float | None:
    """`value` as a float, or None if it is anything but one real number.

    Python, numpy and torch scalars and arrays of one element are numbers; strings, None and
    larger arrays are not. An integer too large for a float is an infinity.
    """
    if type(value) is float:
        return value
    if not _is_real(value):
        if not callable(getattr(value, "item", None)):
            return None
        try:
            value = value.item()  # numpy and torch
        except (ValueError, RuntimeError):
            return None  # more than one element
        if not _is_real(value):
            return None
    try:
        return float(value)
    except OverflowError:
        return -math.inf if str(value).startswith("-") else math.inf


def recorded(value: Any) -> float | None:
    """`value`, as Ray wrote it to `result.json`, as the number that it was when it was reported.

    Ray writes an array as a list, a NaN of numpy's as "null", and a `Fraction`, a `Decimal` or a
    tensor as its text (of a tensor, four digits). None where `number` would have had none. A text
    that only looks like one of these cannot be told from it.
    """
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, str):
        return number(value)
    if value == "null":
        return math.nan
    tensor = _TENSOR.fullmatch(value) if len(value) <= LONGEST_NUMBER else None
    text = tensor[1] if tensor else value
    if len(text) > LONGEST_NUMBER or not _NUMERAL.fullmatch(text):
        return None
    try:
        return number(Fraction(text) if "/" in text else float(text))
    except ZeroDivisionError:
        return None


_NUMERAL = re.compile(r"[+-]?(?:\d+/\d+|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|nan|NaN|inf|Infinity)")
_TENSOR = re.compile(r"tensor\(\[*([^\[\],() ]+)\]*(?:, \w+=[^()]*)?\)")


def _is_real(value: Any) -> bool:
    return type(value) is int or isinstance(value, (Real, Decimal))  # the first is much cheaper


def lookup(result: Mapping[str, Any], key: str) -> Any:
    """The value at `key` in a flat ("eval/loss") or nested (["eval"]["loss"]) mapping, or None.

    Lists are entered by index, and keys that are integers by their digits: "report/0/f1".
    """
    if key in result:
        return result[key]
    cut = key.find("/")
    while cut != -1:
        inner = _item(result, key[:cut])
        if inner is not None:
            found = _lookup_in(inner, key[cut + 1 :])
            if found is not None:
                return found
        cut = key.find("/", cut + 1)
    return _item(result, key)


def _lookup_in(inner: Any, key: str) -> Any:
    if isinstance(inner, (list, tuple)):
        inner = dict(enumerate(inner))
    return lookup(inner, key) if isinstance(inner, Mapping) else None


def _item(result: Mapping[Any, Any], name: str) -> Any:
    found = result.get(name)
    return result.get(int(name)) if found is None and _is_index(name) else found


def _is_index(name: str) -> bool:
    return name.isascii() and name.isdecimal() and len(name) < 10


def flat_keys(result: Mapping[str, Any], prefix: str = "", *, lists: bool = False) -> list[str]:
    """All keys of a nested mapping, joined with "/"; with `lists` those inside of lists too."""
    keys: list[str] = []
    for key, value in result.items():
        name = f"{prefix}{key}"
        inner: Any = value
        if lists and isinstance(value, (list, tuple)):
            inner = dict(enumerate(value))
        if isinstance(inner, Mapping) and inner:
            keys += flat_keys(inner, f"{name}/", lists=lists)
        else:
            keys.append(name)
    return keys


def sign_of(mode: Mode) -> int:
    """1 for "min", -1 for "max": what a metric is multiplied with to become a loss."""
    return 1 if mode == "min" else -1


def check_metric(owner: str, metric: object, mode: object) -> None:
    """Raise unless `metric` is a name and `mode` is given: it is never guessed."""
    if not isinstance(metric, str):
        raise TypeError(f"{owner} needs metric, the name of what trials report, got {metric!r}.")
    require(bool(metric), f"{owner} needs metric, the name of what trials report, got ''.")
    require_choice(f"{owner} mode", mode, ("min", "max"))


class Reads(Protocol):
    """What of a rule says which metrics it reads."""

    @property
    def reads(self) -> tuple[str, ...]: ...
    @property
    def needs_objective(self) -> bool: ...
    @property
    def optional_metrics(self) -> tuple[str, ...]: ...


@dataclass
class MetricReader:
    """Reads a rule's metrics out of results, and knows what to do when one is absent.

    Under "raise", a metric that no report of the sweep has carried yet raises
    `MissingMetricError`; later, and under "skip", a report without it is neutral to the rule,
    with one warning per trial. One that the rule can do without is neutral always, with one
    warning.
    """

    owner: str  # named in messages
    rule: Reads
    metric: str | None  # None: the rule reads no objective
    mode: Mode = "min"
    on_missing: OnMissing = "raise"
    hidden: frozenset[str] = frozenset()  # keys of the framework, left out of messages
    seen: set[str] = field(default_factory=set)  # metrics that some report has carried
    warned: set[str] = field(default_factory=set)  # trials warned about
    expected: frozenset[str] = frozenset()  # known to be reported at times: neutral, without a word
    gone_without: set[str] = field(default_factory=set)  # optional ones warned about

    def __post_init__(self) -> None:
        if self.rule.needs_objective:
            check_metric(self.owner, self.metric, self.mode)
        require_choice(f"{self.owner} on_missing", self.on_missing, ("raise", "skip"))
        self._reads, self._sign = self.rule.reads, sign_of(self.mode)

    @property
    def sign(self) -> int:
        """What the metric is multiplied with to become a loss."""
        return self._sign

    def read(self, trial_id: str, step: float, result: Mapping[str, Any]) -> Report:
        """The report that the rule sees."""
        loss = self.value(trial_id, result, self.metric) if self.metric is not None else None
        loss = None if loss is None else self._sign * loss
        if not self._reads:
            return Report(trial_id, step, loss)  # no mapping of its own for each trial to keep
        metrics: dict[str, float] = {}
        for key in self._reads:
            value = self.value(trial_id, result, key)
            if value is not None:
                metrics[key] = value
        return Report(trial_id, step, loss, metrics)

    def value(self, trial_id: str, result: Mapping[str, Any], key: str) -> float | None:
        """The number at `key`, or None where it is absent and that is neutral."""
        value = result[key] if key in result else lookup(result, key)
        value = value if type(value) is float else number(value)
        if value is not None:
            self.seen.add(key)
            return value
        if key in self.expected:
            return None
        if key in self.rule.optional_metrics:
            if key not in (*self.seen, *self.gone_without):
                self.gone_without.add(key)
                absent = self._absent(trial_id, result, key)
                logger.warning("%s Rules on it judge nothing until it is reported.", absent)
            return None
        if key not in self.seen and self.on_missing == "raise":
            raise MissingMetricError(f"{self._absent(trial_id, result, key)} {MAY_SKIP}")
        if trial_id not in self.warned:
            self.warned.add(trial_id)
            logger.warning("%s Such reports are left out.", self._absent(trial_id, result, key))
        return None

    def _absent(self, trial_id: str, result: Mapping[str, Any], key: str) -> str:
        found = lookup(result, key)
        keys = flat_keys(result, lists=True)
        present = sorted(k for k in keys if k.split("/")[0] not in self.hidden)
        if found is not None:
            problem = f"{key!r} is no number but {type(found).__name__} {str(found)[:40]!r}"
        else:
            problem = f"{key!r} is {None if key in present else 'missing'}"
        hint = "" if key in present else closest(key, present)
        return (
            f"{self.owner}: {problem} in the report of trial {trial_id}. "
            f"It has: {', '.join(present[:20]) or 'nothing'}"
            f"{', …' if len(present) > 20 else ''}.{hint}{where_logged(key)}"
        )


def where_logged(name: str) -> str:
    """' … logs it …' for a metric that has to be turned on, or an empty string."""
    bare = name.removeprefix("eval_")
    found = (text for start, text in LOGGED_WHERE.items() if bare.startswith(start))
    return next((f" {text}." for text in found), "")


def closest(name: str, known: Iterable[str]) -> str:
    """' Did you mean …?' for the known name closest to `name`, or an empty string.

    One that has all words of the other, and the same last one, is close, as the Trainer's
    "eval_f1" is to "f1"; so are, where there are several, "eval_a_f1" and "eval_b_f1".
    """
    known = list(known)
    ends = [other for other in known if other != name and _has_its_words(name, other)]
    if ends and not any(other.lower() == name.lower() for other in known):
        shortest = sorted(sorted(ends, key=len)[:3])
        return f" Did you mean {' or '.join(map(repr, shortest))}?"
    match = difflib.get_close_matches(name, known, n=1)
    match = match or [other for other in known if other.lower() == name.lower()][:1]
    return f" Did you mean {match[0]!r}?" if match else ""


def _has_its_words(name: str, other: str) -> bool:
    """Whether one has all words of the other in their order, and the same last one."""
    words = (_WORDS.findall(name.lower()), _WORDS.findall(other.lower()))
    short, long = sorted(words, key=len)
    rest = iter(long)
    return bool(short) and short[-1] == long[-1] and all(word in rest for word in short)


def unknown_keyword(kind: type, base: type, name: str) -> str:
    """What to say of a keyword that neither the class `kind` nor its `base` takes."""
    signatures = (inspect.signature(k.__init__) for k in (kind, base))  # type: ignore[misc]
    taken = {key for signature in signatures for key in signature.parameters}
    known = sorted(taken - {"self", "rule", "common", "unknown"})
    return f"{kind.__name__} has no parameter {name!r}.{closest(name, known)} It takes: " + (
        ", ".join(known) + "."
    )
