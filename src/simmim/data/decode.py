"""Open an image file of any known format, recognised by its content."""

from dataclasses import replace
from pathlib import Path

from simmim.data.array import open_numpy, open_tiff
from simmim.data.dicom import open_dicom
from simmim.data.image import MAX_PIXELS, ImageFile, UnreadableImage, unreadable_on_failure
from simmim.data.photo import open_photo

SUFFIXES = frozenset(
    {
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".webp",
        ".tif",
        ".tiff",
        ".bmp",
        ".dib",
        ".gif",
        ".npy",
        ".dcm",
        ".dicom",
    }
)
"""Names of image files, by which a folder is searched. What a file really is, its content says."""

_PILLOW = {b"\xff\xd8\xff": "JPEG", b"\x89PNG\r\n\x1a\n": "PNG", b"BM": "BMP", b"GIF8": "GIF"}
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_NUMPY = b"\x93NUMPY"
_UNKNOWN = "is not an image of a known format: JPEG, PNG, WebP, TIFF, BMP, GIF, .npy or DICOM"
_DICOM, _PREAMBLE = b"DICM", 128
_HEAD = _PREAMBLE + len(_DICOM)
_ARRAYS = {"NPY": open_numpy, "TIFF": open_tiff, "DICOM": open_dicom}


def open_image(source: str | Path | bytes, *, max_pixels: int = MAX_PIXELS) -> ImageFile:
    """Read the header of an image file, given by its path or its content.

    Known are JPEG, PNG, WebP, BMP, GIF and animated pictures (their first frame), TIFF and `.npy` arrays with any
    number of channels, DICOM. EXIF orientation counts: `height` and `width` are those of the upright picture.

    Raises `UnreadableImage`, with a reason in one line, if the file is missing, empty, of another format, damaged, or
    has more than `max_pixels` pixels. A damage behind the header shows only in `ImageFile.pixels`.
    """
    with unreadable_on_failure():
        head, data = (source[:_HEAD], source) if isinstance(source, bytes) else _read(source)
        kind = _format(head)
        if kind in _ARRAYS:
            source = Path(source) if isinstance(source, str) else source
            return replace(_ARRAYS[kind](source, max_pixels=max_pixels), format=kind)
        return replace(open_photo(data, kind=kind, max_pixels=max_pixels), format=kind)


def _read(path: str | Path) -> tuple[bytes, bytes]:
    """The first bytes of a file; of a picture all of them, too, at one opening."""
    with open(path, "rb", buffering=0) as file:
        head = file.read(_HEAD)
        if _pillow_format(head) is None:
            return head, b""
        file.seek(0)
        return head, file.readall()


def _format(head: bytes) -> str:
    if not head:
        raise UnreadableImage("is empty")
    if kind := _pillow_format(head):
        return kind
    if head.startswith(_NUMPY):
        return "NPY"
    if head.startswith(_TIFF):
        return "TIFF"
    if head[_PREAMBLE:] == _DICOM:
        return "DICOM"
    raise UnreadableImage(_UNKNOWN)


def _pillow_format(head: bytes) -> str | None:
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    return next((kind for magic, kind in _PILLOW.items() if head.startswith(magic)), None)
