"""Prompt/completion pairs for a fine-tune: from the standard library, or from a user's file.

The default data is a function's signature (prompt) and the first paragraph of its docstring
(completion), parsed from the Python standard library that runs this code: real English, about 45
tokens a pair, present on every machine, under the PSF licence.

Leakage is excluded by construction. Pairs are deduplicated, then split by group: a group is a
top-level module of the library or, in a user's file, everything that has the same prompt.
"""

import ast
import hashlib
import inspect
import json
import sysconfig
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

IGNORED_LABEL = -100
"""The label that cross-entropy skips: `ignore_index` in torch and in Transformers."""

N_EVAL = N_HELDOUT = 256
"""Pairs aimed at in the two smaller parts; a fifth of the data each where there are fewer."""

MIN_PAIRS = 20
"""Below this a split would leave fewer than 4 pairs to evaluate on."""

_MIN_WORDS = 3  # A shorter docstring ("Deprecated.") says nothing that the signature could predict.
_SKIPPED_FOLDERS = frozenset(
    {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}
)


class DataError(ValueError):
    """The pairs cannot be read, or are too few to train and evaluate on."""


@dataclass(frozen=True)
class Pair:
    """A prompt, the completion to learn, and the module that they come from ("" if none)."""

    prompt: str
    completion: str
    module: str = ""


class Split(NamedTuple):
    """Three parts that share no group, each in a random but reproducible order."""

    train: list[Pair]
    eval: list[Pair]  # what trials are compared on
    heldout: list[Pair]  # what no trial sees, for one last measurement


def normalised(text: str) -> str:
    """Return `text` as it is compared: case, white space and final full stops do not count."""
    return " ".join(text.casefold().split()).rstrip(" .")


# --- the standard library ---------------------------------------------------------------------


def stdlib_pairs(folder: Path | None = None) -> list[Pair]:
    """Return signature -> docstring pairs of the Python source under `folder`, in path order.

    `folder` defaults to the standard library of the running interpreter, so the pairs change
    somewhat from one Python version to the next. No two pairs have the same normalised prompt,
    nor the same normalised completion. Test suites and installed packages are left out.

    Raises `DataError` if the folder holds no documented function (a Python without sources).
    """
    root = folder if folder is not None else Path(sysconfig.get_path("stdlib"))
    pairs = _distinct(pair for path in _sources(root) for pair in _pairs_of(path, root))
    if not pairs:
        raise DataError(f"no documented Python function under {root}: give data of your own")
    return pairs


def _sources(root: Path) -> list[Path]:
    def wanted(path: Path) -> bool:
        return _SKIPPED_FOLDERS.isdisjoint(path.relative_to(root).parts[:-1])

    return sorted(path for path in root.rglob("*.py") if wanted(path))


def _pairs_of(path: Path, root: Path) -> Iterator[Pair]:
    module = Path(path.relative_to(root).parts[0]).stem
    for function, owner in _functions(ast.parse(path.read_bytes(), str(path))):
        summary = _summary(function)
        if summary is not None:
            yield Pair(_prompt(function, owner), summary, module)


def _functions(
    node: ast.AST, owner: str | None = None
) -> Iterator[tuple[ast.FunctionDef | ast.AsyncFunctionDef, str | None]]:
    """Yield each function with the name of its class; functions inside functions are left out."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield child, owner
        elif isinstance(child, ast.ClassDef):
            yield from _functions(child, child.name)
        elif isinstance(child, ast.stmt | ast.excepthandler):
            yield from _functions(child, owner)


def _summary(function: ast.FunctionDef | ast.AsyncFunctionDef) -> str | None:
    """Return the first paragraph of the docstring on one line, or None if it is not prose."""
    docstring = inspect.cleandoc(ast.get_docstring(function, clean=False) or "")
    summary = " ".join(docstring.split("\n\n")[0].split())
    if summary.startswith(">>>") or len(summary.split()) < _MIN_WORDS:
        return None
    return summary


def _prompt(function: ast.FunctionDef | ast.AsyncFunctionDef, owner: str | None) -> str:
    """Return the source up to and with the quotes that open the docstring."""
    keyword = "async def" if isinstance(function, ast.AsyncFunctionDef) else "def"
    returns = f" -> {ast.unparse(function.returns)}" if function.returns else ""
    head = f"{keyword} {function.name}({ast.unparse(function.args)}){returns}:"
    if owner is None:
        return f'{head}\n    """'
    return f'class {owner}:\n    {head}\n        """'


def _distinct(pairs: Iterable[Pair]) -> list[Pair]:
    """Keep the first pair of each normalised prompt and of each normalised completion."""
    prompts: set[str] = set()
    completions: set[str] = set()
    kept = []
    for pair in pairs:
        prompt, completion = normalised(pair.prompt), normalised(pair.completion)
        if prompt in prompts or completion in completions:
            continue
        prompts.add(prompt)
        completions.add(completion)
        kept.append(pair)
    return kept


# --- a user's file ----------------------------------------------------------------------------


def read_jsonl(path: str | Path) -> list[Pair]:
    """Return the pairs of a JSON lines file: `{"prompt": "...", "completion": "..."}` a line.

    Blank lines, further keys and repetitions of a pair are dropped. A completion may belong to
    several prompts (labels do), and a prompt may have several completions.

    Raises `DataError`, with file and line number, on a line that is not such an object, and if
    the file cannot be read or has no pair.
    """
    path = Path(path)
    try:
        lines = path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    except OSError as error:
        raise DataError(f"cannot read the data in {path}: {error.strerror}") from error
    pairs: dict[tuple[str, str], Pair] = {}
    for number, line in enumerate(lines, start=1):
        if line.strip():
            pair = _pair_of(line, f"{path}:{number}")
            pairs.setdefault((normalised(pair.prompt), normalised(pair.completion)), pair)
    if not pairs:
        raise DataError(f'{path} has no pairs: write one {{"prompt", "completion"}} object a line')
    return list(pairs.values())


def _pair_of(line: bytes, place: str) -> Pair:
    try:
        record = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise DataError(f"{place}: not UTF-8 (byte {error.start + 1}): save it as such") from error
    except json.JSONDecodeError as error:
        raise DataError(f"{place}: not JSON: {error.msg} (column {error.colno})") from error
    except (ValueError, RecursionError) as error:  # A number too long, brackets too deep.
        raise DataError(f"{place}: not JSON that can be read: {error}") from error
    if not isinstance(record, dict):
        raise DataError(f"{place}: needs a JSON object, got {type(record).__name__}")
    return Pair(_text(record, "prompt", place), _text(record, "completion", place))


def _text(record: dict[str, Any], key: str, place: str) -> str:
    if key not in record:
        raise DataError(f'{place}: no "{key}"; the keys are {sorted(record)}')
    text = record[key]
    if not isinstance(text, str):
        raise DataError(f'{place}: "{key}" must be a string, got {type(text).__name__}')
    if not text.strip():
        raise DataError(f'{place}: "{key}" is empty')
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise DataError(f'{place}: "{key}" has half of a surrogate pair, which is not text')
    return text


# --- parts and tensors ------------------------------------------------------------------------


def split(
    pairs: list[Pair], seed: int, *, n_eval: int = N_EVAL, n_heldout: int = N_HELDOUT
) -> Split:
    """Split `pairs` by group, the same way for the same pairs and seed whatever their order.

    Groups are taken in an order drawn by `seed`, first for `heldout`, then for `eval`, as long as
    they fit; the rest is `train`. A group over a quarter of a part is left to `train`, so that no
    part is about a single module. The first n pairs of a part are a random sample of it.

    Raises `DataError` for fewer than `MIN_PAIRS` pairs, and if the groups are too few or too
    large to fill the two smaller parts at least half.
    """
    if len(pairs) < MIN_PAIRS:
        raise DataError(f"{len(pairs)} distinct pairs are too few to split: give >= {MIN_PAIRS}")
    groups = defaultdict(list)
    for pair in _shuffled(pairs, seed):
        groups[pair.module or normalised(pair.prompt)].append(pair)
    order = sorted(groups, key=lambda name: _draw(seed, name))

    heldout = _take(groups, order, min(n_heldout, len(pairs) // 5))
    evaluation = _take(groups, order, min(n_eval, len(pairs) // 5))
    train = [pair for name in order for pair in groups[name]]
    return Split(*(_shuffled(part, seed) for part in (train, evaluation, heldout)))


def _take(groups: dict[str, list[Pair]], order: list[str], size: int) -> list[Pair]:
    """Take the groups that fit into `size` pairs, in `order`, and their names out of `order`."""
    taken: list[Pair] = []
    for name in list(order):
        if len(groups[name]) <= min(size - len(taken), max(size // 4, 1)):
            taken += groups[name]
            order.remove(name)
    if len(taken) < size / 2:
        raise DataError(
            f"only {len(taken)} of {size} pairs fit a part that shares no prompt or module with "
            f"the others: give pairs with more different prompts"
        )
    return taken


def _shuffled(pairs: list[Pair], seed: int) -> list[Pair]:
    return sorted(pairs, key=lambda pair: _draw(seed, pair.module, pair.prompt, pair.completion))


def _draw(seed: int, *names: str) -> bytes:
    """Return a pseudo-random key that depends on nothing but its arguments."""
    return hashlib.sha256(json.dumps([seed, *names]).encode()).digest()


def encode(pairs: Iterable[Pair], tokenizer: Any, max_tokens: int) -> list[dict[str, list[int]]]:
    """Return one row of `input_ids`, `attention_mask` and `labels` per pair, for a causal LM.

    A row is prompt, completion and end-of-text token, cut and padded on the right to `max_tokens`.
    Labels are the tokens to predict: the completion and the end; prompt and padding are
    `IGNORED_LABEL`. A pair whose prompt leaves no room for its completion is dropped.

    Raises `DataError` if that drops every pair.
    """
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    padding = tokenizer.pad_token_id or 0  # Masked, so any token of the vocabulary will do.
    rows = []
    for pair in pairs:
        prompt = tokenizer(pair.prompt)["input_ids"]
        room = max_tokens - len(prompt)
        if room <= 0:
            continue
        answer = (tokenizer(pair.completion, add_special_tokens=False)["input_ids"] + end)[:room]
        blank = room - len(answer)
        rows.append(
            {
                "input_ids": prompt + answer + [padding] * blank,
                "attention_mask": [1] * (max_tokens - blank) + [0] * blank,
                "labels": [IGNORED_LABEL] * len(prompt) + answer + [IGNORED_LABEL] * blank,
            }
        )
    if not rows:
        raise DataError(f"no pair whose prompt is shorter than {max_tokens=} tokens: raise it")
    return rows
