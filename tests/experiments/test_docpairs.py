"""Pairs for a fine-tune: no leakage, one clear line for bad data, and only answers as labels."""

import ast
import itertools
import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from experiments.docpairs import (
    IGNORED_LABEL,
    DataError,
    Pair,
    Split,
    encode,
    normalised,
    read_jsonl,
    split,
    stdlib_pairs,
)


@pytest.fixture(scope="module")
def library() -> list[Pair]:
    """The pairs of this interpreter's standard library: parsed once, as that takes seconds."""
    return stdlib_pairs()


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer of whole words, in which a word's number is its place in the list."""
    words = ["<pad>", "<end>", "<unk>", "one", "two", "three", "four"]
    core = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", eos_token="<end>", unk_token="<unk>"
    )


def _written(folder: Path, *lines: str | bytes) -> Path:
    path = folder / "data.jsonl"
    path.write_bytes(b"\n".join(x.encode() if isinstance(x, str) else x for x in lines))
    return path


def _line(prompt: object, completion: object) -> str:
    return json.dumps({"prompt": prompt, "completion": completion})


def _numbered(n: int) -> list[Pair]:
    return [Pair(f"prompt {i}", f"completion {i}") for i in range(n)]


def _shared(parts: Split, key: str) -> set[str]:
    """What some two parts have in common of the field `key`, normalised."""
    found = [{normalised(getattr(pair, key)) for pair in part} for part in parts]
    return set().union(*(a & b for a, b in itertools.combinations(found, 2)))


# --- the standard library ---------------------------------------------------------------------


def test_stdlib_gives_thousands_of_distinct_pairs(library: list[Pair]) -> None:
    """No prompt and no docstring comes twice, however it is spaced or capitalised."""
    assert len(library) > 3000
    assert len({normalised(pair.prompt) for pair in library}) == len(library)
    assert len({normalised(pair.completion) for pair in library}) == len(library)


def test_stdlib_prompts_are_python_that_waits_for_its_docstring(library: list[Pair]) -> None:
    """Closing the quotes of any prompt gives source that parses."""
    for pair in library:
        assert ast.parse(f'{pair.prompt}"""').body


def test_stdlib_leaves_out_test_suites(library: list[Pair]) -> None:
    """Neither the interpreter's own tests nor installed packages are data."""
    assert {"test", "site-packages"}.isdisjoint(pair.module for pair in library)


def test_signature_and_first_paragraph_make_a_pair(tmp_path: Path) -> None:
    """Classes are named in the prompt; functions with no prose, or inside others, are left out."""
    source = '''
class Box:
    async def get(self, key: str = "a") -> int:
        """Return what lies
        under key.

        More of it.
        """
        def inner():
            """Never seen, as it is inside."""
if True:
    def free(*, x): "Do it for x only."
    def same(): "do it  for X only"
    def short(): "Too short."
    def silent(): pass
'''
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "code.py").write_text(source)
    assert stdlib_pairs(tmp_path) == [
        Pair(
            "class Box:\n    async def get(self, key: str='a') -> int:\n" + " " * 8 + '"""',
            "Return what lies under key.",
            "pkg",
        ),
        Pair('def free(*, x):\n    """', "Do it for x only.", "pkg"),
    ]


def test_a_library_without_sources_is_one_clear_error(tmp_path: Path) -> None:
    """The folder is named, and what to do."""
    with pytest.raises(DataError, match=r"no documented Python function under .*give data"):
        stdlib_pairs(tmp_path)


# --- split ------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_parts_share_no_module_prompt_or_completion(library: list[Pair], seed: int) -> None:
    """Nothing that a trial trains on, or is chosen by, appears in what it is measured on."""
    parts = split(library, seed)
    assert not _shared(parts, "module")
    assert not _shared(parts, "prompt")
    assert not _shared(parts, "completion")


@pytest.mark.parametrize("seed", range(5))
def test_parts_are_large_enough_and_lose_nothing(library: list[Pair], seed: int) -> None:
    """At least 128 pairs to choose by and 128 that no trial sees, from several modules each."""
    parts = split(library, seed)
    assert len(parts.eval) >= 128
    assert len(parts.heldout) >= 128
    assert len(parts.train) > len(library) / 2
    assert len({pair.module for pair in parts.heldout}) >= 4
    assert sorted(map(repr, itertools.chain(*parts))) == sorted(map(repr, library))


def test_the_same_seed_gives_the_same_split_whatever_the_order() -> None:
    """A split depends on the pairs and the seed, not on the order of the file."""
    pairs = _numbered(200)
    assert split(pairs, 3) == split(pairs[::-1], 3)
    assert split(pairs, 3) != split(pairs, 4)


def test_a_split_does_not_change_between_versions() -> None:
    """Recorded sweeps stay comparable: these very pairs are held out for seed 0."""
    heldout = split(_numbered(20), 0).heldout
    assert [pair.prompt for pair in heldout] == ["prompt 2", "prompt 4", "prompt 15", "prompt 0"]


def test_pairs_with_one_prompt_stay_together() -> None:
    """A prompt with several answers is in one part only, in whatever capitals it is written."""
    pairs = [Pair(p, f"answer {i}") for i in range(30) for p in (f"Ask {i}", f"ask  {i}.")]
    parts = split(pairs, 0)
    assert not _shared(parts, "prompt")
    assert all(len(part) % 2 == 0 and part for part in parts)


def test_too_few_pairs_to_split_is_an_error() -> None:
    """The count got and the count needed are named."""
    with pytest.raises(DataError, match="19 distinct pairs are too few to split: give >= 20"):
        split(_numbered(19), 0)
    assert [len(part) for part in split(_numbered(20), 0)] == [12, 4, 4]


def test_pairs_of_a_single_prompt_cannot_be_split() -> None:
    """One group cannot be in three parts."""
    with pytest.raises(DataError, match="only 0 of 8 pairs fit"):
        split([Pair("the same", f"answer {i}") for i in range(40)], 0)


# --- a user's file ----------------------------------------------------------------------------


def test_a_file_of_pairs_is_read_without_repetitions(tmp_path: Path) -> None:
    """Blank lines, further keys, a byte-order mark and CRLF do no harm; labels may repeat."""
    path = _written(
        tmp_path,
        b"\xef\xbb\xbf" + _line("is it?", "yes").encode() + b"\r",
        "",
        '{"prompt": "is  IT?", "completion": "Yes.", "source": "again"}',
        _line("is that\u2028so?", "yes"),
        _line("2+2", "4"),
        _line("2*2", "4"),
        "",
    )
    assert read_jsonl(path) == [
        Pair("is it?", "yes"),
        Pair("is that\u2028so?", "yes"),
        Pair("2+2", "4"),
        Pair("2*2", "4"),
    ]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('{"prompt": "a" "completion": "b"}', r"not JSON: Expecting ',' delimiter \(column 16\)"),
        ("prompt,completion", "not JSON: Expecting value"),
        (b'{"prompt": "caf\xe9"}', r"not UTF-8 \(byte 16\)"),
        ("[" * 100_000, "not JSON that can be read"),
        ('{"prompt": ' + "9" * 5_000 + "}", "not JSON that can be read"),
        ('["a", "b"]', "needs a JSON object, got list"),
        ('{"prompt": "a", "answer": "b"}', r"no \"completion\"; the keys are \['answer', 'prompt'"),
        ('{"completion": "b"}', 'no "prompt"'),
        (_line("a", 3), '"completion" must be a string, got int'),
        (_line(None, "b"), '"prompt" must be a string, got NoneType'),
        (_line("a", " \n"), '"completion" is empty'),
        (_line("", "b"), '"prompt" is empty'),
        (_line("a", "\ud83d"), '"completion" has half of a surrogate pair'),
    ],
)
def test_a_bad_line_is_named_by_file_and_number(
    tmp_path: Path, line: str | bytes, complaint: str
) -> None:
    """One line says where it is and what is wrong; blank lines count."""
    path = _written(tmp_path, _line("good", "one"), "", line)
    with pytest.raises(DataError, match=rf"data\.jsonl:3: {complaint}") as error:
        read_jsonl(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_a_file_without_pairs_is_an_error(tmp_path: Path, content: str) -> None:
    """An empty file says what a line should look like."""
    with pytest.raises(DataError, match=r"data\.jsonl has no pairs: write one"):
        read_jsonl(_written(tmp_path, content))


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    """A missing file and a folder are named."""
    with pytest.raises(DataError, match=r"absent\.jsonl: No such file"):
        read_jsonl(tmp_path / "absent.jsonl")
    with pytest.raises(DataError, match="Is a directory"):
        read_jsonl(tmp_path)


# --- encode -----------------------------------------------------------------------------------


def test_labels_are_the_completion_and_the_end(tokenizer: PreTrainedTokenizerFast) -> None:
    """Prompt and padding are masked; padding is out of the attention too."""
    assert encode([Pair("one two", "three four")], tokenizer, 8) == [
        {
            "input_ids": [3, 4, 5, 6, 1, 0, 0, 0],
            "attention_mask": [1, 1, 1, 1, 1, 0, 0, 0],
            "labels": [IGNORED_LABEL, IGNORED_LABEL, 5, 6, 1] + [IGNORED_LABEL] * 3,
        }
    ]


def test_long_completions_are_cut_and_long_prompts_dropped(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    """What is kept has one label at least."""
    pairs = [Pair("one two", "three four"), Pair("one two three", "four"), Pair("one", "two")]
    rows = encode(pairs, tokenizer, 3)
    assert [row["input_ids"] for row in rows] == [[3, 4, 5], [3, 4, 1]]
    assert [row["labels"] for row in rows] == [[-100, -100, 5], [-100, 4, 1]]


def test_nothing_left_to_encode_is_an_error(tokenizer: PreTrainedTokenizerFast) -> None:
    """The limit that dropped every pair is named."""
    with pytest.raises(DataError, match="no pair whose prompt is shorter than max_tokens=2 tokens"):
        encode([Pair("one two", "three")], tokenizer, 2)
