"""The small tasks: what they ask, that nothing leaks into the evaluation, and what is kept."""

import json
from pathlib import Path

import numpy as np
import pytest

from experiments import lora_tasks
from experiments.docpairs import DataError, Pair
from experiments.lora_tasks import Data, encode, languages, orders, split, translations
from tests.stand_ins.tiny_folder import counting_data, word_tokenizer

PAIRS = [Pair(f"p{i}", f"c{i}", f"group{i % 20}") for i in range(200)]


def test_parts_share_no_group() -> None:
    """Nor does one group fill the evaluation; the order of the pairs does not matter."""
    train, evaluation = split(PAIRS, 100, 24, seed=1)
    assert (len(train), len(evaluation)) == (100, 24)
    assert not {p.module for p in train} & {p.module for p in evaluation}
    assert len({p.module for p in evaluation}) >= 6
    assert split(PAIRS[::-1], 100, 24, seed=1) == (train, evaluation)
    assert split(PAIRS, 100, 24, seed=2)[1] != evaluation


def test_too_few_pairs_are_refused() -> None:
    """With the numbers asked for and there are."""
    with pytest.raises(DataError, match="190 pairs to train on and 24 of other groups"):
        split(PAIRS, 190, 24, seed=1)


def test_rows_hold_prompt_answer_and_end() -> None:
    """Padded on the right; an answer that is too long is cut, a prompt is not."""
    rows = encode([Pair("w5 w6", "w7 w8 w9"), Pair("w5", "w7")], word_tokenizer(), width=5)
    assert rows.tokens.tolist() == [[5, 6, 7, 8, 9], [5, 7, 1, 0, 0]]
    assert (rows.first.tolist(), rows.end.tolist()) == ([2, 1], [5, 3])
    with pytest.raises(DataError, match="a prompt of 3 tokens leaves no room within 3"):
        encode([Pair("w2 w3 w4", "w5")], word_tokenizer(), width=3)


def test_data_is_the_same_when_read_again(tmp_path: Path) -> None:
    """Plain arrays, no pickles."""
    data = counting_data()
    data.save(tmp_path / "data.npz")
    again = Data.load(tmp_path / "data.npz")
    for part in ("train", "evaluation"):
        for name in ("tokens", "first", "end"):
            old, new = (getattr(getattr(d, part), name) for d in (data, again))
            np.testing.assert_array_equal(old, new)


def test_an_order_is_worked_out() -> None:
    """The sum and the date in the record follow from the text; customers are the groups."""
    pairs = orders()
    assert len({p.module for p in pairs}) == 40
    for pair in pairs[::97]:
        record = json.loads(pair.completion)
        numbers = [int(word) for word in "".join(
            c if c.isdigit() else " " for c in pair.prompt
        ).split()]  # fmt: skip
        assert any(a * b == record["total"] for a in numbers for b in numbers)
        days = int(record["due"][3:]) - int(record["ordered"][3:])
        assert {days, int(record["ordered"][3:])} <= set(numbers)
        assert pair.module in pair.prompt


@pytest.fixture
def locales(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two programs' messages in German, one of them in French too, and one that is broken."""
    catalogue(tmp_path / "de/LC_MESSAGES/cat.mo", {"Open file": "Datei öffnen", "Quit": "Ende"})
    catalogue(
        tmp_path / "de/LC_MESSAGES/ls.mo", {"Open file": "Datei auf", "No room": "Kein Platz"}
    )
    catalogue(tmp_path / "fr/LC_MESSAGES/ls.mo", {"No room": "Pas de place"})
    (tmp_path / "fr/LC_MESSAGES/bad.mo").write_bytes(b"no catalogue")
    monkeypatch.setattr(lora_tasks, "LOCALES", tmp_path)
    return tmp_path


def catalogue(path: Path, messages: dict[str, str]) -> None:
    """Write a gettext catalogue (https://www.gnu.org/software/gettext/manual: MO files)."""
    entries = sorted({"": "Content-Type: text/plain; charset=UTF-8\n", **messages}.items())
    texts = [[text.encode() for text in column] for column in zip(*entries, strict=True)]
    at = 28 + 16 * len(entries)
    tables, blob = [], b""
    for column in texts:
        for text in column:
            tables.append((len(text), at + len(blob)))
            blob += text + b"\0"
    head = np.array([0x950412DE, 0, len(entries), 28, 28 + 8 * len(entries), 0, 0], dtype="<u4")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(head.tobytes() + np.array(tables, dtype="<u4").tobytes() + blob)


def test_messages_are_translated_once(locales: Path) -> None:
    """Those of two words and more, each with its program as its group."""
    assert translations("de") == [
        Pair("English: Open file\nGerman:", " Datei öffnen", "cat"),
        Pair("English: No room\nGerman:", " Kein Platz", "ls"),
    ]


def test_a_message_is_asked_in_one_language(locales: Path) -> None:
    """So no message that is trained on is evaluated in another language."""
    pairs = languages()
    assert [pair.module for pair in pairs] == ["No room", "Open file"]
    assert pairs[1].completion == " German"
