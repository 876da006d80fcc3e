"""Workers: who has a worker, who waits for one, and how many there seem to be."""

from types import SimpleNamespace
from typing import Any

import pytest

from tune_stoppers.tune.schedulers import workers as module
from tune_stoppers.tune.schedulers.workers import Workers


def trial(name: str, status: str = "PENDING") -> Any:
    return SimpleNamespace(trial_id=name, status=status)


def running(workers: Workers, count: int, now: float = 0.0) -> list[Any]:
    """So many trials, chosen one after the other, that have all started."""
    trials = [trial(f"t{i}") for i in range(count)]
    for each in trials:
        assert workers.room
        workers.add(each, now, chosen=True)
        each.status = "RUNNING"
        workers.look(now)
    return trials


def test_one_waits_in_line_and_more_while_the_cluster_takes_them() -> None:
    """Of a cluster of unknown size: as many as run, until one has to wait."""
    workers = Workers()
    first, *others = (trial(f"t{i}") for i in range(9))
    workers.add(first, 0.0, chosen=True)
    assert not workers.room
    first.status = "RUNNING"
    workers.look(1.0)
    added = 0
    while workers.room:
        workers.add(others[added], 1.0, chosen=True)
        added += 1
    assert added == 1
    for each in others[:3]:
        workers.add(each, 1.0, chosen=True)
        each.status = "RUNNING"
    workers.look(2.0)
    for each in others[3:7]:
        assert workers.room
        workers.add(each, 2.0, chosen=True)
    assert not workers.room  # four run, four wait
    first.status = "PAUSED"
    assert workers.look(3.0) == ["t0"]
    assert workers.since("t4") == 3.0  # the first in line got its worker
    assert not workers.room  # the cluster is full: one ahead is enough


def test_all_that_a_cluster_takes_start_at_the_same_time() -> None:
    """Where its size is known, none waits until the one before it has started."""
    workers = Workers()
    workers.given = 4
    for number in range(4):
        assert workers.room
        workers.add(trial(f"t{number}"), 3.0, chosen=True)
        assert workers.since(f"t{number}") == 3.0
    assert workers.room
    workers.add(trial("next"), 3.0, chosen=True)  # waits for the first of them to leave
    assert workers.since("next") is None
    assert not workers.room
    for number in range(4):
        workers.slots[f"t{number}"].trial.status = "RUNNING"
    workers.look(4.0)
    assert not workers.room  # the cluster stays as it is: one is in line


def resources(monkeypatch: pytest.MonkeyPatch, size: int, free: int) -> dict[str, int]:
    """What Ray says of its cluster, in trials."""
    said = {"size": size, "free": free, "asked": 0}

    def capacity(like: Any, *, free: bool = False) -> int:
        said["asked"] += 1
        return said["free" if free else "size"]

    monkeypatch.setattr(module, "capacity", capacity)
    return said


def test_ray_is_asked_how_many_more_can_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as it has room by itself and some of it is free; of a full one once a second."""
    said = resources(monkeypatch, size=3, free=3)
    workers = Workers()
    for number in range(3):
        workers.look(0.0)
        assert workers.room
        workers.add(trial(f"t{number}"), 0.0, chosen=True)
    workers.look(0.0)
    assert not workers.room
    asked = said["asked"]
    workers.look(0.5)
    assert not workers.room
    assert said["asked"] == asked
    said["size"] = 4  # a node has come
    workers.look(1.5)
    assert workers.room


@pytest.mark.parametrize("grown", [False, True])
def test_more_wait_in_line_only_where_the_cluster_has_grown(
    grown: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else they would be chosen before there is anything to compare, and gain nothing by it."""
    said = resources(monkeypatch, size=2, free=2)
    workers = Workers()
    running(workers, 2)
    if grown:
        said["size"] = 4
    for number in range(2):
        each = trial(f"later{number}", "RUNNING")
        workers.add(each, 1.0, chosen=True)
    workers.look(2.0)
    said["free"] = 0
    workers.look(4.0)
    ahead = 0
    while workers.room:
        workers.add(trial(f"ahead{ahead}"), 4.0, chosen=True)
        ahead += 1
    assert ahead == (4 if grown else 1)


@pytest.mark.parametrize(
    ("trials", "workers_", "line"), [(40, 4, 4), (40, 2, 2), (40, 8, 1), (8, 4, 1), (8, 2, 2)]
)
def test_the_first_trials_wait_in_line_up_to_eight_or_half_of_them(
    trials: int, workers_: int, line: int
) -> None:
    """As many as run, so that something is known early; but half of the sweep at most."""
    workers = Workers()
    workers.given, workers.trials = workers_, trials
    running(workers, workers_)
    ahead = 0
    while workers.room:
        workers.add(trial(f"ahead{ahead}"), 4.0, chosen=True)
        ahead += 1
    assert ahead == line


def test_a_smaller_request_is_no_growth(monkeypatch: pytest.MonkeyPatch) -> None:
    """More of such trials fit into the same cluster."""

    def asking(name: str, cpus: int, status: str = "RUNNING") -> Any:
        request = SimpleNamespace(required_resources={"CPU": cpus})
        return SimpleNamespace(trial_id=name, status=status, placement_group_factory=request)

    def capacity(like: Any, *, free: bool = False) -> int:
        return 0 if free else int(8 / like.placement_group_factory.required_resources["CPU"])

    monkeypatch.setattr(module, "capacity", capacity)
    workers = Workers()
    large = asking("large", 4)
    workers.add(large, 0.0, chosen=True)
    workers.look(0.0)
    large.status = "TERMINATED"
    for number in range(8):
        workers.add(asking(f"t{number}", 1), 1.0, chosen=True)
    workers.look(2.0)
    workers.add(asking("waiting", 1, "PENDING"), 3.0, chosen=True)
    assert not workers.room


def test_a_cluster_that_others_fill_gets_one_in_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has room by itself, and none is free."""
    resources(monkeypatch, size=8, free=0)
    workers = Workers()
    running(workers, 1)
    workers.look(2.0)
    assert workers.room
    workers.add(trial("waiting"), 2.0, chosen=True)
    assert workers.since("waiting") is None
    workers.look(4.0)
    assert not workers.room  # one runs, so one waits


def test_room_in_pieces_too_small_is_no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who was asked for because of it has had a worker since one came free."""
    resources(monkeypatch, size=2, free=1)
    workers = Workers()
    (first,) = running(workers, 1)
    workers.look(1.0)
    assert workers.room
    workers.add(trial("waiting"), 1.0, chosen=True)
    assert workers.since("waiting") == 1.0
    first.status = "PAUSED"
    workers.look(9.0)
    assert workers.since("waiting") == 9.0


def test_a_free_worker_makes_room_for_one_more() -> None:
    """Beside the one that is starting already."""
    workers = Workers()
    first, second, third = running(workers, 3)
    waiting = trial("waiting")
    workers.add(waiting, 1.0, chosen=True)
    for each in (first, second, third):
        each.status = "TERMINATED"
    workers.look(2.0)
    assert workers.since("waiting") == 2.0
    assert workers.free == 2
    for name in "ab":
        assert workers.room
        workers.add(trial(name), 4.0, chosen=True)
        assert workers.since(name) == 4.0
    assert workers.free == 0


def test_a_trial_waits_from_when_a_worker_came_free() -> None:
    """Where one was free that had not been seen yet, it is not known since when."""
    workers = Workers()
    (first,) = running(workers, 1)
    waiting, early = trial("waiting"), trial("early")
    workers.add(waiting, 1.0, chosen=True)
    assert workers.since("waiting") is None
    waiting.status = "RUNNING"
    workers.look(5.0)
    assert workers.since("waiting") is None
    workers.add(early, 6.0, chosen=True)
    first.status = "PAUSED"
    workers.look(7.0)
    assert workers.since("early") == 7.0


def test_what_starts_by_itself_takes_a_worker_but_no_place_in_line() -> None:
    """A promotion may be chosen beside the searcher's next trial."""
    workers = Workers()
    running(workers, 2)
    workers.add(trial("new"), 1.0, chosen=False)
    while workers.room:
        workers.add(trial(f"more{len(workers.slots)}"), 1.0, chosen=True)
    assert len(workers.slots) == 5  # two run, two are in line, and the searcher's
    assert workers.next.trial_id == "more3"


def test_a_trial_that_ends_unseen_frees_nobody() -> None:
    """One that is taken away while it is pending had no worker."""
    workers = Workers()
    running(workers, 1)
    gone, waiting = trial("gone"), trial("waiting")
    workers.add(gone, 1.0, chosen=True)
    workers.add(waiting, 1.0, chosen=True)
    gone.status = "TERMINATED"
    workers.look(2.0)
    assert workers.since("waiting") is None
    assert not workers.idle
