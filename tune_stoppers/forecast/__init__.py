"""Forecasts of learning curves: the distribution of a trial's future best, numpy only."""

from tune_stoppers.forecast.distribution import Forecast as Forecast
from tune_stoppers.forecast.forecaster import Forecaster as Forecaster
