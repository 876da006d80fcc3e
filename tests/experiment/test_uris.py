"""From URIs to folders."""

from pathlib import Path

import pytest

from tests.experiment.test_folder import row, write
from tune_stoppers import best_states
from tune_stoppers.experiment.uris import at_uri


@pytest.mark.parametrize("name", ["a b", "50 % off", "é", "a#b?c", "plain", "[1]"])
def test_a_file_uri_may_be_raw_or_escaped(tmp_path: Path, name: str) -> None:
    """As one types it, and as `Path.as_uri` writes it."""
    folder = tmp_path / name
    write(folder, [row(1)])
    for uri in (f"file://{folder}", folder.as_uri()):
        assert at_uri(uri)[1] == str(folder)
        assert best_states(uri, "loss", "min")["trial_id"].tolist() == ["9f18b_00000"]


def test_what_is_no_uri_is_refused() -> None:
    """With pyarrow's words."""
    with pytest.raises(ValueError, match="s3x"):
        at_uri("s3x://a b/c")
