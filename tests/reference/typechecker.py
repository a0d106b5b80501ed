"""What jaxtyping's import hook checks annotations with."""

from collections.abc import Callable
from typing import Any

from beartype import BeartypeConf, beartype
from beartype.roar import BeartypeDecorHintPep673Exception, BeartypeDecorHintPep3119Exception

_check = beartype(conf=BeartypeConf(is_pep484_tower=True))  # a whole number may stand where any number may


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """beartype, but for the few functions it cannot take.

    Those are methods that return `Self` (the hook decorates methods one by one, and beartype then does not know the class)
    and functions that name a Protocol, which nobody can ask at run time. No tensor travels through them.
    """
    try:
        return _check(function)
    except (BeartypeDecorHintPep673Exception, BeartypeDecorHintPep3119Exception):
        return function
