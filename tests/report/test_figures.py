"""The same pictures as matplotlib axes."""

import re
import sys

import pytest

from tests.stand_ins.folders import journal, stop_line, sweep
from tune_stoppers.report import experiment_story, figures
from tune_stoppers.report.html.page import page

matplotlib = pytest.importorskip("matplotlib", reason="needs the extra plots")
PLOTS = ["curves", "incumbent", "timeline", "endings", "hyperparameters", "parallel"]


@pytest.fixture(autouse=True)
def _no_window():
    """Draw to memory, and leave no figure open."""
    before = matplotlib.get_backend()
    matplotlib.use("Agg")
    yield
    matplotlib.pyplot.close("all")
    matplotlib.use(before)


@pytest.fixture
def story(tmp_path):
    folder = sweep(tmp_path)
    journal(folder, stop_line("aaaaa_00002", 2, numbers={"rung": 2.0}))
    return experiment_story(folder, "loss", "min")


@pytest.mark.parametrize("name", PLOTS)
def test_each_draws_on_new_axes_and_on_those_given(story, name, tmp_path):
    """With labels; what it returns can be saved."""
    plot = getattr(figures, f"plot_{name}")
    ax = plot(story)
    assert ax.get_xlabel() or len(ax.get_xticklabels()) > 1
    assert ax.has_data()
    given = matplotlib.pyplot.subplots()[1]
    assert plot(story, given) is given
    ax.figure.savefig(tmp_path / "figure.pdf")


def test_the_curves_are_those_of_the_story(story):
    """One line and one mark for each trial, the best one's star where it was best."""
    ax = figures.plot_curves(story)
    lines = [line.get_xydata().tolist() for line in ax.get_lines()]
    assert [list(point) for point in story.trials[0].curve] in lines
    assert [[5.0, 0.5]] in lines
    assert "PatienceStopper (2)" in [text.get_text() for text in ax.get_legend().get_texts()]


def test_a_figure_says_what_the_page_says(story):
    """One description for both: the names of the axes, the legend, as many marks of trials."""
    texts = set(re.findall(r">([^<]+)<", page(story)))
    for ax in (figures.plot_curves(story), figures.plot_incumbent(story)):
        legend = ax.get_legend()
        told = {ax.get_xlabel(), ax.get_ylabel()}
        told |= {text.get_text() for text in legend.get_texts()} if legend else set()
        assert told <= texts
    picture = figures.plot_timeline(story)
    assert len(picture.patches) == len(re.findall(r'<rect [^>]*class="bar[^>]*data-t', page(story)))


def test_one_hyperparameter(story):
    """Numbers on a scale, logarithmic where wide; categories by name."""
    assert figures.plot_hyperparameter(story, "lr").get_xscale() == "log"
    labels = [t.get_text() for t in figures.plot_hyperparameter(story, "opt").get_xticklabels()]
    assert labels == ["<script>alert(1)</script>", "adam", "sgd"]
    with pytest.raises(ValueError, match=r"'lrr'; there are: lr, opt, epochs"):
        figures.plot_hyperparameter(story, "lrr")


def test_a_further_metric(story):
    """Only those that were reported."""
    with pytest.raises(ValueError, match="has no 'grad_norm'; it has: none"):
        figures.plot_metric(story, "grad_norm")


def test_without_matplotlib_it_says_what_to_install(story, monkeypatch):
    """The page needs none."""
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r"tune_stoppers\[plots\]"):
        figures.plot_curves(story)
