"""Parameters are documented once, and read from there."""

from tune_stoppers.tune.parameter_docs import args_in, args_of, in_metric_units, with_args


class Base:
    """A base.

    Args:
        one: of the base.
        two, three: together.
    """


class Child(Base):
    """A child.

    Args:
        one: of the child: {"a": 1},
            on two lines.

    Not: a parameter.
    """


class Undocumented(Child):
    pass


def test_parameters_are_read_from_a_docstring() -> None:
    """Those of the base too; text over several lines is joined, and the section ends."""
    expected = {"one": 'of the child: {"a": 1}, on two lines.'}
    assert args_in(Child.__doc__ or "") == expected
    assert args_of(Undocumented) == expected | {"two": "together.", "three": "together."}
    assert args_in("No section.") == {}


def test_parameters_are_written_into_a_docstring() -> None:
    """In the order asked for; what is said of several is said once; no text, no entry."""
    texts = args_of(Child)
    written = with_args(
        "Does it.\n\n    Args:\n        one: old.\n    ", ["two", "one", "x"], texts
    )
    assert written == (
        'Does it.\n\nArgs:\n    two: together.\n    one: of the child: {"a": 1}, on two lines.\n'
    )
    both = with_args("Does it.", ["two", "three"], texts)
    assert both.endswith("Args:\n    two, three: together.\n")


def test_units_are_those_of_the_user() -> None:
    """A rule speaks of losses; a stopper takes the metric's own values."""
    assert in_metric_units("loss units (for a maximised metric: negated); x") == (
        "units of the metric; x"
    )
