"""The command `tune-stoppers`: thin; what it needs is imported where it is used."""

from tune_stoppers.cli import sweeps as sweeps  # isort: skip  # commands are listed in this order
from tune_stoppers.cli import experiments as experiments  # isort: skip
from tune_stoppers.cli import watch as watch  # isort: skip
from tune_stoppers.cli import advise as advise  # isort: skip
from tune_stoppers.cli.shell import app as app
from tune_stoppers.cli.shell import main as main
