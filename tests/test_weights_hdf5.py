"""The reader of HDF5 without h5py: one small file that h5py 3.16 wrote, and what may be wrong in it, byte by byte.

test_weights_keras.py has more files, and compares with h5py.
"""

import base64
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_weights import fault, outcome, peak, put, same  # noqa: F401  (put is a fixture)

import minifcn as mf
from minifcn.weights import hdf5, read
from minifcn.weights.keras import read_h5

PACKED = (
    "eNrtVrFOw0AMde7S9ChCaiVQKxYyMjIiGAiiRZmgAgYm1NImYuhQCRDdWGFj5AtQx34BdOQz+Aj2cpfzpc2JFgRICOEnRY7tV5/q2Hm5Dau7C4Xl"
    "AigIAS4UYRIjhFjK+ibfQOugvUHbZybuJLkKxktY3+YdHdRqij2yYM4RebRA+I8Ia9t1ZY/RN1P6zLK8pjWP4TfPdSCnaznGX9WW6YA5nqO1fS4n"
    "XzFL/orcLQUfygLK15jPyYlWecZ0QYGbwp01TU83x6D3y0/CHwIMn+SNurbkvbz8YNqed/Ff3Hmf2/O6oD2nPR/vuZmngZflXaHtWvsefPHcw739"
    "qppgM3ehm61rzzFhVh9Z+n6+n5vNN/32OfUuqzveTN0RqX7Auz6XT0Axi8JoUjGrN1wXmof1xHeY0S+RvMnPzy7juBOleuZgvB3FneZFhFo2oVeM"
    "9/VHZJLKjaUw+JF+KN1Qc2XrxuIHv3tBguG5U3ivViHX6iejkSQQCAQCgUD4E+idtBrt07gZtYKHygDAe4QNGcPgThLLl2DzDSfacuQ="
)
GOOD = zlib.decompress(base64.b64decode(PACKED))
W = np.arange(6, dtype=np.float32).reshape(2, 3) - np.float32(2.5)  # "a/w", in one place
P = np.arange(40, dtype=np.int16).reshape(8, 5) % 7  # "a/p", in two pieces, shuffled and deflated

# where things are in it (found by their marks and by what leads there, with the format's specification beside)
ROOT, GROUP, ARRAY, PACKED_ARRAY = 96, 1096, 800, 2456  # object headers
TREE, LIST, HEAP, NAMES = 1136, 2128, 1680, 1712  # of the group
PIECES = 2728  # the B-tree of "a/p"
SHAPE, TYPE, LAYOUT, FILTERS, PACKED_LAYOUT = 824, 872, 920, 2568, 2632  # messages
NOWHERE = b"\xff" * 8


def number(value, length=8):
    return value.to_bytes(length, "little")


def changed(*changes):
    """The file with other bytes at some places."""
    data = bytearray(GOOD)
    for place, content in changes:
        data[place : place + len(content)] = content
    return bytes(data)


def test_the_places_are_the_right_ones():
    assert [GOOD[k : k + 4] for k in (TREE, LIST, HEAP, PIECES)] == [b"TREE", b"SNOD", b"HEAP", b"TREE"]
    assert GOOD[NAMES + 8 : NAMES + 10] == b"w\0"
    assert GOOD[NAMES + 16 : NAMES + 18] == b"p\0"
    assert struct.unpack_from("<BB", GOOD, SHAPE) == (1, 2)
    assert struct.unpack_from("<2Q", GOOD, SHAPE + 8) == (2, 3)
    assert struct.unpack_from("<BB2x2xH", GOOD, FILTERS)[:2] == (1, 2)
    assert [GOOD[k] for k in (LAYOUT, LAYOUT + 1, PACKED_LAYOUT, PACKED_LAYOUT + 1)] == [3, 1, 3, 2]


def test_values(put):  # noqa: F811
    found = mf.weights.read(put(GOOD))
    assert list(found) == ["a/p", "a/w"]
    assert same(found["a/w"], W)
    assert same(found["a/p"], P)
    assert not found["a/w"].flags.owndata


def test_a_file_that_ends_early_is_refused(put):  # noqa: F811
    path = put(b"")
    for length in [*range(0, len(GOOD), 17), len(GOOD) - 1]:
        path.write_bytes(GOOD[:length])
        fault(path, read_h5)


@settings(max_examples=300)
@given(data=st.data())
def test_changed_bytes_are_read_or_refused(tmp_path, data):
    content = bytearray(GOOD)
    used = [k for k in range(len(content)) if content[k]] + list(range(96, 200))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.sampled_from(used))] = data.draw(st.integers(0, 255))
    path = tmp_path / "file"
    path.write_bytes(content)
    outcome(path, read_h5)


@settings(max_examples=300)
@given(data=st.data())
def test_exchanged_addresses_are_read_or_refused(tmp_path, data):
    """A number that may be an address, replaced by another such: trees in circles, headers that lead to themselves."""
    places = [k for k in range(24, len(GOOD) - 8, 8) if 0 < int.from_bytes(GOOD[k : k + 8], "little") < len(GOOD)]
    pairs = [(data.draw(st.sampled_from(places)), data.draw(st.sampled_from(places))) for _ in range(2)]
    path = tmp_path / "file"
    path.write_bytes(changed(*((to, GOOD[start : start + 8]) for to, start in pairs)))
    outcome(path, read_h5)


WRONG = {
    "version": ([(8, b"\2")], "superblock 2; 0 is read"),
    "short addresses": ([(13, b"\4")], "have 4 and 8 bytes"),
    "a family of files": ([(48, number(96))], "several files that belong together"),
    "begins elsewhere": ([(24, number(512))], "several files that belong together"),
    "root beyond the end": ([(64, number(1 << 40))], "of 5384; it may be truncated"),
    "root nowhere": ([(64, NOWHERE)], "of 5384; it may be truncated"),
    "root is no object": ([(64, number(NAMES))], "'/' is no object"),
    "group is the root": ([(1800 + 16, number(ROOT))], "'a' is in the file under another name too"),
    "array twice": ([(LIST + 56, number(PACKED_ARRAY))], "'a/w' is in the file under another name too"),
    "newer object": ([(ARRAY, b"OHDR")], "'a/w' is of HDF5's newer version 2"),
    "a link": ([(LIST + 56 + 8, number(2, 4))], "'a/w' is a link to another name"),
    "no heap": ([(HEAP, b"X")], "the names in the group 'a' are not where they should be"),
    "no list": ([(LIST, b"T")], "a list of the group 'a' is not where it should be"),
    "tree of another kind": ([(TREE + 4, b"\1")], "a B-tree's node is not where it should be"),
    "no tree": ([(TREE, b"X")], "a B-tree's node is not where it should be"),
    "tree that leads to itself": ([(TREE + 5, b"\1"), (TREE + 32, number(TREE))], "a B-tree's node is not where"),
    "name without end": ([(NAMES + 8, b"w" * 80), (HEAP + 8, number(80))], "more than 500 characters"),
    "name beyond the heap": ([(LIST + 48, number(1 << 50))], "more than 500 characters"),
    "name that is no text": ([(NAMES + 8, b"\xff")], "not a complete HDF5 file"),
    "external values": ([(SHAPE - 8, number(7, 2))], "'a/w' lies in other files"),
    "no shape": ([(SHAPE - 8, number(0, 2))], "'a/w' lacks its type or its shape"),
    "shape of version 9": ([(SHAPE, b"\x09")], "'a/w' has no shape"),
    "shape beyond its message": ([(SHAPE + 1, b"\x20")], "'a/w' has no shape"),
    "larger shape": ([(SHAPE + 8, number(3))], "needs 36 bytes and has 24"),
    "huge shape": ([(SHAPE + 8, number((1 << 64) - 1))], "bytes and has 24"),
    "shared type": ([(TYPE - 4, b"\2")], "'a/w' has a type that other arrays share"),
    "wrong mantissa": ([(TYPE + 15, b"\x16")], "'a/w' holds no plain numbers"),
    "long float": ([(TYPE + 4, b"\x10")], "'a/w' holds no plain numbers"),
    "layout of version 4": ([(LAYOUT, b"\4")], "layout 1 of version 4"),
    "layout 3": ([(LAYOUT + 1, b"\3")], "layout 3 of version 3"),
    "never written": ([(LAYOUT + 2, NOWHERE)], "was never written"),
    "values beyond the end": ([(LAYOUT + 2, number(5384 - 23))], "byte 5385 of 5384"),
    "other filter": ([(FILTERS + 8, number(32015, 2))], "packed by the filters (32015, 1)"),
    "deflated twice": ([(FILTERS + 8, number(1, 2))], "packed by the filters (1, 1)"),
    "filters of version 2": ([(FILTERS, b"\2")], "a list of filters is of version 2"),
    "pieces of another rank": ([(PACKED_LAYOUT + 2, b"\2")], "in pieces of another shape or type"),
    "pieces of another type": ([(PACKED_LAYOUT + 19, number(4, 4))], "in pieces of another shape or type"),
    "pieces of no size": ([(PACKED_LAYOUT + 11, number(0, 4))], "in pieces of another shape or type"),
    "huge pieces": ([(PACKED_LAYOUT + 11, number(1 << 31, 4))], "'a/p' would unpack to too much"),
    "no pieces": ([(PACKED_LAYOUT + 3, NOWHERE)], "'a/p' is there in 0 of 2 pieces"),
    "one piece": ([(PIECES + 6, number(1, 2))], "'a/p' is there in 1 of 2 pieces"),
    "a piece twice": ([(PIECES + 72, number(0))], "'a/p' has a piece at (0, 0), where none belongs"),
    "a piece between": ([(PIECES + 72, number(3))], "'a/p' has a piece at (3, 0), where none belongs"),
    "a piece beyond the end": ([(PIECES + 56, number(5380))], "of 5384; it may be truncated"),
    "a longer piece": ([(PIECES + 24, number(5000, 4))], "of 5384; it may be truncated"),
    "a piece of no bytes": ([(PIECES + 24, number(0, 4))], "a piece of 0 bytes where 40 are needed"),
    "a piece of no bytes that was not deflated": (
        [(PIECES + 24, number(0, 4)), (PIECES + 28, number(2, 4))],
        "a piece of 0 bytes where 40 are needed",
    ),
    "a longer piece that was not deflated": (
        [(PIECES + 24, number(41, 4)), (PIECES + 28, number(2, 4)), (PIECES + 56, number(4000))],
        "a piece of more than the 40 bytes that it needs",
    ),
    "a piece that ends early": ([(PIECES + 24, number(8, 4))], "bytes where 40 are needed"),
    "a piece that was not deflated": ([(PIECES + 28, number(2, 4))], "bytes where 40 are needed"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_said(put, what):  # noqa: F811
    changes, words = WRONG[what]
    assert words in fault(put(changed(*changes)))


def test_values_that_lie_in_one_another(put):  # noqa: F811
    """What follows a deflated piece is not looked at, as long as all values together are no more than the file."""

    def file(length):
        return put(changed((PIECES + 24, number(10_000, 4)), (PIECES + 64, number(length, 4))) + bytes(10_000))

    found = read(file(5384 - 24))  # which are the bytes of a/w
    assert same(found["a/w"], W)
    assert same(found["a/p"], P)
    assert "with 'a/w' its values take 15385 bytes of 15384" in fault(file(5384 - 23))
    assert "with 'a/p' its values take 15385 bytes of 15384" in fault(file(5384 + 1))


@pytest.mark.parametrize("block", [1, 7, 40, 41])
def test_the_size_of_a_block_does_not_matter(put, monkeypatch, block):  # noqa: F811
    monkeypatch.setattr(hdf5, "_BLOCK", block)
    assert same(read(put(GOOD))["a/p"], P)


def test_names_of_too_many_characters_together(put, monkeypatch):  # noqa: F811
    monkeypatch.setattr(hdf5, "_MOST_LETTERS", 8)  # a, and once more, a/p and a/w
    assert len(read(put(GOOD))) == 2
    monkeypatch.setattr(hdf5, "_MOST_LETTERS", 7)
    assert "the names in it have more than 7 characters" in fault(put(GOOD))


def test_more_axes_than_hdf5_has(put):  # noqa: F811
    """A header for "a/w" at the end of the file, with a shape of 1 × … × 6."""
    for axes in (32, 33):
        shape = b"\1" + number(axes, 1) + bytes(6) + number(1) * (axes - 1) + number(6)
        messages = number(1, 2) + number(len(shape), 2) + bytes(4) + shape
        messages += GOOD[TYPE - 8 : TYPE + 24] + GOOD[LAYOUT - 8 : LAYOUT + 24]
        header = b"\1\0" + number(3, 2) + number(1, 4) + number(len(messages), 4) + bytes(4) + messages
        path = put(changed((LIST + 56, number(len(GOOD)))) + header)
        if axes == 32:
            assert same(read(path)["a/w"], W.reshape((1,) * 31 + (6,)))
        else:
            assert "'a/w' has 33 axes" in fault(path)


def test_a_header_that_leads_to_itself_ends(put):  # noqa: F811
    """libhdf5 2.0 reads it until there is no memory left."""
    more = number(16, 2) + number(16, 2) + bytes(4) + number(ARRAY + 16) + number(64)
    path = put(changed((ARRAY + 2, b"\xff\xff"), (ARRAY + 16, more), (ARRAY + 40, number(0, 2) + number(32, 2))))
    assert "'a/w' continues in itself" in peak(lambda: fault(path), len(GOOD), slack=1 << 20)


def test_a_tree_with_more_ways_than_bytes_ends(put, monkeypatch):  # noqa: F811
    """Six levels of 100 entries that all lead to the next: 10¹² ways to one empty list."""
    monkeypatch.setattr(hdf5, "_MOST_STEPS", 5000)
    size = 24 + 16 * 100
    data = bytearray(changed((1120, number(len(GOOD))), (40, number(len(GOOD) + 7 * size))))
    for level in reversed(range(6)):
        child = len(data) + size
        data += b"TREE\0" + number(level, 1) + number(100, 2) + NOWHERE * 2 + (bytes(8) + number(child)) * 100
    data += b"SNOD\1" + bytes(size - 5)
    assert "takes more than 5000 steps" in peak(lambda: fault(put(bytes(data))), len(data), slack=2 << 20)


def test_what_is_not_looked_at_may_be_anything(put):  # noqa: F811
    """Free space, siblings of nodes, the modification time."""
    free = [(32, NOWHERE), (TREE + 8, number(17)), (PIECES + 16, b"12345678"), (TREE + 24, b"garbage!")]
    found = read(put(changed(*free)))
    assert same(found["a/w"], W)
    assert same(found["a/p"], P)


def test_a_larger_file_is_the_same(put):  # noqa: F811
    assert same(read(put(GOOD + bytes(1000)))["a/w"], W)
