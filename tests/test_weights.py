"""Other people's weight files: every byte of a well-formed one as it is, and one sentence for every other.

The files are written here by hand (struct, json, ten lines of protocol buffers), not by the libraries that read them.
PyTorch's format has its own tests.
"""

import io
import json
import os
import struct
import tracemalloc
import warnings
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minifcn as mf
from minifcn.cli import main
from minifcn.weights import faults, listing, read
from minifcn.weights.caffemodel import read_caffemodel
from minifcn.weights.npz import read_npz
from minifcn.weights.safetensors import read_safetensors

FLOATS = np.array([[1.5, -0.0, 3.25e-40], [np.inf, np.nan, -7.0]], np.float32)


# -- files by hand


def safetensors(header, data=b""):
    """header: a dict, or the header's own bytes."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    if not isinstance(header, bytes):
        text += b" " * (-len(text) % 8)  # as every writer does
    return struct.pack("<Q", len(text)) + text + data


def entry(dtype, shape, first, last):
    return {"dtype": dtype, "shape": shape, "data_offsets": [first, last]}


def npy(descr, shape, data, fortran="False", version=1):
    text = f"{{'descr': {descr!r}, 'fortran_order': {fortran}, 'shape': {shape}, }}"
    return (
        b"\x93NUMPY"
        + bytes([version, 0])
        + struct.pack("<H" if version == 1 else "<I", len(text))
        + (text.encode() + data)
    )


def npz(*entries, method=zipfile.ZIP_STORED):
    """entries: (name in the zip, bytes)."""
    stream = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(stream, "w", method) as archive:
        warnings.simplefilter("ignore")  # zipfile warns of a name that it writes twice
        for name, data in entries:
            archive.writestr(name, data)
    return stream.getvalue()


def varint(value):
    value &= (1 << 64) - 1
    data = b""
    while value > 127:
        data += bytes([value & 127 | 128])
        value >>= 7
    return data + bytes([value])


def field(number, value):
    """A protocol-buffers field: an int as a varint, bytes as bytes, a float as 4 bytes."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def blob(shape, values):
    return field(7, field(1, b"".join(map(varint, shape)))) + field(5, struct.pack(f"<{len(values)}f", *values))


def layer(name, *blobs):
    return field(100, field(1, name) + field(2, b"Convolution") + b"".join(field(7, b) for b in blobs))


GOOD = {
    "safetensors": safetensors(
        {"__metadata__": {"by": "hand"}, "w": entry("F32", [2, 3], 0, 24), "n": entry("I64", [], 24, 32)},
        FLOATS.tobytes() + struct.pack("<q", -5),
    ),
    "npy": npy("<f4", "(2, 3)", FLOATS.tobytes()),
    "npz": npz(("w.npy", npy("<f4", "(2, 3)", FLOATS.tobytes())), ("n.npy", npy("<i8", "()", struct.pack("<q", -5)))),
    "deflated": npz(("w.npy", npy("<f4", "(2, 3)", FLOATS.tobytes())), method=zipfile.ZIP_DEFLATED),
    "caffemodel": field(1, b"net") + layer(b"conv1", blob((2, 3), FLOATS.ravel()), blob((2,), (0.5, -2.0))),
}


@pytest.fixture
def put(tmp_path):
    """Writes bytes to a file whose name says nothing about its format."""

    def write(data, name="file"):
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return write


def same(array, expected):
    """The same dtype, shape and bits, NaNs included."""
    expected = np.asarray(expected)
    return (array.dtype, array.shape, array.tobytes()) == (expected.dtype, expected.shape, expected.tobytes())


def fault(path, reader=read):
    """The one sentence with which a file is refused."""
    found, text = outcome(path, reader)
    assert found is None, "it was read"
    return text


def outcome(path, reader):
    """(arrays, "") of a file that is read, and (None, the sentence) of one that is refused."""
    try:
        return reader(path), ""
    except ValueError as error:
        text = str(error)
    assert text.startswith(f"read: {path}")
    assert "\n" not in text
    return None, text


# -- well-formed files


@pytest.mark.parametrize("kind", GOOD)
def test_values_are_the_files_bits(put, kind):
    found = read(put(GOOD[kind]))
    names = {"npy": ["arr_0"], "deflated": ["w"], "caffemodel": ["conv1.weight", "conv1.bias"]}.get(kind, ["w", "n"])
    assert list(found) == names
    assert same(found[names[0]], FLOATS)
    if "n" in found:
        assert same(found["n"], np.int64(-5))
    if kind == "caffemodel":
        assert same(found["conv1.bias"], np.array([0.5, -2.0], np.float32))


def test_the_room_is_found_without_importing_it(put):
    assert same(mf.weights.read(str(put(GOOD["npy"])))["arr_0"], FLOATS)


@pytest.mark.parametrize(
    ("kind", "data", "expected"),
    [
        ("F64", struct.pack("<2d", 1.5, -2.0), np.array([1.5, -2.0])),
        ("F16", struct.pack("<2e", 1.5, -2.0), np.array([1.5, -2.0], np.float16)),
        ("BF16", struct.pack("<2H", 0x3FC0, 0xC000), np.array([1.5, -2.0], np.float32)),
        ("I32", struct.pack("<2i", 1, -2), np.array([1, -2], np.int32)),
        ("U64", struct.pack("<2Q", 1, 2**64 - 1), np.array([1, 2**64 - 1], np.uint64)),
        ("I16", struct.pack("<2h", 1, -2), np.array([1, -2], np.int16)),
        ("U8", b"\1\xff", np.array([1, 255], np.uint8)),
        ("BOOL", b"\0\2", np.array([False, True])),
    ],
)
def test_safetensors_dtypes(put, kind, data, expected):
    found = read_safetensors(put(safetensors({"x": entry(kind, [2], 0, len(data))}, data)))["x"]
    assert same(found, expected)
    assert found.flags.aligned


def test_bfloat16_keeps_nan_infinity_and_every_bit(put):
    bits = np.arange(2**16, dtype="<u2")
    found = read(put(safetensors({"x": entry("BF16", [2**16], 0, 2**17)}, bits.tobytes())))["x"]
    assert found.dtype == np.float32
    assert np.array_equal(found.view(np.uint32), bits.astype(np.uint32) * 65536)


@pytest.mark.parametrize("pad", range(4))
def test_safetensors_may_lie_at_any_address(put, pad):
    text = json.dumps({"x": entry("F32", [2, 3], 0, 24)}).encode() + b" " * pad
    found = read(put(safetensors(text, FLOATS.tobytes())))["x"]
    assert same(found, FLOATS)
    assert found.flags.aligned


@pytest.mark.parametrize("kind", ["F32", "BF16", "BOOL"])
def test_safetensors_may_be_empty(put, kind):
    assert read(put(safetensors({}))) == {}
    dtype = {"F32": np.float32, "BF16": np.float32, "BOOL": bool}[kind]
    assert same(read(put(safetensors({"x": entry(kind, [0, 3], 0, 0)})))["x"], np.empty((0, 3), dtype))


def test_safetensors_values_survive_that_the_file_is_replaced(put, tmp_path):
    path = put(GOOD["safetensors"])
    found = read(path)
    other = put(b"something else", "other")
    os.replace(other, path)
    assert same(found["w"], FLOATS)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    ("descr", "data", "expected"),
    [
        (">f4", struct.pack(">2f", 1.5, -2.0), np.array([1.5, -2.0], np.float32)),
        ("<f8", struct.pack("<2d", 1.5, -2.0), np.array([1.5, -2.0])),
        ("<f2", struct.pack("<2e", 1.5, -2.0), np.array([1.5, -2.0], np.float16)),
        (">i2", struct.pack(">2h", 1, -2), np.array([1, -2], np.int16)),
        ("|u1", b"\1\xff", np.array([1, 255], np.uint8)),
        ("|b1", b"\0\2", np.array([False, True])),
    ],
)
def test_npy_dtypes_and_byte_orders(put, version, descr, data, expected):
    assert same(read(put(npy(descr, "(2,)", data, version=version)))["arr_0"], expected)


def test_npy_in_fortrans_order_and_without_axes(put):
    found = read(put(npy("<f4", "(2, 3)", FLOATS.tobytes(order="F"), fortran="True")))["arr_0"]
    assert same(found, FLOATS)
    assert same(read(put(npy("<f4", "()", struct.pack("<f", 2.5))))["arr_0"], np.float32(2.5))
    assert same(read(put(npy("<f4", "(0, 3)", b"")))["arr_0"], np.empty((0, 3), np.float32))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_what_numpy_writes(tmp_path, save):
    arrays = {"a.b": FLOATS, "t": FLOATS.T, "n": np.array(3), "é": np.zeros((3, 0), bool), "h": np.float16([1, 2])}
    save(tmp_path / "file.npz", **arrays)
    found = read(tmp_path / "file.npz")
    assert list(found) == list(arrays)
    assert all(same(found[name], arrays[name]) for name in arrays)


def test_caffemodel_names_doubles_and_every_way_to_write_a_shape(put):
    four = struct.pack("<4f", 1, 2, 3, 4)
    unpacked = field(7, field(1, 2) + field(1, 2)) + b"".join(field(5, float(v)) for v in (1, 2, 3, 4))
    pieces = field(5, four[:8]) + field(7, field(1, b"\2\2")) + field(6, four) + field(5, four[8:])
    old = field(1, 1) + field(2, 1) + field(3, 2) + field(4, 2) + field(5, four)
    both = old + field(7, field(1, b"\4"))
    doubles = field(7, field(1, b"\2")) + field(8, struct.pack("<2d", 0.1, -0.2)) + field(5, four)
    alone = varint(8 << 3 | 1) + struct.pack("<d", 0.1)
    scalar = field(5, 4.0)
    first = field(7, unpacked) + field(1, b"a/b") + field(7, pieces)  # the name after a blob
    second = field(1, b"c") + b"".join(field(7, b) for b in (old, both, doubles, alone, scalar))
    found = read(put(field(100, first) + field(3, b"data") + field(100, field(1, b"relu")) + field(100, second)))
    assert list(found) == ["a/b.weight", "a/b.bias", "c.weight", "c.bias", "c.2", "c.3", "c.4"]
    square = np.float32([[1, 2], [3, 4]])
    assert same(found["a/b.weight"], square)
    assert same(found["a/b.bias"], square)
    assert same(found["c.weight"], square[None, None])
    assert same(found["c.bias"], square[None, None]), "Caffe prefers the old sizes"
    assert same(found["c.2"], np.array([0.1, -0.2]))
    assert same(found["c.3"], np.array(0.1))
    assert same(found["c.4"], np.float32(4))


def test_caffemodel_of_the_first_version(put):
    one = field(4, b"conv1") + field(5, 4) + field(6, blob((1, 1, 2, 3), FLOATS.ravel())) + field(7, 1.0)
    found = read(put(field(1, b"VGG") + field(2, one)))
    assert list(found) == ["conv1.weight"]
    assert same(found["conv1.weight"], FLOATS[None, None])
    assert "V0" in fault(put(field(2, field(1, field(1, b"conv1")))))


# -- malformed and hostile files


@pytest.mark.parametrize("kind", GOOD)
def test_a_file_that_ends_early_is_refused_at_every_byte(put, kind):
    data = GOOD[kind]
    for length in range(len(data)):
        fault(put(data[:length]))


@pytest.mark.parametrize("kind", GOOD)
@given(data=st.data())
def test_changed_bytes_are_read_or_refused(tmp_path, kind, data):
    content = bytearray(GOOD[kind])
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "file"
    path.write_bytes(content)
    for reader in (read, {"npy": read_npz, "deflated": read_npz}.get(kind) or globals()[f"read_{kind}"]):
        found, _ = outcome(path, reader)
        listing.table(found or {})


@given(content=st.binary(max_size=200), start=st.sampled_from([b"", b"PK\3\4", b"\x93NUMPY\1\0", b"\x0a\3net\xa2\6"]))
def test_any_bytes_are_read_or_refused(tmp_path, content, start):
    path = tmp_path / "file"
    path.write_bytes(start + content)
    for reader in (read, read_npz, read_safetensors, read_caffemodel):
        outcome(path, reader)


BAD_HEADERS = {
    "not covered": ({"x": entry("F32", [1], 0, 4)}, 8),
    "gap": ({"x": entry("F32", [1], 4, 8)}, 8),
    "overlap": ({"x": entry("F32", [1], 0, 4), "y": entry("F32", [1], 0, 4)}, 4),
    "beyond the file": ({"x": entry("F32", [100], 0, 400)}, 4),
    "longer than its shape": ({"x": entry("F32", [1], 0, 8)}, 8),
    "backwards": ({"x": entry("F32", [1], 4, 0)}, 4),
    "negative offset": ({"x": entry("F32", [1], -4, 0)}, 4),
    "negative size": ({"x": entry("F32", [-1], 0, 4)}, 4),
    "product that overflows": ({"x": entry("F32", [2**32, 2**32], 0, 0)}, 0),
    "size that NumPy cannot have": ({"x": entry("F32", [2**63, 0], 0, 0)}, 0),
    "100 axes": ({"x": entry("F32", [1] * 100, 0, 4)}, 4),
    "fraction": ({"x": entry("F32", [1.5], 0, 4)}, 4),
    "true": ({"x": entry("F32", [True], 0, 4)}, 4),
    "unknown dtype": ({"x": entry("F31", [1], 0, 4)}, 4),
    "dtype that NumPy lacks": ({"x": entry("F8_E4M3", [4], 0, 4)}, 4),
    "no dtype": ({"x": {"shape": [1], "data_offsets": [0, 4]}}, 4),
    "a list": (b"[]", 0),
    "deep": (b'{"x":' * 5000, 0),
    "no text": (b"{\xff}", 0),
    "not a number": (b'{"x":{"dtype":"F32","shape":[NaN],"data_offsets":[0,4]}}', 4),
    "a name twice": (
        b'{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"x":{"dtype":"I32","shape":[1],"data_offsets":[0,4]}}',
        4,
    ),
}


@pytest.mark.parametrize("what", BAD_HEADERS)
def test_safetensors_headers_that_are_wrong(put, what):
    header, size = BAD_HEADERS[what]
    fault(put(safetensors(header, bytes(size))), read_safetensors)


@pytest.mark.parametrize("length", [2**63, 2**64 - 1, 2**31, 100])
def test_safetensors_header_longer_than_the_file(put, length):
    assert f"a header of {length} bytes" in fault(put(struct.pack("<Q", length) + b"{}"))


def test_a_long_safetensors_header_is_refused_unread(put):
    text = fault(put(safetensors(b"{" + b" " * (5 << 20) + b"}")))
    assert "up to 4194304 are read" in text


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (npy("|O", "(1,)", b"\x80\4N."), "holds Python objects, which only pickle could read"),
        (npy("<U4", "(1,)", bytes(16)), "holds no numbers"),
        (npy("<c8", "(1,)", bytes(8)), "holds no numbers"),
        (npy("<f16", "(1,)", bytes(16)), "holds no numbers"),
        (npy([("a", "<f4")], "(1,)", bytes(4)), "none of plain numbers"),
        (npy("<f4", "(-1,)", bytes(4)), "none of plain numbers"),
        (npy("<f4", "(1, )', __import__('os').system('true'), '", bytes(4)), "none of plain numbers"),
        (npy("<f4", "(" * 3000, bytes(4)), "none of plain numbers"),
        (npy("<f4", "(2,)", bytes(4)), "needs 8 bytes and has 4"),
        (npy("<f4", "(1,)", bytes(8)), "needs 4 bytes and has 8"),
        (npy("<f4", f"({2**62}, {2**62})", bytes(4)), "bytes and has 4"),
        (npy("<f4", f"({2**70}, 0)", b""), "not a complete .npz or .npy file"),
        (npy("<f4", f"({'1, ' * 100})", bytes(4)), "not a complete .npz or .npy file"),
        (npy("<f4", "(1,)" + " " * 5000, bytes(4)), "up to 4096 are read"),
        (npy("<f4", "(1,)", bytes(4), version=3), "version 1 or 2"),
        (b"\x93NUMPY\1\0\xff\xff{", "65535 characters"),
    ],
)
def test_npy_files_that_are_wrong(put, data, words):
    assert words in fault(put(data))
    assert words in fault(put(npz(("x.npy", data))))


def test_npz_files_that_are_wrong(put):
    good = npy("<f4", "(1,)", bytes(4))
    assert "'note.txt' is no .npy file" in fault(put(npz(("x.npy", good), ("note.txt", b"hello"))))
    assert "'x' is listed twice" in fault(put(npz(("x.npy", good), ("x.npy", good))))
    assert "is packed by method 12" in fault(put(npz(("x.npy", good), method=zipfile.ZIP_BZIP2)))
    assert "neither a data.pkl nor .npy" in fault(put(npz(("a.txt", b"hello"))))
    assert "neither a data.pkl nor .npy" in fault(put(npz()))
    encrypted = bytearray(npz(("x.npy", good)))
    encrypted[6] |= 1
    encrypted[encrypted.index(b"PK\1\2") + 8] |= 1
    assert "encrypted" in fault(put(encrypted))
    wrong = bytearray(npz(("x.npy", good)))
    wrong[wrong.index(good) + len(good) - 1] ^= 1
    assert "CRC" in fault(put(wrong))


def bomb(size):
    """A zip with one array of zeros, `size` bytes before packing."""
    return npz(("x.npy", npy("|u1", f"({size},)", bytes(size))), method=zipfile.ZIP_DEFLATED)


def test_a_zip_bomb_is_refused_by_what_it_declares(put):
    path = put(bomb(200 << 20))
    assert "would unpack to" in peak(lambda: fault(path), path.stat().st_size, slack=10 << 20)
    assert read(put(bomb(8 << 20)))["x"].size == 8 << 20, "little is no bomb"


def test_a_zip_bomb_that_lies_about_its_size_is_refused(put):
    data = bytearray(bomb(20 << 20))
    true = struct.pack("<I", 20 * 2**20 + len(npy("|u1", f"({20 << 20},)", b"")))
    small = npy("|u1", "(100,)", bytes(100))
    assert data.count(true) == 2  # the entry's own header, and the list
    path = put(data.replace(true, struct.pack("<I", len(small))))
    peak(lambda: fault(path), path.stat().st_size, slack=10 << 20)


def test_a_packed_array_that_is_shorter_than_it_says_is_refused(put):
    short = npy("|u1", "(200,)", bytes(100))
    data = npz(("x.npy", short), method=zipfile.ZIP_DEFLATED)
    true, larger = (struct.pack("<I", n) for n in (len(short), len(short) + 100))
    assert data.count(true) == 2
    assert "'x' ends after 100 of 200 bytes" in fault(put(data.replace(true, larger)))


def test_a_zip_that_lists_one_entry_many_times_is_refused(put):
    """Overlapping entries: each is small, all of them are not."""
    data = bomb(1 << 20)
    at, end = data.index(b"PK\1\2"), data.index(b"PK\5\6")
    record = data[at:end]
    many = b"".join(record.replace(b"x.npy", bytes([97 + n]) + b".npy") for n in range(26))
    tail = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 26, 26, len(many), at, 0)
    assert "would unpack to" in fault(put(data[:at] + many + tail))


def test_a_zip_with_an_endless_list_is_refused_unread(put):
    record = struct.pack("<4s4B4HL2L5H2L", b"PK\1\2", 20, 0, 20, 0, 0, 0, 0, 33, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"a"
    many = record * (6 * 2**20 // len(record))
    path = put(b"PK\3\4" + many + struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 1, 1, len(many), 4, 0))
    text = peak(lambda: fault(path), path.stat().st_size, slack=10 << 20)
    assert f"the zip's list of entries has {len(many)} bytes" in text


FOUR = struct.pack("<f", 1)
BAD_BLOBS = {
    "needs 8 bytes and has 4": field(7, field(1, b"\2")) + field(5, FOUR),
    "needs 4 bytes and has 0": field(7, field(1, b"\1")),
    "needs 4 bytes and has 8": field(7, field(1, b"\1")) + field(5, FOUR + FOUR),
    "needs 4 bytes and has 3": field(7, field(1, b"\1")) + field(5, FOUR[:3]),
    "bytes and has 4": field(7, field(1, varint(2**62) * 2)) + field(5, FOUR),
    "has the shape (-1,)": field(7, field(1, varint(-1))) + field(5, FOUR),
    "has the shape (1, 1, -1, 1)": b"".join(field(n, 1) for n in (1, 2, 4)) + field(3, -1) + field(5, FOUR),
    "has more than 32 axes": field(7, field(1, b"\1" * 1000)) + field(5, FOUR),
    "not a complete .caffemodel file": field(7, field(1, varint(2**62) + b"\0")),
    "ends beyond what holds it": varint(5 << 3 | 2) + varint(2**63) + FOUR,
    "field 5 of 4 bytes ends beyond": varint(5 << 3 | 5) + FOUR[:3],
    "a number ends beyond": field(7, varint(1 << 3) + b"\x80"),
    "more than 10 bytes": b"\x80" * 11,
    "wire type 3": varint(5 << 3 | 3),
    "field 0": field(0, b""),
}


@pytest.mark.parametrize("words", BAD_BLOBS)
def test_caffemodel_blobs_that_are_wrong(put, words):
    path = put(layer(b"conv", BAD_BLOBS[words]))
    assert words in fault(path, read_caffemodel)
    assert words in fault(path)


def test_caffemodel_layers_that_are_wrong(put, monkeypatch):
    one = blob((1,), (1,))
    assert "two layers have a blob 'a.weight'" in fault(put(layer(b"a", one) + layer(b"a", one)), read_caffemodel)
    assert "a layer's name has 1000 bytes" in fault(put(layer(b"a" * 1000, one)), read_caffemodel)
    assert "not a complete .caffemodel file" in fault(put(layer(b"\xff", one)), read_caffemodel)
    assert "no layer has weights" in fault(put(field(1, b"net") + layer(b"a")), read_caffemodel)
    assert "the file is empty" in fault(put(b""), read_caffemodel)
    monkeypatch.setattr("minifcn.weights.caffemodel._MOST_ARRAYS", 10)
    assert len(read_caffemodel(put(layer(b"a", *[one] * 10)))) == 10
    assert "more than 10 blobs" in fault(put(layer(b"a", *[one] * 11)), read_caffemodel)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "file is empty;"),
        (b"\xff\xd8\xff\xe0" + bytes(20), "is a JPEG image;"),
        (b"<!DOCTYPE html><html>", "starts with b'<!DOCTYP'"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is of no known format"),
        (b"\x80\4\x95\1\0\0\0\0\0\0\0N.", "is a pickle of something else than torch.save writes"),
    ],
)
def test_other_files(put, data, words):
    text = fault(put(data))
    assert words in text
    assert text.endswith(
        "PyTorch's .pth, .safetensors, NumPy's .npz and .npy, Caffe's .caffemodel and Keras' .h5 are read"
    )


def test_folders_and_paths_that_lead_nowhere(tmp_path):
    for path, words in ((tmp_path, "is a folder"), (tmp_path / "none", "does not exist")):
        with pytest.raises(FileNotFoundError, match=words):
            read(path)


@pytest.mark.parametrize("name", ["archive/data.pkl", "data.pkl", "a/b/data.pkl"])
def test_a_zip_with_a_pickle_goes_to_the_reader_of_pth_files(put, monkeypatch, name):
    taken = []
    monkeypatch.setattr("minifcn.weights.read_pth", lambda path: taken.append(path) or {})
    path = put(npz((name, b"whatever"), ("x.npy", npy("<f4", "(1,)", bytes(4)))))
    assert read(path) == {}
    legacy = put(b"\x80\2\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\2M\xe9\3.", "legacy")
    assert read(legacy) == {}
    assert taken == [path, legacy]


def test_a_bug_of_ours_is_not_taken_for_a_bad_file(tmp_path):
    with pytest.raises(KeyError), faults.reading(tmp_path, "a file"):
        {}["name"]
    with pytest.raises(PermissionError), faults.reading(tmp_path, "a file"):
        raise PermissionError(13, "Permission denied")


# -- memory


def peak(run, size, slack=100 << 20):
    """What `run` returns; its memory must stay below twice the file's size and `slack`."""
    tracemalloc.start()
    try:
        result = run()
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most <= 2 * size + slack, f"{most} bytes for a file of {size}"
    return result


def big(kind):
    values = np.arange(6 << 20, dtype=np.float32)  # 24 MB
    data = values.tobytes()
    if kind == "safetensors":
        return safetensors({"x": entry("F32", [len(values)], 0, len(data))}, data), 0
    if kind == "bfloat16":
        return safetensors({"x": entry("BF16", [2 * len(values)], 0, len(data))}, data), 2
    if kind == "npz":
        return npz(("x.npy", npy("<f4", f"({len(values)},)", data))), 1
    sizes = field(7, field(1, varint(len(values))))
    return field(100, field(1, b"x") + field(7, sizes + field(5, data))), 1


@pytest.mark.parametrize("kind", ["safetensors", "bfloat16", "npz", "caffemodel"])
def test_memory_is_no_more_than_the_values(put, kind):
    data, copies = big(kind)
    path = put(data)
    tracemalloc.start()
    try:
        found = read(path)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(found) == 1
    assert most <= copies * len(data) + (4 << 20)


def test_many_small_arrays_stay_within_the_bound(put):
    """With a tenth of the arrays that are possible at all, and a tenth of the bound."""
    header = {f"{n}": entry("F32", [1], 4 * n, 4 * n + 4) for n in range(6000)}
    text = json.dumps(header, separators=(",", ":")).encode()
    assert 10 * len(text) > 3 << 20
    path = put(safetensors(text, bytes(4 * len(header))))
    assert len(peak(lambda: read(path), path.stat().st_size, slack=10 << 20)) == len(header)
    path = put(npz(*((f"{n}.npy", npy("|u1", "()", b"1")) for n in range(6000))))
    assert len(peak(lambda: read(path), path.stat().st_size, slack=10 << 20)) == 6000
    path = put(layer(b"a" * 250, *[blob((1,), (1,))] * 10_000))
    assert len(peak(lambda: read(path), path.stat().st_size, slack=10 << 20)) == 10_000


# -- the table, and the command


def test_the_table_counts_what_is_not_finite():
    rows = listing.table(
        {
            "bad": FLOATS,
            "only": np.array([np.nan]),
            "none": np.empty((0, 3), np.float16),
            "n": np.array(1_234_567),
            "flags": np.array([True, False]),
            "\x1b[2J": np.zeros(1),
        }
    ).splitlines()
    low = "-7 … 1.5  (1 NaN, 1 Inf)"
    assert rows[1].split("  ", 3)[0] == "bad"
    assert rows[1].endswith(low)
    assert rows[2].endswith("(1 NaN)")
    assert rows[3].split() == ["none", "0×3", "float16", "0"]
    assert rows[4].endswith("1234567 … 1234567")
    assert rows[5].endswith("0 … 1")
    assert rows[6].startswith("'\\x1b[2J'"), "a terminal does not obey it"
    assert rows[-1] == "6 arrays, 11 values, 50 bytes; NOT all finite: 2 NaN and 1 Inf"
    starts = {row.index(cell) for row, cell in zip(rows[:3], ("shape", "2×3", "1  "), strict=False)}
    assert len(starts) == 1, "the columns are aligned"


def test_extent_looks_at_every_piece_of_any_layout():
    values = np.random.default_rng(0).standard_normal((300, 700)).astype(np.float32)
    values[299, 699], values[150, 3], values[0, 1] = 9, -9, np.inf
    for array in (values, values.T, np.asfortranarray(values), values[::-1, ::3]):
        finite = array[np.isfinite(array)]
        expected = (finite.min().item(), finite.max().item(), 0, int(np.isinf(array).sum()))
        found = listing.extent(array)
        assert (found.low, found.high, found.nans, found.infinities) == expected


def run(*words):
    return main(["weights", *map(str, words)])


def complaint(capsys, *words):
    assert run(*words) == 2
    text = capsys.readouterr().err
    assert text.startswith("minifcn: ")
    assert text.count("\n") == 1
    return text


def test_the_command_lists(put, capsys):
    assert run(put(GOOD["safetensors"])) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[:4] == ["w", "2×3", "float32", "24"]
    assert lines[-1] == "2 arrays, 7 values, 32 bytes; NOT all finite: 1 NaN and 1 Inf"


@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".pth"])
@pytest.mark.parametrize("kind", GOOD)
def test_converted_arrays_are_the_same_bits(put, tmp_path, capsys, kind, suffix):
    source, target = put(GOOD[kind]), tmp_path / f"out{suffix}"
    assert run(source, "--to", target) == 0
    assert f"written: {target}" in capsys.readouterr().out
    before, after = read(source), read(target)
    assert before.keys() == after.keys()
    assert all(same(after[name], before[name]) for name in before)
    if suffix == ".npz":
        with np.load(target) as loaded:
            assert all(same(loaded[name], before[name]) for name in before)


@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".pth"])
def test_layouts_scalars_and_awkward_names_are_converted(tmp_path, suffix):
    arrays = {"file": FLOATS.T, "n": np.array(3), "a.npy": np.zeros((0, 2)), "é/x": np.array([True])}
    data = [(f"{name}.npy", npy(a.dtype.str, a.shape, a.tobytes())) for name, a in arrays.items()]
    data.append(("f.npy", npy("<f4", "(2, 3)", FLOATS.tobytes(order="F"), fortran="True")))
    (tmp_path / "in").write_bytes(npz(*data))
    assert run(tmp_path / "in", "--to", tmp_path / f"out{suffix}") == 0
    found = read(tmp_path / f"out{suffix}")
    assert all(same(found[name], arrays[name]) for name in arrays)
    assert same(found["f"], FLOATS)


def test_bfloat16_is_converted_to_float32(put, tmp_path):
    path = put(safetensors({"x": entry("BF16", [2], 0, 4)}, struct.pack("<2H", 0x3FC0, 0xC000)))
    assert run(path, "--to", tmp_path / "out.safetensors") == 0
    assert same(read(tmp_path / "out.safetensors")["x"], np.float32([1.5, -2.0]))


def test_a_file_may_take_its_own_place(put):
    path = put(GOOD["safetensors"], "w.safetensors")
    assert run(path, "--to", path, "--overwrite") == 0
    assert same(read(path)["w"], FLOATS)


def test_mistakes_are_one_sentence_and_nothing_is_overwritten(put, tmp_path, capsys):
    good, there = put(GOOD["npy"]), put(b"precious", "there.npz")
    assert "does not exist" in complaint(capsys, tmp_path / "none")
    assert "holds no best.safetensors" in complaint(capsys, tmp_path)
    with pytest.raises(FileNotFoundError, match="is a folder; the path of a weights file is needed"):
        read(tmp_path)
    assert "ends in .safetensors, .npz or .pth" in complaint(capsys, good, "--to", tmp_path / "out.h5")
    assert "exists already" in complaint(capsys, good, "--to", there)
    assert "is of no known format" in complaint(capsys, there, "--to", there, "--overwrite")
    assert "truncated" in complaint(capsys, put(b"\x89HDF\r\n\x1a\n", "h5"), "--to", tmp_path / "out.npz")
    assert there.read_bytes() == b"precious"
    odd = put(safetensors({"a\0b": entry("U8", [1], 0, 1)}, b"\1"), "odd")
    for suffix in (".npz", ".safetensors", ".pth"):
        assert "cannot hold an array called 'a\\x00b'" in complaint(capsys, odd, "--to", tmp_path / f"new{suffix}")
    reserved = put(npz(("__metadata__.npy", npy("<f4", "(1,)", bytes(4)))), "reserved")
    assert "__metadata__" in complaint(capsys, reserved, "--to", tmp_path / "new.safetensors")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "h5", "odd", "reserved", "there.npz"]


@pytest.mark.parametrize("kind", GOOD)
def test_a_malformed_file_is_exit_code_2(put, capsys, kind):
    complaint(capsys, put(GOOD[kind][:-1]))


def test_weights_fit_a_module(put):
    conv = mf.nn.Conv2d(3, 2, 1, bias=False)
    values = np.arange(6, dtype=np.float32).reshape(2, 3, 1, 1)
    conv.load_state_dict(read(put(safetensors({"weight": entry("F32", [2, 3, 1, 1], 0, 24)}, values.tobytes()))))
    assert same(np.asarray(conv.weight), values)
