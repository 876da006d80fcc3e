"""A benchmark's section of RESULTS.md."""

from pathlib import Path


def insert(path: Path, name: str, section: str) -> None:
    """Write the section `name` into the file, in place of its last version; the rest stays."""
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    old = path.read_text(encoding="utf-8") if path.exists() else "# Benchmarks\n"
    before, _, rest = old.partition(start)
    after = rest.partition(end)[2] if rest else "\n"
    path.write_text(f"{before.rstrip()}\n\n{start}\n{section}\n{end}{after}", encoding="utf-8")
