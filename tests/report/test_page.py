import base64
import io
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image

from report.made_up import FILLINGS, made_up_facts, made_up_pictures, made_up_rows
from simmim.report import StepPicture, write_comparison, write_page
from simmim.report.charts import MOST_POINTS, Curve, draw_chart, thin_out
from simmim.report.embed import MOST_STEPS, pack_pictures
from simmim.report.pictures import take_apart


@pytest.mark.parametrize(("images", "size"), [(1, (24, 32)), (3, (192, 192)), (8, (64, 64)), (5, (150, 100))])
def test_a_picture_comes_apart_into_what_it_was_made_of(tmp_path: Path, images: int, size: tuple[int, int]) -> None:
    picture = made_up_pictures(tmp_path, [7], images=images, size=size)[0]
    rows = take_apart(Image.open(picture.path), size)
    assert len(rows) == images
    for number, panels in enumerate(rows):
        greys = [round(255 * grey) for grey in (min(0.1 + 0.2 * number, 1), 0.5, 0.9)]
        for panel, grey in zip(panels, greys, strict=True):
            assert panel.size == size[::-1]
            darkest, brightest = panel.convert("L").getextrema()
            assert grey - 1 <= darkest == brightest <= grey + 1


def test_a_picture_of_another_layout_is_shown_whole(tmp_path: Path) -> None:
    Image.new("RGB", (301, 203), (9, 9, 9)).save(tmp_path / "other.png")
    gallery = pack_pictures([StepPicture(5, tmp_path / "other.png")], (192, 192))
    assert [(len(sight.fixed), len(sight.predicted)) for sight in gallery.sights] == [(0, 1)]


def test_many_pictures_are_thinned_out_and_the_first_and_the_last_stay(tmp_path: Path) -> None:
    pictures = made_up_pictures(tmp_path, list(range(1, 34)), images=2)
    gallery = pack_pictures(pictures, (24, 32))
    assert len(gallery.steps) == MOST_STEPS
    assert (gallery.steps[0], gallery.steps[-1]) == (1, 33)
    newest = Image.open(io.BytesIO(base64.b64decode(gallery.sights[0].predicted[-1].partition(",")[2])))
    assert newest.size == (32, 24)
    assert abs(newest.getpixel((5, 5))[0] - 0.9 * 255) < 3


def test_a_long_curve_is_averaged_and_ends_where_it_ends() -> None:
    points = [(float(x), float(x % 2)) for x in range(10_001)]
    thin = thin_out(points)
    assert len(thin) <= MOST_POINTS
    assert thin[-1] == points[-1]
    assert all(0.4 < y < 0.6 for _, y in thin[:-1])
    assert thin_out(points[:50]) == points[:50]


def test_a_chart_takes_its_colours_from_the_page_and_keeps_its_names_to_itself() -> None:
    svg = draw_chart([Curve("one", [(0, 1.0), (1, 2.0)], colour=2)], name="loss")
    root = ElementTree.fromstring(svg)
    styles = " ".join(element.get("style", "") for element in root.iter())
    assert "var(--line-3)" in styles
    assert not re.search(r"#[0-9a-f]{6}(?!\w)", styles.replace("#ffffff", "").replace("#000000", ""))
    ids = {element.get("id") for element in root.iter() if element.get("id")}
    assert all(name.startswith("loss-") for name in ids)
    assert set(re.findall(r'(?:url\(|href=")#([^)"]+)', svg)) <= ids


def test_a_page_of_twenty_photographs_stays_small(tmp_path: Path) -> None:
    from skimage import data

    photograph = Image.fromarray(data.astronaut()).resize((192, 192))
    pictures = made_up_pictures(tmp_path, list(range(1, 21)), images=8, size=(192, 192))
    for picture in pictures:
        canvas = Image.open(picture.path)
        for left in range(8, canvas.width - 192, 200):
            for top in range(26, canvas.height - 200, 200):
                canvas.paste(photograph.rotate(picture.step), (left, top))
        canvas.save(picture.path)
    write_page(tmp_path / "report.html", made_up_facts(pictures=pictures))
    assert (tmp_path / "report.html").stat().st_size < 1_500_000


def test_a_run_without_any_report_has_a_page(tmp_path: Path) -> None:
    write_page(tmp_path / "report.html", made_up_facts([], complete=False))
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "There is no report yet." in text
    assert "step 0 of 400" in text


def test_a_run_whose_fillings_are_perfect_has_a_page(tmp_path: Path) -> None:
    """Images of one colour each are filled without an error; nothing can be said in per cent of that."""
    perfect = dict.fromkeys(FILLINGS, 0.0)
    write_page(tmp_path / "report.html", made_up_facts(made_up_rows(**perfect)))
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "loss, fixed images" in text
    assert "against the best filling" not in text


def test_commands_are_shown_without_the_place_where_the_program_lay(tmp_path: Path) -> None:
    derived = {"environment": {"command": "/opt/somewhere/bin/simmim pretrain tiny --data digits"}}
    facts = made_up_facts(derived=derived)
    write_page(tmp_path / "one.html", facts)
    write_comparison(tmp_path / "two.html", [facts, made_up_facts(name="second")])
    for name in ("one.html", "two.html"):
        text = (tmp_path / name).read_text(encoding="utf-8")
        assert "simmim pretrain tiny --data digits" in text
        assert "/opt/somewhere" not in text
