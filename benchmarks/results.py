"""Where a benchmark writes what it found: benchmarks/results/NAME.md, in a section of that name."""

from pathlib import Path


def insert(path: Path, name: str, section: str) -> None:
    """Write the section `name` into the file, in place of its last version; the rest stays.

    What was written by hand stands after the section. A file that is not there is made.
    """
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    old = path.read_text(encoding="utf-8") if path.exists() else ""
    before, _, rest = old.partition(start)
    after = rest.partition(end)[2] if rest else "\n"
    parts = [before.rstrip(), f"{start}\n{section}\n{end}{after}"]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n\n".join(filter(None, parts)), encoding="utf-8")
