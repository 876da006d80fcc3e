"""Which sweep a trial is of, where several lie in one folder.

A sweep that is begun anew, by its user under the old name or by Ray after a snapshot that it could
not read, leaves the trials of the one before in the folder. Ray's snapshots tell them apart: each
session of a driver lists its trials, and a session that was restored lists those from before, too.
"""

from collections.abc import Iterator, Mapping

import pyarrow.fs as pafs

from tune_stoppers.experiment.snapshots import (
    STATE,
    read_copy,
    read_snapshot,
    snapshots_in,
    trial_ids,
)


def generations(
    filesystem: pafs.FileSystem, root: str, births: Mapping[str, str]
) -> dict[str, int]:
    """The sweep of each trial, counted back from the newest, which is 0.

    Args:
        births: when each trial's folder was made, in a form that sorts; "" where nobody knows.

    A trial that no snapshot lists, as one that was added after the last, is of the sweep that was
    under way when its folder was made. Where no snapshot can be read, all are of one sweep.
    """
    left, found = dict(births), dict.fromkeys(births, 0)
    listed: set[str] = set()  # in the sweep that is being told apart
    number = 0
    for ids in _listed(filesystem, root):
        if not ids & births.keys():
            continue  # it came to no folder
        if listed and not ids & listed:
            number, listed = number + 1, set()
        listed |= ids
        begin = min((births[t] for t in listed & births.keys() if births[t]), default=None)
        for trial_id in list(left):
            born = left[trial_id]
            if trial_id in listed or (begin is not None and born >= begin and born):
                found[trial_id] = number
                del left[trial_id]
        if not left:
            break
    if listed:
        found |= {trial_id: number + 1 for trial_id, born in left.items() if born}
    return found


def _listed(filesystem: pafs.FileSystem, root: str) -> Iterator[set[str]]:
    """The ids of the trials of each session that can be read, newest session first."""
    sessions = snapshots_in(filesystem, root)
    if len(sessions) < 2:
        return  # nothing was begun again
    copy = read_copy(filesystem, root)
    for session in sorted(sessions, reverse=True):
        names = [name for name in sessions[session] if name.startswith(STATE)]
        state = read_snapshot(filesystem, root, session, names).state
        if state is None and copy is not None and copy.session == session:
            state = copy.state
        if state is not None:
            yield trial_ids(state)
