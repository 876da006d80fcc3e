"""What people read: tables, pages and figures of experiments and replays.

A `Story` is what is to be told, as plain data: `experiment_story(path, metric, mode)` or
`replay_story(result)` makes one, and `write_page(story, path)` writes it as an HTML page that
needs nothing else. `tune_stoppers.report.figures` draws the same pictures with matplotlib.
Names are loaded when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tune_stoppers.report.data.from_experiment import experiment_story as experiment_story
    from tune_stoppers.report.data.from_replay import replay_story as replay_story
    from tune_stoppers.report.data.story import Story as Story
    from tune_stoppers.report.html.page import write_page as write_page

_WHERE = {
    "Story": "data.story",
    "experiment_story": "data.from_experiment",
    "replay_story": "data.from_replay",
    "write_page": "html.page",
}

__all__ = sorted(_WHERE)


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
