"""What a file says is text in the page: it starts no script and leaves its element nowhere."""

from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.stand_ins.folders import journal, stop_line, sweep, trial
from tune_stoppers.report import experiment_story
from tune_stoppers.report.html.page import page

SCRIPTS = [
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    "</style><script>alert(1)</script>",
    "</svg><script>alert(1)</script>",
    "--><script>alert(1)</script>",
    "\"'><script>alert(1)</script>",
    "<svg onload=alert(1)>",
    "<a href='javascript:alert(1)'>x</a>",
    "&lt;script&gt;alert(1)",
]


class Elements(HTMLParser):
    """The tags of a page, with their attributes' names, and the values of links."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, tuple[str, ...]]] = []
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, tuple(name for name, _ in attrs)))
        self.links += [value or "" for name, value in attrs if name in ("href", "src")]


def page_with(folder: Path, word: str) -> str:
    """A page of a sweep where every text that a file may hold is `word`."""
    sweep(folder)
    config = {word: word, "opt": word, "nested": {word: [word]}}
    said = {"reason": word, "hostname": word, "date": word, "experiment_tag": word, "done": True}
    trial(folder, "zzzzz_00000", [1.0, 0.9], config, **said)
    trial(folder, "zzzzz_00001", [1.0, 0.8], config, error=word)
    path = folder / "train_zzzzz_00001_1_x_2026-01-01_00-00-00" / "result.json"
    path.write_text(path.read_text().replace('"zzzzz_00001"', repr_json(word)))
    lines = [
        stop_line(word, 1, owner=word, rule=word, reason=word, numbers={"threshold": word}),
        stop_line("zzzzz_00000", 1, owner=word, rule=word, reason=word, dry_run=True),
        {"time": 1.0, "trial": "zzzzz_00000", "event": word, "why": word, "owner": word},
    ]
    journal(folder, *lines)
    return page(experiment_story(folder, "loss", "min"))


def repr_json(word: str) -> str:
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'


@pytest.mark.parametrize("word", SCRIPTS)
def test_a_script_is_shown_and_not_run(tmp_path: Path, word: str) -> None:
    """In trial names, configurations, reasons, rules, events, errors, hosts: the page has no kind
    of element or attribute that it lacks with a harmless word there."""
    found = Elements(page_with(tmp_path / "hostile", word))
    harmless = Elements(page_with(tmp_path / "harmless", "a harmless word: 1"))
    assert set(found.tags) <= set(harmless.tags)
    assert [tag for tag, _ in found.tags].count("script") == 1
    assert all(link.startswith("#") for link in found.links)
