"""The process that started this one, read before anything that takes time is imported."""

import os

PARENT = os.getppid()


def has_lost_its_parent() -> bool:
    """Whether the process that started this one is gone."""
    return os.getppid() != PARENT
