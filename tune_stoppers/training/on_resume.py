"""What a run that a rule had stopped does when its checkpoint is resumed."""

from collections.abc import Mapping
from typing import Any, Literal

OnResume = Literal["restore", "continue", "restart"]

_THEN: dict[OnResume, str] = {
    "restore": 'it ends again at once; on_resume="continue" or "restart" trains on',
    "continue": "it continues, and is judged at its next report",
    "restart": "it continues, and the rule begins anew",
}


def says_on_resume(owner: str, saved: Mapping[str, Any], on_resume: OnResume) -> str:
    """What is logged of a stopped run whose state was `saved`."""
    return (
        f"{owner}: this run was stopped at step {saved['step']} ({saved['reason']}); "
        f"{_THEN[on_resume]}."
    )
