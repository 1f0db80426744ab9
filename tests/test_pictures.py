"""Pictures as people have them: read as their owner means them, or refused with a sentence that names the file."""

from __future__ import annotations

import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin, TiffImagePlugin

import oodbench as ob
from oodbench.data import reading
from oodbench.data.folders import listing
from oodbench.data.views import apply_view
from oodbench.errors import DataError


@pytest.fixture
def grey(random):
    """A grey picture whose values are spread over the whole range."""
    picture = random.integers(0, 256, (9, 12)).astype(np.uint8)
    picture[0, :2] = 0, 255
    return picture


@pytest.fixture
def folder(tmp_path, home):
    path = tmp_path / "pics"
    path.mkdir()
    return path


def read(folder, view="", **options):
    return ob.load_images(f"{folder}{view and '@'}{view}", **options).images


def deep_tiff(values, path, **tags):
    info = TiffImagePlugin.ImageFileDirectory_v2()
    for number, value in ((int(name[1:]), value) for name, value in tags.items()):
        kind = 12 if isinstance(value, float) else 3
        info.tagtype[number] = kind
        info[number] = value
    Image.fromarray(values).save(path, tiffinfo=info)


def deep_png(values, path, kind, key=b""):
    """A PNG of sixteen bits: kind 0 is grey, 2 colours, 4 grey and alpha; ``key`` is its transparent colour."""
    height, width = values.shape[:2]
    raw = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    parts = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0))]
    parts += [(b"tRNS", key)] * bool(key)
    parts += [(b"IDAT", zlib.compress(raw)), (b"IEND", b"")]
    chunks = (
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in parts
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))


def raw_tiff(values, path, sample_format):
    """A grey TIFF of any type of numpy."""
    height, width = values.shape
    bits, size = values.itemsize * 8, values.nbytes
    tags = {
        256: width,
        257: height,
        258: bits,
        259: 1,
        262: 1,
        273: 134,
        277: 1,
        278: height,
        279: size,
    }
    entries = sorted({**tags, 339: sample_format}.items())
    written = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    start = b"II*\0" + struct.pack("<IH", 8, len(entries)) + written + bytes(4)
    assert len(start) == 134
    path.write_bytes(start + values.tobytes())


# --- how pixels are kept --------------------------------------------------------------------------


def test_sixteen_bits_of_a_png_are_those_eight(folder, grey):
    Image.fromarray(grey.astype(np.uint16) * 257).save(folder / "a.png")
    assert np.array_equal(read(folder)[0, 0], grey)


@pytest.mark.parametrize("suffix", ["tif", "pgm", "jp2"])
def test_sixteen_bits_of_other_formats_are_scaled_by_what_the_file_says(folder, grey, suffix):
    Image.fromarray(grey.astype(np.uint16) * 257).save(folder / f"a.{suffix}")
    assert np.array_equal(read(folder)[0, 0], grey)


def test_white_may_be_zero_in_a_deep_tiff(folder, grey):
    deep_tiff(grey.astype(np.uint16) * 257, folder / "a.tif", t262=0)
    with Image.open(folder / "a.tif") as image:
        assert image.tag_v2[262] == 0
    assert np.array_equal(read(folder)[0, 0], 255 - grey)


def test_sixteen_bit_colours_are_read(folder, random):
    colours = random.integers(0, 256, (9, 12, 3)).astype(np.uint8)
    deep_png(colours.astype(np.uint16) * 257, folder / "a.png", kind=2)
    assert np.array_equal(read(folder)[0], colours.transpose(2, 0, 1))


def test_sixteen_bit_grey_with_alpha_is_grey(folder, grey):
    opaque = np.full_like(grey, 255)
    deep_png(np.stack([grey, opaque], -1).astype(np.uint16) * 257, folder / "a.png", kind=4)
    assert np.array_equal(read(folder), grey[None, None])


@pytest.mark.parametrize(("kind", "key"), [(0, 0x1234), (2, 0x0101)])
def test_a_transparent_colour_of_other_than_8_bits_is_refused(folder, grey, kind, key):
    deep = grey.astype(np.uint16) * 257
    pixels = deep if kind == 0 else np.stack([deep] * 3, -1)
    deep_png(pixels, folder / "a.png", kind, struct.pack(">H", key) * (1 if kind == 0 else 3))
    with pytest.raises(DataError, match=r"a\.png names one colour as transparent, in other than 8"):
        read(folder, "on255")


@pytest.mark.parametrize("largest", [255, 1023, 65535])
def test_netpbm_names_its_largest_value(folder, grey, largest):
    values = np.round(grey / 255 * largest).astype(">u2" if largest > 255 else "u1")
    (folder / "a.pgm").write_bytes(b"P5\n12 9\n%d\n" % largest + values.tobytes())
    assert np.abs(read(folder)[0, 0].astype(int) - grey).max() <= 1


@pytest.mark.parametrize(("bits", "span"), [(8, "-127 to 127"), (16, "-9000 to 9000")])
def test_values_with_a_sign_are_refused_with_their_range(folder, bits, span):
    ends = np.array(span.split(" to "), int)
    values = np.repeat(ends, 54).reshape(9, 12)
    raw_tiff(values.astype(f"<i{bits // 8}"), folder / "a.tif", sample_format=2)
    with pytest.raises(
        DataError, match=rf"a\.tif has pixels .*{bits} bits with a sign, values from {span}\)"
    ):
        read(folder)


def test_a_tiff_of_a_kind_that_pillow_lacks_is_not_called_broken(folder):
    raw_tiff(np.linspace(0, 1, 108).reshape(9, 12), folder / "a.tif", sample_format=3)
    with pytest.raises(DataError, match=r"a\.tif .* begins as one, .* save it as a PNG"):
        read(folder)


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_deep_pictures_of_fewer_bits_than_the_file_says_are_refused(folder, random, bits):
    for number in range(3):
        values = random.integers(0, 2**bits, (9, 12)).astype(np.uint16)
        Image.fromarray(values).save(folder / f"{number}.png")
    with pytest.raises(
        DataError, match=r"16-bit pictures in .* would be nearly black: .* scale them"
    ):
        read(folder)


@pytest.mark.parametrize(
    ("values", "mode", "span"),
    [
        (np.linspace(0, 1, 108, dtype=np.float32), "F", "from 0 to 1"),
        (np.linspace(-3, 7, 108, dtype=np.float32), "F", "from -3 to 7"),
        (np.arange(108, dtype=np.int32) * 1000, "I", "from 0 to 107000"),
    ],
)
def test_floats_and_32_bits_are_refused_with_mode_and_range(folder, values, mode, span):
    Image.fromarray(values.reshape(9, 12)).save(folder / "a.tif")
    with pytest.raises(DataError, match=rf"a\.tif has pixels of mode {mode} \(32-bit .*{span}\)"):
        read(folder)


def test_floats_are_scaled_where_the_file_says_how(folder, grey):
    deep_tiff(grey.astype(np.float32) / 255, folder / "a.tif", t340=0.0, t341=1.0)
    assert np.array_equal(read(folder)[0, 0], grey)


def test_grey_pictures_are_grey_however_they_are_kept(folder, grey):
    image = Image.fromarray(grey)
    palette = image.convert("RGB").quantize(256)
    palette.save(folder / "palette.png")
    image.convert("LA").save(folder / "alpha.png")
    Image.fromarray(grey).convert("P").save(folder / "p.gif")
    Image.fromarray(np.where(grey > 127, 255, 0).astype(np.uint8)).convert("1").save(
        folder / "one.png"
    )
    found = read(folder)
    assert found.shape == (4, 1, 9, 12)
    assert np.array_equal(found[0, 0], grey)
    assert np.array_equal(found[1, 0], np.where(grey > 127, 255, 0))
    assert np.array_equal(found[2, 0], grey)
    assert np.array_equal(found[3, 0], np.asarray(palette.convert("L")))


def test_a_palette_of_colours_is_rgb(folder, random):
    colours = random.integers(0, 4, (9, 12, 3)).astype(np.uint8) * 60
    Image.fromarray(colours).quantize(64).save(folder / "a.png")
    with Image.open(folder / "a.png") as kept:
        expected = np.asarray(kept.convert("RGB")).transpose(2, 0, 1)
    assert np.array_equal(read(folder)[0], expected)


def test_transparency_is_composited_on_a_named_ground_or_refused(folder, random):
    rgba = random.integers(0, 256, (9, 12, 4)).astype(np.uint8)
    Image.fromarray(rgba).save(folder / "a.png")
    with pytest.raises(DataError, match=r"a\.png is transparent in \d+\.\d% .* @on255 for white"):
        read(folder)
    for level in (0, 255, 37):
        alpha = rgba[..., 3:].astype(float) / 255
        expected = np.floor(rgba[..., :3] * alpha + level * (1 - alpha) + 0.5)
        found = read(folder, f"on{level}")[0].transpose(1, 2, 0)
        assert np.abs(found - expected).max() <= 1  # a tie may fall either way in floats
    assert ob.load_images(f"{folder}@on255", shape=(1, 28, 28)).view == (
        "on255,square,resize28-bilinear-aa,grey"
    )


def test_an_alpha_that_hides_nothing_is_dropped(folder, random):
    colours = random.integers(0, 256, (9, 12, 3)).astype(np.uint8)
    Image.fromarray(np.dstack([colours, np.full((9, 12), 255, np.uint8)])).save(folder / "a.png")
    assert np.array_equal(read(folder)[0], colours.transpose(2, 0, 1))


def test_a_transparent_colour_of_a_palette_or_of_grey_is_transparency(folder, grey):
    Image.fromarray(grey).save(folder / "a.png", transparency=int(grey[3, 3]))
    with pytest.raises(DataError, match="transparent"):
        read(folder)
    found = read(folder, "on0")[0, 0]
    assert np.array_equal(found, np.where(grey == grey[3, 3], 0, grey))


def test_a_ground_stands_first():
    with pytest.raises(DataError, match="must stand first"):
        apply_view(np.zeros((1, 4, 2, 2), np.uint8), "square,on255")
    opaque = np.arange(12, dtype=np.uint8).reshape(1, 3, 2, 2)
    assert np.array_equal(apply_view(opaque, "on255"), opaque)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_of_a_camera_is_applied(folder, grey, orientation):
    from PIL import ImageOps

    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(grey).save(folder / "a.png", exif=exif)
    with Image.open(folder / "a.png") as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    assert np.array_equal(read(folder)[0, 0], expected)
    assert expected.shape == ((12, 9) if orientation > 4 else (9, 12))


def test_modes_without_a_known_meaning_are_refused(folder):
    Image.fromarray(np.zeros((9, 12, 3), np.uint8), "LAB").save(folder / "a.tif")
    with pytest.raises(DataError, match=r"a\.tif has pixels of mode LAB"):
        read(folder)


# --- files that are no picture --------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif"])
def test_animated_and_many_paged_files_are_refused(folder, grey, suffix):
    frames = [Image.fromarray(np.roll(grey, step)) for step in range(3)]
    frames[0].save(folder / f"a.{suffix}", save_all=True, append_images=frames[1:])
    with pytest.raises(DataError, match=rf"a\.{suffix} holds 3 pictures \(animated"):
        read(folder)


def test_a_second_camera_frame_is_no_second_picture(folder, grey):
    first = Image.fromarray(grey)
    first.save(folder / "a.jpg", format="MPO", save_all=True, append_images=[first], quality=100)
    assert read(folder).shape == (1, 1, 9, 12)


def test_files_that_are_left_out_are_counted_by_reason(folder, grey, caplog):
    image = Image.fromarray(grey)
    for name in ("a.png", "b.JPEG", "c.jfif", "d.gif", "e.jp2", "f.PNG"):
        image.save(folder / name, format=None if name != "c.jfif" else "JPEG")
    image.save(folder / "nosuffix", format="PNG")
    for name in ("x.heic", "y.heic", "labels.csv", "README", ".DS_Store", "._a.png", "Thumbs.db"):
        (folder / name).write_bytes(b"words")
    (folder / ".ipynb_checkpoints").mkdir()
    image.save(folder / ".ipynb_checkpoints" / "a.png")
    os.mkfifo(folder / "pipe.png")
    found = listing(folder)
    assert len(found.pictures) == 7
    assert found.left_out == {
        ".heic": 2, ".csv": 1, "without a suffix": 1, "hidden": 3, "in hidden folders": 1,
        "no regular file (a pipe, socket or device)": 1,
    }  # fmt: skip
    assert len(read(folder)) == 7
    assert "7 of 16 files in" in caplog.text
    assert "2 .heic" in caplog.text


def test_linked_folders_are_read_once(folder, grey, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    Image.fromarray(grey).save(tmp_path / "elsewhere" / "a.png")
    (folder / "cats").symlink_to(tmp_path / "elsewhere")
    (folder / "loop").symlink_to(folder)
    assert read(folder).shape == (1, 1, 9, 12)


def test_a_dangling_link_is_named(folder, grey):
    Image.fromarray(grey).save(folder / "a.png")
    (folder / "b.png").symlink_to("/no/such/file.png")
    with pytest.raises(DataError, match=r"b\.png is a link to /no/such/file\.png, which cannot"):
        read(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a readable image"),
        (b"<!DOCTYPE html>", "is not a readable image"),
        (b"\x89PNG\r\n\x1a\n", "is not a readable image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is not a readable image"),
        (b"P5 0 0 255\n", "a.png"),
        (b"GIF89a\0\0\0\0\0\0\0\x3b", "a.png"),
    ],
)
def test_what_is_no_picture_is_named(folder, content, message):
    (folder / "a.png").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read(folder)


@pytest.mark.parametrize("side", [10_000, 30_000])
def test_a_bomb_of_pixels_is_refused_with_its_size(folder, side):
    rows = zlib.compressobj(9)
    body = b"".join(rows.compress(b"\0" * (side // 8 + 1)) for _ in range(side)) + rows.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    with (folder / "a.png").open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        for kind, content in ((b"IHDR", header), (b"IDAT", body), (b"IEND", b"")):
            PngImagePlugin.putchunk(file, kind, content)
    with pytest.raises(DataError, match=r"a\.png .*(10,000 × 10,000|900000000) pixels"):
        read(folder)


def test_all_pictures_that_cannot_be_read_are_counted(folder, grey):
    for number in range(40):
        Image.fromarray(grey).save(folder / f"{number:02d}.png")
    for number in (5, 20, 39):
        (folder / f"{number:02d}.png").write_bytes(b"torn")
    with pytest.raises(DataError, match=r"05\.png is not .* 2 more of its files cannot be read"):
        read(folder)


# --- many pictures --------------------------------------------------------------------------------


def test_pictures_are_read_once_in_order_and_not_again(folder, random, monkeypatch):
    pixels = random.integers(0, 256, (50, 9, 12, 3)).astype(np.uint8)
    for number, picture in enumerate(pixels):
        Image.fromarray(picture).save(folder / f"{number:02d}.png")
    expected = apply_view(pixels.transpose(0, 3, 1, 2), "square,resize8-bilinear-aa")
    looked, decoded = [], []
    header, decode = reading.header, reading.decode
    monkeypatch.setattr(reading, "header", lambda one: looked.append(one) or header(one))
    monkeypatch.setattr(reading, "decode", lambda one: decoded.append(one) or decode(one))
    for _ in range(2):
        assert np.array_equal(read(folder, shape=(3, 8, 8)), expected)
    assert len(looked) == len(decoded) == 50


def test_grey_among_colours_and_sizes_that_differ(folder, random):
    grey, colour = (
        random.integers(0, 256, size).astype(np.uint8) for size in ((20, 30), (40, 16, 3))
    )
    Image.fromarray(grey).save(folder / "a.png")
    Image.fromarray(colour).save(folder / "b.png")
    found = ob.load_images(str(folder), shape=(3, 8, 8))
    assert found.view == "square,resize8-bilinear-aa"
    alone = apply_view(grey[None, None], "square,resize8-bilinear-aa,rgb")
    assert np.array_equal(found.images[0], alone[0])
    assert ob.load_images(str(folder), shape=(1, 8, 8)).view == "square,resize8-bilinear-aa,grey"


def test_a_bar_tells_of_many_pictures(folder, grey, monkeypatch, capsys):
    for number in range(5):
        Image.fromarray(grey).save(folder / f"{number}.png")
    monkeypatch.setattr(reading, "TOLD", 5)
    read(folder)
    assert "reading pics: 5 of 5 images" in capsys.readouterr().err.replace("\n", " ")
