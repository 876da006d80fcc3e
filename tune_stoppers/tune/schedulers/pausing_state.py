"""What a scheduler that pauses trials knows only while its sweep runs."""

from tune_stoppers.tune.live import Live
from tune_stoppers.tune.ray_internals.types import PlacementGroupFactory, Trial
from tune_stoppers.tune.schedulers.pending_queue import PendingQueue
from tune_stoppers.tune.schedulers.start_cost import StartCostMeter
from tune_stoppers.tune.schedulers.workers import Workers


class Pausing(Live):
    """Who has started, is paused or held back, and what a pause takes."""

    def __init__(self) -> None:
        self.trials: dict[str, Trial] = {}  # all that Ray has added, by id
        self.requests: dict[str, PlacementGroupFactory | None] = {}  # as they were added
        self.interrupted: dict[str, Trial] = {}  # paused by another scheduler around this one
        self.met: set[str] = set()  # ids of those that were pending when they were added
        self.held = PendingQueue()  # new ones
        self.workers = Workers()
        self.pace = StartCostMeter()
        self.warned = False  # that a trial has no checkpoint
        self.makes_room = False  # a trial was given up, and the searcher has suggested none yet
