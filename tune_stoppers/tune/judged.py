"""Which trials there were, as the journals tell it: a kill may leave a folder with no results."""

from collections.abc import Iterable

from tune_stoppers.journal import FORGOT, TRIAL, Line


def judged_trials(lines: Iterable[Line]) -> set[str]:
    """The trials that a scheduler of ours has judged and still remembers."""
    added: set[str] = set()
    judged: set[str] = set()
    for line in lines:
        if line.get("event") == TRIAL:
            added.add(line["trial"])
        elif line.get("event") == FORGOT:
            gone = {str(trial) for trial in line["trials"]}
            added, judged = added - gone, judged - gone
        elif "action" in line and line["trial"] in added:
            judged.add(line["trial"])
    return judged
