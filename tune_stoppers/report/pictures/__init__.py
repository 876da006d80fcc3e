"""The pictures of a story as data, each described once: `html.svg` and `figures` draw them.

A new picture is a function of a `Story` here that gives a `Picture`; both drawers then know it.
"""

from tune_stoppers.report.pictures.curves import curves as curves
from tune_stoppers.report.pictures.curves import metric_curves as metric_curves
from tune_stoppers.report.pictures.earlier import agreement as agreement
from tune_stoppers.report.pictures.endings import endings as endings
from tune_stoppers.report.pictures.hyperparameters import scatter as scatter
from tune_stoppers.report.pictures.hyperparameters import strengths as strengths
from tune_stoppers.report.pictures.parallel import parallel as parallel
from tune_stoppers.report.pictures.progress import incumbent as incumbent
from tune_stoppers.report.pictures.timeline import timeline as timeline
