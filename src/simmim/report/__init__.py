"""What a person looks at: pictures and tables."""

from simmim.report.confusion import draw_confusion
from simmim.report.pictures import Row, draw_rows, to_rgb
from simmim.report.tables import print_table

__all__ = ["Row", "draw_confusion", "draw_rows", "print_table", "to_rgb"]
