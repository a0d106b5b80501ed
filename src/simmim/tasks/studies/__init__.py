"""Studies: one file says what varies, what is measured and how often; the runs are ordinary runs."""

from simmim.tasks.studies.ablate import Outcome, ablate, cells_to_run
from simmim.tasks.studies.study import Cell, Study, list_studies, read_study

__all__ = ["Cell", "Outcome", "Study", "ablate", "cells_to_run", "list_studies", "read_study"]
