"""What a person looks at: pictures, curves, tables, and the page of a run."""

from simmim.report.confusion import draw_confusion
from simmim.report.curves import Curve, Point, draw_curves
from simmim.report.facts import Range, Result, RunFacts, StepPicture
from simmim.report.page import write_comparison, write_page
from simmim.report.pictures import Row, draw_rows, to_rgb
from simmim.report.tables import print_table
from simmim.report.verdict import Verdict, judge

__all__ = [
    "Curve",
    "Point",
    "Range",
    "Result",
    "Row",
    "RunFacts",
    "StepPicture",
    "Verdict",
    "draw_confusion",
    "draw_curves",
    "draw_rows",
    "judge",
    "print_table",
    "to_rgb",
    "write_comparison",
    "write_page",
]
