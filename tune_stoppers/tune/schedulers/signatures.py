"""What `help` and editors show of a scheduler: each keyword behind `**common`, with its text."""

import inspect

from tune_stoppers.tune.parameter_docs import args_of, with_args


def spell_out(kind: type, base: type) -> None:
    """Write the keywords of `base` into the signature and the `Args:` of `kind`, for `**common`.

    What the docstring of `kind` says of one of them replaces what `base` says. A class without an
    `__init__` of its own, or whose `__init__` takes no `**common`, is left as it is. Type checkers
    read the same keywords from `Unpack[Common]`.
    """
    init = kind.__dict__.get("__init__")
    if init is None or "common" not in inspect.signature(init).parameters:
        return
    shown = dict(inspect.signature(init).parameters)
    del shown["common"]
    shown |= {
        key: parameter
        for key, parameter in inspect.signature(base.__init__).parameters.items()  # type: ignore[misc]
        if parameter.kind is parameter.KEYWORD_ONLY and key not in shown
    }
    init.__signature__ = inspect.Signature(list(shown.values()), return_annotation=None)
    if kind.__doc__:  # none under python -OO
        kind.__doc__ = with_args(kind.__doc__, shown, args_of(kind))
