"""DICOM files through pydicom, an optional extra."""

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simmim.data.image import ImageFile, Stack, UnreadableImage, check_size
from simmim.units import Size

_NOT_PIXELS = "holds no picture: a DICOM file without rows and columns"


def open_dicom(source: Path | bytes, *, max_pixels: int) -> ImageFile:
    """Read the header of a DICOM file. Several frames are pages.

    Rescale slope and intercept are applied, so that CT is in Hounsfield units; windows are not. MONOCHROME1, where zero
    is white, is turned round; palettes and YCbCr become colour.
    """
    import pydicom

    data = source if isinstance(source, bytes) else source.read_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        header: Any = pydicom.dcmread(io.BytesIO(data), stop_before_pixels=True)
        if "Rows" not in header or "Columns" not in header:
            raise UnreadableImage(_NOT_PIXELS)
        height, width = int(header.Rows), int(header.Columns)
        palette = str(header.get("PhotometricInterpretation")) == "PALETTE COLOR"
        channels = 3 if palette else int(header.get("SamplesPerPixel", 1))
        frames = int(header.get("NumberOfFrames", 1) or 1)
    check_size(height, width, max_pixels=max_pixels)

    def page(number: int) -> ImageFile:
        def read(at_least: Size | None) -> NDArray[Any]:
            return _frame(data, number)

        return ImageFile(height=height, width=width, channels=channels, read=read)

    first = page(0)
    return ImageFile(
        height=height,
        width=width,
        channels=channels,
        read=first.read,
        stack=(lambda: Stack(frames, page)) if frames > 1 else None,
    )


def _frame(data: bytes, number: int) -> NDArray[Any]:
    import pydicom
    from pydicom.pixels.processing import apply_color_lut
    from pydicom.pixels.utils import pixel_array

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        file: Any = pydicom.dcmread(io.BytesIO(data))
        array: NDArray[Any] = pixel_array(file, index=number)
        interpretation = str(file.PhotometricInterpretation)
        if interpretation == "PALETTE COLOR":
            array = apply_color_lut(array, file)
    if interpretation == "MONOCHROME1":
        array = _turned_round(array, bits=int(file.BitsStored), signed=bool(file.PixelRepresentation))
    slope, intercept = float(file.get("RescaleSlope", 1) or 1), float(file.get("RescaleIntercept", 0) or 0)
    if (slope, intercept) != (1, 0):
        array = array.astype(np.float32) * np.float32(slope) + np.float32(intercept)
    return array[:, :, None] if array.ndim == 2 else array


def _turned_round(array: NDArray[Any], *, bits: int, signed: bool) -> NDArray[Any]:
    return np.asarray(-1 - array if signed else array.dtype.type(2**bits - 1) - array, dtype=array.dtype)
