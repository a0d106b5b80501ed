import io
import struct
import zlib
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import simplejpeg
import tifffile
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from PIL import ImageFile as PillowFile

from simmim.data import UnreadableImage, jpeg, open_image


def decoded(source: Path | bytes) -> NDArray[Any]:
    """(height, width, channels), after a check that the header told the truth."""
    image = open_image(source)
    pixels = image.pixels()
    assert tuple(pixels.shape) == (image.channels, image.height, image.width)
    assert pixels.dtype in (torch.uint8, torch.float32)
    return pixels.permute(1, 2, 0).numpy()


def written(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def png(header: bytes, rows: bytes) -> bytes:
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows, 1)), (b"IEND", b"")]
    parts = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "WEBP"])
def test_lossless_formats_give_the_pixels_that_were_written(kind: str, photo: Any) -> None:
    colour = photo(30, 40)
    assert np.array_equal(decoded(written(Image.fromarray(colour), kind, lossless=True)), colour)
    if kind != "WEBP":
        assert np.array_equal(decoded(written(Image.fromarray(colour[..., 0]), kind)), colour[..., :1])


@pytest.mark.parametrize(
    ("mode", "kind", "channels"),
    [
        ("1", "PNG", 1),
        ("L", "JPEG", 1),
        ("LA", "PNG", 2),
        ("P", "PNG", 3),
        ("P", "GIF", 3),
        ("RGBA", "PNG", 4),
        ("RGBA", "WEBP", 4),
        ("CMYK", "JPEG", 3),
        ("CMYK", "TIFF", 3),
        ("1", "TIFF", 1),
        ("P", "TIFF", 3),
    ],
)
def test_every_kind_of_picture_becomes_grey_or_colour(mode: str, kind: str, channels: int, photo: Any) -> None:
    image = Image.fromarray(photo(30, 40)).convert(mode)
    if mode == "RGBA":
        image.putalpha(Image.fromarray(photo(30, 40)[..., 0]))
    array = decoded(written(image, kind))
    assert array.shape == (30, 40, channels)
    expected = np.array(image.convert({1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[channels])).reshape(30, 40, channels)
    if kind in ("PNG", "TIFF", "GIF"):
        assert np.array_equal(array, expected)
    else:
        assert np.abs(array.astype(int) - expected).mean() < 6


def test_palette_with_transparency_keeps_it(photo: Any) -> None:
    image = Image.fromarray(photo(30, 40)).convert("P")
    array = decoded(written(image, "PNG", transparency=int(np.array(image)[0, 0])))
    assert array.shape == (30, 40, 4)
    assert array[0, 0, 3] == 0


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_moving_pictures_the_first_frame_counts(kind: str) -> None:
    frames = [Image.new("RGB", (20, 10), colour) for colour in ("red", "blue")]
    array = decoded(written(frames[0], kind, save_all=True, append_images=frames[1:]))
    assert np.abs(array.astype(int) - [255, 0, 0]).max() < 5


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_exif_rotated_pictures_equal_their_upright_twins(orientation: int, kind: str, photo: Any) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = written(Image.fromarray(photo(24, 40)), kind, exif=exif)
    with Image.open(io.BytesIO(data)) as image:
        upright = np.array(ImageOps.exif_transpose(image))
    assert np.array_equal(decoded(data), upright)


def test_a_small_decoding_of_a_rotated_picture_covers_what_was_asked(photo: Any) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image = open_image(written(Image.fromarray(photo(400, 800)), "JPEG", exif=exif))
    assert (image.height, image.width) == (800, 400)
    assert tuple(image.pixels((200, 100)).shape) == (3, 200, 100)
    assert tuple(image.pixels((201, 100)).shape) == (3, 400, 200)
    assert tuple(image.pixels().shape) == (3, 800, 400)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_16_bit_png_keeps_its_depth(channels: int, rng: np.random.Generator) -> None:
    deep = rng.integers(0, 65536, (30, 40, channels), dtype=np.uint16)
    array = decoded(imagecodecs.png_encode(deep.squeeze()))
    assert array.dtype == np.float32
    np.testing.assert_allclose(array, deep / 65535, atol=1e-7)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize("channels", [1, 4, 13])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "float64", "int16"])
@pytest.mark.parametrize("layout", ["contig", "separate", "npy-last", "npy-first"])
def test_arrays_of_any_depth_and_number_of_channels(
    channels: int, dtype: str, layout: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    array = (rng.random((30, 40, channels)) * 200).astype(dtype)
    path = tmp_path / "array"
    stored = np.moveaxis(array, 2, 0) if layout in ("separate", "npy-first") else array
    if layout.startswith("npy"):
        with path.open("wb") as file:
            np.save(file, stored)
    else:
        planar = layout if channels > 1 else None
        tifffile.imwrite(path, stored.squeeze(), photometric="minisblack", planarconfig=planar, compression="zlib")
    scale = 65535 if dtype == "uint16" else 1
    found = decoded(path)
    assert found.dtype == (np.uint8 if dtype == "uint8" else np.float32)
    np.testing.assert_allclose(found, array / scale, rtol=1e-6)


def test_decoding_small_equals_decoding_in_full_and_resizing(photo: Any) -> None:
    data = written(Image.fromarray(photo(600, 800)), "JPEG", quality=95)
    image = open_image(data)
    small = image.pixels((150, 200))
    assert tuple(small.shape) == (3, 150, 200)
    with Image.open(io.BytesIO(data)) as full:
        expected = np.array(full.resize((200, 150), Image.Resampling.BOX)).astype(int)
    assert np.abs(small.permute(1, 2, 0).numpy() - expected).max() <= 3


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP"])
def test_truncated_files_are_errors(kind: str, photo: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PillowFile, "LOAD_TRUNCATED_IMAGES", True)  # a setting of somebody else's
    data = written(Image.fromarray(photo(60, 80)), kind)
    for length in (20, len(data) // 2, len(data) * 3 // 4):
        with pytest.raises(UnreadableImage, match="damaged") as caught:
            open_image(data[:length]).pixels()
        assert "\n" not in str(caught.value)
    assert PillowFile.LOAD_TRUNCATED_IMAGES is True


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"just some text", "not an image of a known format"),
        (b"\x89PNG\r\n\x1a\n", "is damaged"),
        (b"\x93NUMPY\x01\x00", "is damaged"),
        (b"II*\0", "is damaged"),
    ],
)
def test_what_is_no_image_says_so(content: bytes, reason: str, tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(content)
    for source in (content, tmp_path / "x.png"):
        with pytest.raises(UnreadableImage, match=reason):
            open_image(source)


def test_missing_files_and_folders_say_so(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImage, match="is not there"):
        open_image(tmp_path / "x.png")
    with pytest.raises(UnreadableImage, match="Is a directory"):
        open_image(tmp_path)


def test_values_that_are_not_finite_are_counted(tmp_path: Path) -> None:
    array = np.zeros((64, 64))
    array[0, :12] = [np.nan, np.inf] * 6
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(UnreadableImage, match="12 of 4096 values are not finite"):
        open_image(tmp_path / "x.npy").pixels()


@pytest.mark.parametrize(
    "array", [np.array([{"a": 1}]), np.zeros(3), np.zeros((2, 2, 2, 2)), np.zeros((3, 3), complex)]
)
def test_arrays_that_are_no_images(array: NDArray[Any], tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", array, allow_pickle=True)
    with pytest.raises(UnreadableImage):
        open_image(tmp_path / "x.npy").pixels()


def test_of_an_array_the_shorter_end_is_the_channels(tmp_path: Path) -> None:
    for shape, expected in [
        ((3, 9, 8), (3, 9, 8)),
        ((9, 8, 3), (3, 9, 8)),
        ((5, 8, 5), (5, 5, 8)),
        ((9, 8), (1, 9, 8)),
    ]:
        np.save(tmp_path / "x.npy", np.zeros(shape, np.uint8))
        assert tuple(open_image(tmp_path / "x.npy").pixels().shape) == expected


def test_decompression_bombs_are_refused_by_their_header() -> None:
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    with pytest.raises(UnreadableImage, match=r"900000000 pixels .* data.max_pixels"):
        open_image(png(header, b""))
    with pytest.raises(UnreadableImage, match=r"more than data.max_pixels allows"):
        open_image(png(struct.pack(">IIBBBBB", 10, 10, 8, 0, 0, 0, 0), b""), max_pixels=99)


def test_pictures_may_be_20_000_pixels_a_side() -> None:
    row = b"\0" + b"\xaa" * 2500
    image = open_image(png(struct.pack(">IIBBBBB", 20_000, 20_000, 1, 0, 0, 0, 0), row * 20_000))
    pixels = image.pixels()
    assert tuple(pixels.shape) == (1, 20_000, 20_000)
    assert pixels[0, 19_999, -2:].tolist() == [255, 0]
    assert decoded(png(struct.pack(">IIBBBBB", 40, 20_000, 8, 0, 0, 0, 0), (b"\0" + b"\7" * 40) * 20_000)).mean() == 7


def test_broken_exif_is_an_upright_picture(photo: Any) -> None:
    colour = photo(20, 30)
    data = written(Image.fromarray(colour), "PNG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff\0")
    assert np.array_equal(decoded(data), colour)


def test_a_missing_package_is_named(photo: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    data = imagecodecs.png_encode(photo(8, 8).astype(np.uint16))
    monkeypatch.setitem(__import__("sys").modules, "imagecodecs", None)
    with pytest.raises(UnreadableImage, match="needs the package imagecodecs"):
        open_image(data).pixels()


OPTIONS: list[dict[str, Any]] = [
    {},
    {"subsampling": 0},
    {"quality": 30, "progressive": True},
    {"optimize": True, "restart_marker_rows": 1, "comment": "words"},
]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("orientation", [None, 6])
def test_the_quick_decoder_gives_what_pillow_gives(
    mode: str, options: dict[str, Any], orientation: int | None, photo: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = SIZES
    if orientation:
        exif = Image.Exif()
        exif[274] = orientation
        options = options | {"exif": exif}
        sizes = tuple(size and size[::-1] for size in SIZES)
    data = written(Image.fromarray(photo(61, 90)).convert(mode), "JPEG", **options)
    asked: list[bytes] = []
    real = simplejpeg.decode_jpeg
    monkeypatch.setattr(simplejpeg, "decode_jpeg", lambda *given, **named: asked.append(data) or real(*given, **named))
    quick = open_image(data)
    pixels = [quick.pixels(size) for size in sizes]
    # What has to be turned, Pillow shrinks.
    assert len(asked) == (0 if mode == "CMYK" else len(SIZES) if orientation is None else 3)
    monkeypatch.setattr(jpeg, "simplejpeg", None)
    slow = open_image(data)
    assert (quick.height, quick.width, quick.channels) == (slow.height, slow.width, slow.channels)
    assert len({each.shape for each in pixels}) == 4
    for each, size in zip(pixels, sizes, strict=True):
        assert torch.equal(each, slow.pixels(size))


SIZES = (None, (61, 90), (31, 40), (30, 45), (16, 20), (15, 22), (7, 9))
"""Least sizes of a picture of 61 x 90 pixels, decoded at 1, 1, 1, 1/2, 1/2, 1/4 and 1/8."""


@pytest.mark.parametrize("place", [3, 20, 158, 159, 160, 161, 163, 164, 165, 166, 167, 400])
def test_a_broken_header_ends_as_with_pillow_alone(place: int, photo: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = written(Image.fromarray(photo(61, 90)), "JPEG")
    assert whole[158:160] == b"\xff\xc0"  # where the size stands
    for data in (whole[:place], whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :]):
        quick = end_of(data)
        with monkeypatch.context() as without:
            without.setattr(jpeg, "simplejpeg", None)
            assert quick == end_of(data)


def end_of(data: bytes) -> str | bytes:
    """The pixels of a file, or why there are none."""
    try:
        return decoded(data).tobytes()
    except UnreadableImage as error:
        return str(error)


def test_a_file_that_is_only_odd_is_read_by_pillow(photo: Any) -> None:
    data = written(Image.fromarray(photo(61, 90)), "JPEG")
    odd = data[:-2] + bytes(27) + data[-2:]  # cameras write such
    with pytest.raises(ValueError, match="extraneous bytes"):
        simplejpeg.decode_jpeg(odd)
    assert np.array_equal(decoded(odd), decoded(data))
