"""What a sweep took and what stopping saved, in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tune_stoppers.report.data.totals import Totals
from tune_stoppers.report.scales import duration, short

OUTSIDE = (
    "no trial was at work: processes started, checkpoints were written, trials waited, or the "
    "sweep was interrupted"
)
BASIS = (
    "Saved: the steps that each stopped trial had left, at its time per step after its first "
    "report, or at the others' where it has only one: a start-up is paid once, however long a "
    "trial trains. {horizon} Trials that failed or have not ended count as neither."
)


def headline(totals: Totals, share: float) -> str:
    """What part was saved."""
    if totals.all_unknown:
        return "not known what was saved"
    if math.isnan(share):
        return "nothing measured"
    return f"{'at least ' if totals.unknown else ''}{share:.0%} saved"


def told(totals: Totals, reports: int, time_attr: str) -> list[tuple[str, str]]:
    """Names and values: spent, saved, the same in steps, at stake, and the time on the clock."""
    spent = f"{duration(totals.spent)}, {reports:,} report{'' if reports == 1 else 's'}"
    if totals.untimed:
        spent = f"at least {spent}, {totals.untimed:,} of which do not say what they took"
    rows = [("Spent", spent)]
    if not math.isnan(totals.startup):
        part = f" ({totals.startup / totals.spent:.0%})" if totals.spent else ""
        rows.append(("Start-up", f"{duration(totals.startup)} of it{part}"))
    saved, stake = duration(totals.saved), duration(totals.spent + totals.saved)
    if totals.all_unknown:
        saved = stake = "not known"
    elif totals.unknown:
        saved = f"at least {saved}: not known of {totals.unknown} of {totals.cut_short} trials"
        stake = f"at least {stake}"
    rows.append(("Saved", saved))
    if totals.saved_steps:
        whole = totals.steps + totals.saved_steps
        steps = f"{short(totals.saved_steps)} of {short(whole)} ({totals.share_of_steps:.0%})"
        rows.append((f"Saved in {time_attr}", steps))
    rows.append(("At stake", f"{stake}, had nothing been stopped"))
    return rows


def clock(totals: Totals) -> str:
    """The time on the clock, and how much of it no report covers."""
    text = duration(totals.wall)
    surprising = totals.spent + totals.saved < totals.wall
    if totals.idle > 0.01 * totals.wall or (surprising and totals.idle > 0):
        text += f", in {duration(totals.idle)} of which {OUTSIDE}"
    return text


def sentence(totals: Totals, reports: int, time_attr: str) -> str:
    """All that in a line; "" where no report says what it took."""
    if not totals.spent > 0:
        return ""
    parts = [f"{name.lower()} {text}" for name, text in told(totals, reports, time_attr)]
    parts += [f"took {clock(totals)}"] if totals.wall else []
    return "; ".join([headline(totals, totals.share), *parts])


def basis(horizons: Sequence[float], time_attr: str) -> str:
    """How the savings are reckoned. `horizons`: where trials end that nobody stops."""
    if not horizons:
        text = "No trial came to its own end or reported its progress: nobody tells where it is."
    elif len(horizons) == 1:
        text = f"Trials that nobody stops end at {time_attr} {short(horizons[0])}."
    else:
        text = (
            f"Trials that nobody stops end between {time_attr} {short(horizons[0])} and "
            f"{short(horizons[-1])}: each where its own progress says, else at the mean of those "
            "that got as far."
        )
    return BASIS.format(horizon=text)


def facts(totals: Totals) -> dict[str, Any]:
    """The same for machines; NaN: not known."""
    return {
        "spent_s": totals.spent,
        "startup_s": totals.startup,
        "saved_s": math.nan if totals.all_unknown else totals.saved,
        "saved_share": totals.share,
        "steps": totals.steps,
        "saved_steps": totals.saved_steps,
        "saved_share_of_steps": totals.share_of_steps,
        "wall_s": totals.wall,
        "idle_s": totals.idle,
        "cut_short": totals.cut_short,
        "cut_short_unknown": totals.unknown,
        "reports_without_time": totals.untimed,
    }
