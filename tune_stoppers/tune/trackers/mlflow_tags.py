"""MLflow: tags of the run that `MLflowLoggerCallback`, or the trial itself, has made."""

import sys
from pathlib import Path
from typing import Any

from tune_stoppers.tune.ray_internals.types import Trial
from tune_stoppers.tune.trackers.outcome import Outcome


class MLflowTags:
    """Finds the newest run that has the trial's name, and sets tags on it.

    It is looked for in every experiment of MLflow's current tracking store: the one that Ray's
    callback, `mlflow.set_tracking_uri` or MLFLOW_TRACKING_URI has named in the driver.
    """

    def __init__(self) -> None:
        self._runs: dict[str, str] = {}  # of each trial

    def in_use(self, trial: Trial) -> bool:
        """Whether the driver uses MLflow; nothing makes a store only to look into it."""
        mlflow = sys.modules.get("mlflow")
        return mlflow is not None and (mlflow.is_tracking_uri_set() or _is_there(mlflow))

    def write(self, trial: Trial, outcome: Outcome) -> None:
        """Set the tags. `LookupError` if the trial has no run."""
        from mlflow.tracking import MlflowClient

        client = MlflowClient()
        run = self._runs.get(trial.trial_id) or _run_of(client, str(trial))
        if run is None:
            raise LookupError(f"no run of MLflow is called {str(trial)!r}")
        self._runs[trial.trial_id] = run
        for key, text in outcome.words.items():
            client.set_tag(run, key, text)


def _is_there(mlflow: Any) -> bool:
    """Whether the default store, in the working directory, exists."""
    uri = str(mlflow.get_tracking_uri())
    for scheme in ("sqlite:///", "file://"):
        uri = uri.removeprefix(scheme)
    return "://" not in uri and Path(uri).exists()


def _run_of(client: Any, name: str) -> str | None:
    experiments = [each.experiment_id for each in client.search_experiments()]
    if not experiments:
        return None
    quoted = name.replace("'", "\\'")
    found = client.search_runs(
        experiments,
        filter_string=f"attributes.run_name = '{quoted}'",
        order_by=["attributes.start_time DESC"],
        max_results=1,
    )
    return str(found[0].info.run_id) if found else None
