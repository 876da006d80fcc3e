"""The page: complete by itself, safe, the same every time."""

import base64
import hashlib
import json
import math
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from ray.tune.schedulers import ASHAScheduler

from tests.report.data.test_from_replay import recorded
from tests.stand_ins.folders import journal, stop_line, sweep, trial
from tune_stoppers import Sweep, replay
from tune_stoppers.report import experiment_story, replay_story, write_page
from tune_stoppers.report.html.page import page

NASTY = "</style></script><script>alert(1)</script><img src=x onerror=alert(1)>\"'&"


class Reader(HTMLParser):
    """The elements of a page and its text; raises where one is not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "wbr"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip() and self.open[-1] not in ("style", "script"):
            self.texts.append(" ".join(data.split()))

    def count(self, tag: str, kind: str) -> int:
        return sum(t == tag and kind in (a.get("class") or "").split() for t, a in self.elements)


def card(text: str, title: str) -> list[str]:
    """What a card says, up to the next heading."""
    texts = Reader(text).texts
    begin = texts.index(title) + 1
    end = next(i for i in range(begin, len(texts)) if texts[i] in HEADINGS or i + 1 == len(texts))
    return texts[begin:end]


HEADINGS = {"Compute", "What was swept", "To know when reading this", "Learning curves"}


@pytest.fixture
def story(tmp_path):
    folder = sweep(tmp_path / "mine")
    journal(folder, stop_line("aaaaa_00001", 3))
    return experiment_story(folder, "loss", "min")


def test_the_verdict_and_the_compute_in_words(story):
    """What somebody reads who was not there."""
    place = story.place
    text = page(story)
    assert "A sweep of 4 trials over lr and opt. Judged by loss; lower is better." in text
    assert "<p>Rule: PatienceStopper.</p>" in text
    assert card(text, "Verdict") == [
        *("loss 0.5", "trial", "aaaaa_00000", ", training_iteration 5; ran to the last step"),
        "lr = 0.001, opt = adam",
        f"Its checkpoint: {place}/train_aaaaa_00000_1_x_2026-01-01_00-00-00/checkpoint_000005",
        f"from tune_stoppers import best_state best = best_state({place!r}, 'loss', 'min') "
        "best.restore(model)",
        *(
            "1 of 4 trials failed. 1 of 4 trials diverged.",
            "1 × RuntimeError: <b>out of memory</b>",
        ),
    ]
    assert card(text, "Compute") == [
        "37% saved",
        *("Spent", "12 s, 12 reports", "Start-up", "0.0 s of it (0%)", "Saved", "7.0 s"),
        *("Saved in training_iteration", "7 of 19 (37%)"),
        *("At stake", "19 s, had nothing been stopped"),
        *("Took", "7.0 s; at most 2 trials at a time"),
        "Saved: the steps that each stopped trial had left, at its time per step after its first "
        "report, or at the others' where it has only one: a start-up is paid once, however long a "
        "trial trains. Trials that nobody stops end at training_iteration 6. Trials that failed or "
        "have not ended count as neither.",
    ]
    assert card(text, "What was swept") == [
        *("lr", "0.0001, 0.001, 0.01, 0.1", "opt", "<script>alert(1)</script>, adam, sgd"),
        "The same in all: epochs = 3",
    ]


def test_savings_that_nobody_can_tell_are_not_known(tmp_path):
    """All were stopped, and none says how far it would have gone: no number stands there."""
    for name in ("a0000", "b0000"):
        trial(tmp_path, name, [3.0, 2.0], done=True, reason="PatienceStopper: y")
    texts = card(page(experiment_story(tmp_path, "loss", "min")), "Compute")
    assert texts[0] == "not known what was saved"
    assert texts[texts.index("Saved") + 1] == "not known"
    assert "nobody tells where it is" in texts[-1]


def test_a_clock_that_ran_longer_than_what_was_at_stake_says_why(tmp_path):
    """Two trials of 2 s each, with 8 s between them."""
    trial(tmp_path, "a0000", [3.0, 2.0], done=True)
    trial(tmp_path, "b0000", [3.0, 2.0], begin=10, done=True)
    texts = card(page(experiment_story(tmp_path, "loss", "min")), "Compute")
    assert texts[texts.index("At stake") + 1] == "4.0 s, had nothing been stopped"
    assert texts[texts.index("Took") + 1].startswith(
        "12 s, in 8.0 s of which no trial was at work: processes started"
    )


def swept(folder, trials):
    """Learning rates with an optimum in the middle, and an untrained evaluation alike in all."""
    for n in range(trials):
        rate = (n + 0.5) / trials
        last = (rate - 0.5) ** 2 + 0.2 if n else None  # the first diverged
        rows = trial(folder, f"a{n:04d}", [0.1, last], {"decay": -n * 7 % trials, "lr": rate})
        rows = [row | {"step": step * 10} for step, row in enumerate(rows)]
        (path,) = folder.glob(f"train_a{n:04d}_*/result.json")
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_what_matters_is_said_with_what_chance_gives(tmp_path):
    """The untrained model's loss, the best of all, says nothing of the hyperparameters."""
    swept(tmp_path, 20)
    story = experiment_story(tmp_path, "loss", "min")
    assert story.swept[0].name == "lr"
    assert story.strength(story.swept[0]) > 0.8
    assert story.outcomes[0] == math.inf
    text = " ".join(Reader(page(story)).texts)
    assert "With 20 trials a hyperparameter without any influence exceeds 0.49" in text
    assert re.search(r"\blr \(log, 0\.8\d\)", text)


def test_too_few_trials_to_say_what_matters(tmp_path):
    """In so many words, with the number; the marks are drawn all the same."""
    swept(tmp_path, 6)
    text = " ".join(Reader(page(experiment_story(tmp_path, "loss", "min"))).texts)
    assert "Too few trials to say how much a hyperparameter matters: 6 have a result" in text
    assert "10 are needed" in text
    assert re.search(r"\blr \(log\)", text)


def test_every_trial_is_in_the_pictures_and_in_the_table(story):
    """With one number, so that it can be picked out everywhere; the best is the first row."""
    reader = Reader(page(story))
    rows = [a for tag, a in reader.elements if tag == "tr" and "data-t" in a]
    assert len(rows) == 4
    assert rows[0]["class"] == "best"
    assert "aaaaa_00000: ran to the last step" in rows[0]["data-tip"]
    for number in "0123":
        tags = {tag for tag, a in reader.elements if a.get("data-t") == number}
        assert tags >= {"path", "use", "rect", "tr"}
    assert "PatienceStopper" in reader.texts


def test_nothing_comes_from_elsewhere(story):
    """No address is loaded; the policy allows the page's own style and script and nothing else."""
    text = page(story)
    reader = Reader(text)
    for _, attributes in reader.elements:
        assert not {"src", "style", "onclick", "onerror", "onload"} & set(attributes)
        assert (attributes.get("href") or "#").startswith("#")
    assert "url(" not in text
    assert "@import" not in text
    policy = next(a["content"] for t, a in reader.elements if t == "meta" and "http-equiv" in a)
    assert policy.startswith("default-src 'none'; ")
    for tag in ("style", "script"):
        (content,) = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


def test_what_users_write_is_inert(tmp_path):
    """Names, configurations, reasons, errors, the folder, the metric."""
    folder = tmp_path / "a <b>&amp; 'quoted'"
    losses = {NASTY: 1.0, "loss": 1.0}
    for place, more in enumerate(({"error": NASTY}, {"reason": f"{NASTY}: x", "done": True})):
        config = {NASTY: NASTY + str(place), "lr": 0.1 * place}
        trial(folder, f"id{NASTY}{place}".replace("/", ""), [1.0, 2.0], config, **more, **losses)
    line = stop_line(f"id{NASTY}0", 1, owner=NASTY, rule=NASTY, reason=NASTY, event=NASTY)
    journal(folder, line)
    text = page(experiment_story(folder, NASTY, "min"))
    reader = Reader(text)
    assert [tag for tag, _ in reader.elements].count("script") == 1
    assert text.count("</style>") == 1  # names of columns are in the style sheet too
    assert not {"img", "b>", "onerror"} & {tag for tag, _ in reader.elements} - {"b"}
    assert text.count("<script>") == 1
    assert "<img" not in text
    assert not any("onerror" in attributes for _, attributes in reader.elements)


def test_the_page_is_the_same_every_time(story):
    """Byte for byte."""
    assert page(story) == page(story)


def test_a_thousand_trials_stay_light_and_legible():
    """Under 2 MB; a sample of curves with bands for the others, and a mark for every trial."""
    dice = np.random.default_rng(0)
    count, length = 1000, 27
    steps = np.arange(1, length + 1)
    curves = dice.random((count, 1)) + dice.random((count, 1)) * 3 / steps
    frame = pd.DataFrame(
        {
            "trial_id": np.repeat([f"trial_{i:05d}" for i in range(count)], length),
            "training_iteration": np.tile(steps, count),
            "loss": curves.ravel(),
            "grad_norm": dice.random(count * length),
        }
        | {f"config/p{i}": np.repeat(dice.random(count), length) for i in range(10)}
    )
    many = Sweep.from_frame(frame, metric="loss", mode="min", name="many")
    text = page(replay_story(replay(many, ASHAScheduler(max_t=length), workers=16)))
    assert len(text.encode()) < 2e6
    reader = Reader(text)
    assert reader.count("path", "band") == 2
    assert 20 < reader.count("path", "c") - count < 200  # all are in the parallel coordinates
    assert sum(tag == "tr" and "data-t" in a for tag, a in reader.elements) == count
    assert any("Of 1000 trials, the best 8" in text for text in reader.texts)


def test_panels_that_would_be_empty_are_not_there(tmp_path):
    """One trial that never reported a number, without times: nothing is drawn of it."""
    trial(tmp_path, "a0000", [math.nan, math.nan], done=True, timestamp=None)
    text = page(experiment_story(tmp_path, "loss", "min"))
    reader = Reader(text)
    assert "Best so far" not in reader.texts
    assert "Who ran when" not in reader.texts
    assert "Hyperparameters" not in reader.texts
    assert any("No trial reported a finite loss" in text for text in reader.texts)
    assert not re.search(r'="[^"]*\bnan\b', text)


def test_rungs_thresholds_events_and_a_dry_run_are_drawn(tmp_path):
    """And explained below."""
    trial(tmp_path, "a0000", [3.0, 2.0], begin=0)
    trial(tmp_path, "a0000", [1.5, 1.0], begin=10, first=3, done=True)
    trial(tmp_path, "b0000", [3.0, 2.9, 2.8, 2.7], done=True)
    journal(
        tmp_path,
        stop_line("b0000", 3, dry_run=True, numbers={"parts": [{"rule": "X", "rung": 3}]}),
        stop_line("b0000", 4, dry_run=True, rule="Threshold", numbers={"threshold": 2.0}),
        *(
            {"time": 1_700_000_002, "trial": "a0000", "event": event, "owner": "S"}
            for event in ("started", "paused", "resumed", "paused")
        ),
    )
    reader = Reader(page(experiment_story(tmp_path, "loss", "min")))
    assert {"stopped there", "best of those"} <= set(reader.texts)  # the table of rungs
    for kind, tag in {"rung": "path", "threshold": "path", "would": "g", "event": "g"}.items():
        assert reader.count(tag, kind) >= 1, kind
    assert {"threshold 2", "3", "paused", "continued"} <= set(reader.texts)
    assert "2 × paused, resumed" in reader.texts  # in the table
    assert any(text.startswith("The dry run took no decision. Had it, 1") for text in reader.texts)


def test_a_replay_tells_what_a_rule_would_have_cost():
    """Regret beside savings, and no line that loads a checkpoint."""
    result = replay(recorded(), ASHAScheduler(max_t=9, grace_period=1), workers=3)
    text = page(replay_story(result, rule="ASHA"))
    verdict = card(text, "Verdict")
    assert verdict[verdict.index("Best recorded") + 1] == f"{result.best_recorded:.6g}"
    assert card(text, "Compute")[0] == f"{result.savings:.0%} saved"
    assert "best_state" not in text
    reader = Reader(text)
    assert reader.count("path", "recorded") > 0
    assert reader.count("path", "unstopped") == 1
    assert any("Dashed: the same trials, none of them stopped: " in told for told in reader.texts)


def test_it_is_written_where_asked(story, tmp_path):
    """As UTF-8; the path comes back."""
    path = write_page(story, tmp_path / "report.html")
    assert path.read_text(encoding="utf-8") == page(story)
    assert not math.isnan(story.share)
