"""What a person looks at: pictures, curves and tables."""

from simmim.report.confusion import draw_confusion
from simmim.report.curves import Curve, Point, draw_curves
from simmim.report.pictures import Row, draw_rows, to_rgb
from simmim.report.tables import print_table

__all__ = ["Curve", "Point", "Row", "draw_confusion", "draw_curves", "draw_rows", "print_table", "to_rgb"]
