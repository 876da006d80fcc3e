"""Small tasks for recorded LoRA sweeps, from text that a machine carries or that is made here.

`python -m experiments.lora_tasks TASK OUT.npz` encodes one, so that a machine without these texts
can train on it. A task's evaluation examples share no group with its training examples: a group
is a module, a program's messages, a message in all its languages, or a customer.
"""

import argparse
import gettext
import hashlib
import json
import random
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from experiments.docpairs import DataError, Pair, stdlib_pairs
from experiments.model import load, prepare

LOCALES = Path("/usr/share/locale")
LANGUAGES = {
    "bg": "Bulgarian", "ca": "Catalan", "cs": "Czech", "da": "Danish", "de": "German",
    "es": "Spanish", "fi": "Finnish", "fr": "French", "gl": "Galician", "hr": "Croatian",
    "hu": "Hungarian", "id": "Indonesian", "it": "Italian", "nb": "Norwegian", "nl": "Dutch",
    "pl": "Polish", "pt": "Portuguese", "ro": "Romanian", "ru": "Russian", "sk": "Slovak",
    "sr": "Serbian", "sv": "Swedish", "uk": "Ukrainian", "vi": "Vietnamese",
}  # fmt: skip
FIRST_NAMES, CUSTOMERS, ITEMS, MONTHS = (
    tuple(words.split())
    for words in (
        "Ada Ben Carla Dev Elif Farid Greta Hugo Ines Jonas Kaya Lena Marek Nora Omar",
        "Abel Berg Costa Dahl Ekman Fischer Garcia Haas Ivanov Jensen Keller Lopez Moreau Nowak "
        "Okafor Petrov Quinn Rossi Silva Tanaka Ulrich Vogel Weber Xu Yilmaz Zeman Arslan Bauer "
        "Cohen Dubois Eriksen Ferrari Gupta Horvat Ito Janssen Kowalski Lund Meyer Novak",
        "lamp chair desk shelf kettle blanket mirror clock rug bench vase stool tray",
        "January February March April May June July August September October",
    )
)
SHARE_OF_A_GROUP = 6  # at least so many groups in the evaluation
N_TRAIN, N_EVAL = 1024, 96  # examples, as in the first recordings


@dataclass(frozen=True)
class Rows:
    """Examples as token ids: prompt, answer and end in one row, padded on the right."""

    tokens: npt.NDArray[np.int64]  # (examples, width)
    first: npt.NDArray[np.int64]  # where the answer begins in each row
    end: npt.NDArray[np.int64]  # and where it ends

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, rows: Any) -> "Rows":
        return Rows(self.tokens[rows], self.first[rows], self.end[rows])


@dataclass(frozen=True)
class Data:
    """What the trials of a sweep train on, and what they are compared on."""

    train: Rows
    evaluation: Rows

    def save(self, path: str | Path) -> None:
        """Write it as arrays of 16-bit integers, compressed."""
        arrays = {
            f"{part}_{name}": getattr(rows, name).astype(np.uint16)
            for part, rows in (("train", self.train), ("evaluation", self.evaluation))
            for name in ("tokens", "first", "end")
        }
        np.savez_compressed(path, **arrays)

    @classmethod
    def load(cls, path: str | Path) -> "Data":
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as file:
            parts = (
                Rows(
                    *(
                        file[f"{part}_{name}"].astype(np.int64)
                        for name in ("tokens", "first", "end")
                    )
                )
                for part in ("train", "evaluation")
            )
            return cls(*parts)


# --- texts ------------------------------------------------------------------------------------


def messages(language: str) -> Iterator[tuple[str, str, str]]:
    """Yield (program, English, translation) of the gettext catalogues in `LOCALES`.

    One-line messages of 2 to 20 words, each once.
    """
    seen: set[str] = set()
    for path in sorted(LOCALES.glob(f"{language}/LC_MESSAGES/*.mo")):
        try:
            with path.open("rb") as file:
                catalogue = gettext.GNUTranslations(file)._catalog  # type: ignore[attr-defined]
        except (OSError, UnicodeDecodeError):  # a few declare another encoding than they have
            continue
        for english, translated in catalogue.items():
            if not (isinstance(english, str) and isinstance(translated, str)):
                continue
            short = 2 <= len(english.split()) <= 20 and "\n" not in english + translated
            if short and translated not in ("", english) and english not in seen:
                seen.add(english)
                yield path.stem, english, translated


def translations(language: str = "de") -> list[Pair]:
    """English messages of programs and their translations; a group is a program."""
    name = LANGUAGES[language]
    return [
        Pair(f"English: {english}\n{name}:", f" {translated}", program)
        for program, english, translated in messages(language)
    ]


def languages() -> list[Pair]:
    """A message and the name of its language; each message in one language only."""
    by_message: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for code, name in LANGUAGES.items():
        for _, english, translated in messages(code):
            by_message[english].append((translated, name))
    return [
        Pair(f"Message: {text}\nLanguage:", f" {name}", english)
        for english, choices in sorted(by_message.items())
        for text, name in [choices[_draw(english) % len(choices)]]
    ]


def orders() -> list[Pair]:
    """An order in words and the same as a JSON record, with a sum and a date to work out.

    A group is a customer.
    """
    rng = random.Random(20)
    templates = (
        "{who} ordered {count} {item}s at {price} euros each on {month} {day}, due in {days} days.",
        "On {day} {month}, {count} {item}s ({price} euros apiece) were sold to {who}; {days} days "
        "to deliver.",
        "{count} {item}s for {who}, {price} euros a piece. Ordered {month} {day}, {days} days.",
    )
    pairs = []
    for last in CUSTOMERS:
        for _ in range(60):
            count, price, days = rng.randint(2, 12), rng.randint(2, 40), rng.randint(2, 9)
            month, day, item = rng.randrange(len(MONTHS)), rng.randint(1, 18), rng.choice(ITEMS)
            text = rng.choice(templates).format(
                who=f"{rng.choice(FIRST_NAMES)} {last}", count=count, item=item, price=price,
                month=MONTHS[month], day=day, days=days,
            )  # fmt: skip
            record = {
                "item": item,
                "total": count * price,
                "ordered": f"{month + 1:02}-{day:02}",
                "due": f"{month + 1:02}-{day + days:02}",
            }
            pairs.append(Pair(f"{text}\n", json.dumps(record), last))
    return pairs


TASKS: dict[str, tuple[Callable[[], list[Pair]], int]] = {  # with the tokens of a row at most
    "docstring": (stdlib_pairs, 48),
    "language": (languages, 32),
    "orders": (orders, 64),
    "translate_de": (translations, 48),
}


# --- parts and tokens -------------------------------------------------------------------------


def split(pairs: Sequence[Pair], n_train: int, n_eval: int, seed: int) -> tuple[list[Pair], ...]:
    """Return `n_train` pairs and `n_eval` of other groups, the same for the same pairs and seed.

    Groups go to the evaluation in an order drawn by `seed` until it is full, each with a sixth of
    it at most. Raises `DataError` where there are too few pairs or groups.
    """
    groups: dict[str, list[Pair]] = defaultdict(list)
    for pair in sorted(pairs, key=lambda p: _draw(seed, p.module, p.prompt, p.completion)):
        groups[pair.module or pair.prompt].append(pair)
    order = sorted(groups, key=lambda name: _draw(seed, name))
    evaluation: list[Pair] = []
    while len(evaluation) < n_eval and order:
        evaluation += groups[order.pop(0)][: max(1, n_eval // SHARE_OF_A_GROUP)]
    train = [pair for name in order for pair in groups[name]]
    if len(train) < n_train or len(evaluation) < n_eval:
        raise DataError(
            f"{n_train} pairs to train on and {n_eval} of other groups are asked for; there are "
            f"{len(train)} and {len(evaluation)}: ask for fewer."
        )
    train.sort(key=lambda p: _draw(seed, p.prompt, p.completion))
    return train[:n_train], evaluation[:n_eval]


def encode(pairs: Sequence[Pair], tokenizer: Any, width: int) -> Rows:
    """The pairs as rows of `width` tokens; a longer answer is cut there.

    Raises `DataError` for a prompt that leaves no room for an answer.
    """
    padding = tokenizer.pad_token_id or 0
    tokens = np.full((len(pairs), width), padding, dtype=np.int64)
    first, end = np.zeros(len(pairs), dtype=np.int64), np.zeros(len(pairs), dtype=np.int64)
    for row, pair in enumerate(pairs):
        prompt, answer = _tokens(pair, tokenizer)
        if len(prompt) >= width:
            raise DataError(f"a prompt of {len(prompt)} tokens leaves no room within {width}.")
        both = (prompt + answer)[:width]
        tokens[row, : len(both)] = both
        first[row], end[row] = len(prompt), len(both)
    return Rows(tokens, first, end)


def _tokens(pair: Pair, tokenizer: Any) -> tuple[list[int], list[int]]:
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    answer = tokenizer(pair.completion, add_special_tokens=False)["input_ids"] + end
    return list(tokenizer(pair.prompt)["input_ids"]), list(answer)


def data_of(
    task: str,
    tokenizer: Any,
    n_train: int = N_TRAIN,
    n_eval: int = N_EVAL,
    seed: int = 0,
) -> Data:
    """A task's examples; pairs whose prompt fills three quarters of a row are left out."""
    pairs, width = TASKS[task][0](), TASKS[task][1]
    # Enough to choose from: a long prompt is known only once it is encoded, which takes time.
    parts = split(pairs, min(len(pairs) // 2, 2 * n_train), min(len(pairs) // 8, 2 * n_eval), seed)
    kept = (
        [p for p in part if len(_tokens(p, tokenizer)[0]) <= 0.75 * width][:count]
        for part, count in zip(parts, (n_train, n_eval), strict=True)
    )
    train, evaluation = (encode(part, tokenizer, width) for part in kept)
    if len(train) < n_train or len(evaluation) < n_eval:
        raise DataError(f"{task} has {len(train)} and {len(evaluation)} short prompts: too few.")
    return Data(train, evaluation)


def _draw(*names: object) -> int:
    """A pseudo-random number that depends on nothing but its arguments."""
    return int.from_bytes(hashlib.sha256(json.dumps(names).encode()).digest()[:8])


def main(given: list[str] | None = None) -> int:
    """Encode a task. 0: written; 2: it cannot be made here."""
    parser = argparse.ArgumentParser(prog="python -m experiments.lora_tasks", description=__doc__)
    parser.add_argument("task", choices=sorted(TASKS))
    parser.add_argument("out", type=Path)
    parser.add_argument("--train", type=int, default=N_TRAIN, help="examples (1,024)")
    parser.add_argument("--eval", type=int, default=N_EVAL, help="examples (96)")
    args = parser.parse_args(given)
    try:
        data = data_of(args.task, load(prepare())[1], args.train, args.eval)
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    data.save(args.out)
    print(f"{args.out}: {len(data.train)} examples to train on, {len(data.evaluation)} to evaluate")
    return 0


if __name__ == "__main__":
    sys.exit(main())
