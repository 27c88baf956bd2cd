"""Keras' HDF5 files: what h5py writes, bit for bit; and one sentence for what is more, or less, than numbers.

h5py is the oracle: the reader does without it. That Keras' own files are such ones was looked at with Keras 3.15.
"""

import io
import struct
import zlib

import hostile
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_weights import fault, outcome, peak, put, same  # noqa: F401  (put is a fixture)

from minifcn.weights import hdf5 as reader
from minifcn.weights import listing, read
from minifcn.weights.keras import read_h5

h5py = pytest.importorskip("h5py", reason='h5py is not installed: pip install "minifcn[h5]"')

RNG = np.random.default_rng(0)
KERNEL = RNG.standard_normal((3, 3, 2, 4)).astype(np.float32)
BIAS = np.array([np.nan, -0.0, np.inf, 3.25e-40], np.float32)
COUNTS = RNG.integers(0, 9, (100, 11)).astype(np.float32)  # what deflate shortens


def hdf5(fill, **options):
    """The bytes of a file that fill(file) fills."""
    stream = io.BytesIO()
    with h5py.File(stream, "w", **options) as file:
        fill(file)
    return stream.getvalue()


def keras3(file):
    for k, name in enumerate(["conv2d", *(f"conv2d_{n}" for n in range(1, 12))]):
        variables = file.create_group(f"layers/{name}/vars")
        variables.attrs["name"] = f"block1_conv{k + 1}"
        variables["0"], variables["1"] = KERNEL + k, BIAS
    file.create_group("layers/flatten/vars")
    file.create_group("vars").attrs["name"] = "sequential"
    file["optimizer/vars/0"] = np.int64(1)


def one(**options):
    """A file with one dataset "x"."""
    return hdf5(lambda file: file.create_dataset("x", **options))


def deflated(**options):
    return one(data=COUNTS, chunks=(30, 4), compression="gzip", **options)


def compact(file):
    created = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    created.set_layout(h5py.h5d.COMPACT)
    space = h5py.h5s.create_simple((4,))
    h5py.h5d.create(file.id, b"x", h5py.h5t.IEEE_F32BE, space, created).write(h5py.h5s.ALL, h5py.h5s.ALL, BIAS)


GOOD = {
    "contiguous": hdf5(
        lambda file: [file.create_dataset(f"a/{n}", data=v) for n, v in (("k:0", KERNEL), ("b:0", BIAS))]
    ),
    "deflated": deflated(shuffle=True),
    "compact": hdf5(compact),
}


# -- well-formed files


def test_names_order_and_values_of_keras_3(put):  # noqa: F811
    found = read(put(hdf5(keras3)))
    layers = ["conv2d", *(f"conv2d_{n}" for n in range(1, 12))]
    assert list(found) == [f"layers/{layer}/vars/{v}" for layer in layers for v in (0, 1)]
    for k, layer in enumerate(layers):
        assert same(found[f"layers/{layer}/vars/0"], KERNEL + k)
        assert same(found[f"layers/{layer}/vars/1"], BIAS)


def test_contiguous_arrays_are_views_of_the_file(put):  # noqa: F811
    found = read(put(GOOD["contiguous"]))
    assert list(found) == ["a/b:0", "a/k:0"]
    assert not any(array.flags.writeable or array.flags.owndata for array in found.values())
    assert same(found["a/k:0"], KERNEL)
    assert same(found["a/b:0"], BIAS)


@pytest.mark.parametrize("top", ["", "model_weights/"])
def test_names_of_keras_2_are_the_same_with_and_without_the_model(put, top):  # noqa: F811
    def fill(file):
        file[f"{top}block1_conv1/block1_conv1/kernel:0"] = KERNEL
        file[f"{top}block1_conv1/block1_conv1/bias:0"] = BIAS
        file[f"{top}dense/sequential/dense/kernel"] = KERNEL[0, 0]
        file["optimizer_weights/adam/iteration:0"] = np.int64(7)
        file.attrs["training_config"] = b"\x80\x04cposix\nsystem\n(S'exit 1'\ntR."
        if top:
            file["other/x"] = BIAS

    found = read(put(hdf5(fill)))
    names = ["block1_conv1/block1_conv1/bias:0", "block1_conv1/block1_conv1/kernel:0", "dense/sequential/dense/kernel"]
    assert list(found) == names
    assert same(found[names[1]], KERNEL)


def test_a_layer_called_optimizer_is_a_layer(put):  # noqa: F811
    assert list(read(put(hdf5(lambda file: file.create_dataset("layers/optimizer/0", data=BIAS))))) == [
        "layers/optimizer/0"
    ]


@pytest.mark.parametrize(
    ("dtype", "values"),
    [(d, [0, 1, 2, 100]) for d in ("i1", "<i2", ">i4", "<i8", "u1", ">u2", "<u4", "<u8")]
    + [(d, [0.5, -2, np.inf, np.nan]) for d in ("<f2", ">f2", "<f4", ">f4", "<f8", ">f8")]
    + [("?", [True, False, False, True])],
)
@pytest.mark.parametrize(
    "options", [{}, {"chunks": (3,), "compression": "gzip", "shuffle": True}], ids=["plain", "gzip"]
)
def test_dtypes_and_byte_orders(put, dtype, values, options):  # noqa: F811
    array = np.array(values, dtype)
    found = read(put(one(data=array, **options)))["x"]
    assert same(found, array.astype(array.dtype.newbyteorder("=")))
    assert found.dtype.isnative
    assert found.flags.aligned


def test_bfloat16_is_widened_whatever_its_bits(put):  # noqa: F811
    """Keras hands h5py a dtype that h5py does not know, and it writes two opaque bytes."""
    bits = np.arange(2**16, dtype="<u2")
    found = read(put(one(data=bits.view("V2"))))["x"]
    assert found.dtype == np.float32
    assert np.array_equal(found.view(np.uint32), bits.astype(np.uint32) * 65536)


@pytest.mark.parametrize("shape", [(), (0, 3), (1, 1, 1, 1, 1)])
def test_shapes(put, shape):  # noqa: F811
    array = np.full(shape, 2.5, np.float32)
    assert same(read(put(one(data=array)))["x"], array)


@pytest.mark.parametrize("options", [{}, {"shuffle": True}, {"compression": 9}, {"compression": 1, "shuffle": True}])
@pytest.mark.parametrize("chunks", [(30, 4), (100, 11), (1, 11), (7, 7)])
def test_pieces_are_put_together(put, options, chunks):  # noqa: F811
    assert same(read(put(one(data=COUNTS, chunks=chunks, **options)))["x"], COUNTS)


def test_arrays_that_do_not_lie_at_multiples_of_their_size(put):  # noqa: F811
    def fill(file):
        file["a"], file["b"], file["c"] = np.uint8([1, 2, 3]), np.float64([0.5, -2]), np.float16([7])

    data = hdf5(fill)
    assert data.index(struct.pack("<2d", 0.5, -2)) % 8
    found = read(put(data))
    assert all(array.flags.aligned for array in found.values())
    assert same(found["b"], np.float64([0.5, -2]))
    assert same(found["c"], np.float16([7]))


def test_a_piece_that_is_larger_than_the_array(put):  # noqa: F811
    options = {"chunks": (30, 40), "maxshape": (None, None), "compression": "gzip"}
    assert same(read(put(one(data=COUNTS[:5, :3], **options)))["x"], COUNTS[:5, :3])


def test_a_filter_that_was_skipped_is_not_undone(put):  # noqa: F811
    def fill(file):
        dataset = file.create_dataset("x", (2, 6), "<f4", chunks=(1, 6), compression="gzip", shuffle=True)
        shuffled = COUNTS[1, :6].view(np.uint8).reshape(6, 4).T.tobytes()
        dataset.id.write_direct_chunk((0, 0), COUNTS[0, :6].tobytes(), filter_mask=0b11)
        dataset.id.write_direct_chunk((1, 0), shuffled, filter_mask=0b10)

    assert same(read(put(hdf5(fill)))["x"], COUNTS[:2, :6])


def test_a_bool_of_any_byte_is_one(put):  # noqa: F811
    def fill(file):
        file.create_dataset("x", (4,), "?", chunks=(4,)).id.write_direct_chunk((0,), bytes([0, 1, 2, 255]))

    assert same(read(put(hdf5(fill)))["x"], np.array([False, True, True, True]))


def test_an_array_among_its_description(put):  # noqa: F811
    assert same(read(put(hdf5(compact)))["x"], BIAS)


# -- files that are damaged


@pytest.mark.parametrize("kind", GOOD)
def test_a_file_that_ends_early_is_refused_at_every_length(put, kind):  # noqa: F811
    data = GOOD[kind]
    path = put(b"")
    for length in [*range(0, min(len(data), 1000), 7), *range(1000, len(data), 101), len(data) - 1]:
        path.write_bytes(data[:length])
        fault(path, read_h5)


@pytest.mark.parametrize("kind", GOOD)
@settings(max_examples=60)
@given(data=st.data())
def test_changed_bytes_are_read_or_refused(tmp_path, kind, data):
    content = bytearray(GOOD[kind])
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "file"
    path.write_bytes(content)
    found, _ = outcome(path, read_h5)
    listing.table(found or {})


def test_no_hdf5_at_all(put):  # noqa: F811
    assert "it is empty" in fault(put(b""), read_h5)
    assert "several files that belong together" in fault(put(b"\x89HDF\r\n\x1a\n" + bytes(5) + b"\x08\x08" + bytes(99)))
    assert "addresses and lengths have 0 and 0 bytes" in fault(put(b"\x89HDF\r\n\x1a\n" + bytes(100)))
    assert "does not begin as HDF5 files do" in fault(put(bytes(100)), read_h5)
    assert "there are no arrays in it" in fault(put(hdf5(lambda file: file.create_group("a"))))
    assert "there are no arrays in it" in fault(put(hdf5(lambda file: file.create_dataset("optimizer/x", data=BIAS))))


def test_pieces_that_are_damaged(put):  # noqa: F811
    good = deflated()

    def pieces(**changes):
        def fill(file):
            dataset = file.create_dataset("x", (4,), "<f4", chunks=(4,), compression="gzip")
            dataset.id.write_direct_chunk((0,), changes["content"])

        return put(hdf5(fill))

    assert "not a complete HDF5 file" in fault(pieces(content=b"no deflated bytes"))
    first = good.index(b"\x78\x5e")  # which zlib's streams of h5py's level begin with
    assert "not a complete HDF5 file" in fault(
        put(good[: first + 9] + bytes([good[first + 9] ^ 16]) + good[first + 10 :])
    )
    for size, words in (
        (0, "0 bytes"),
        (15, "15 bytes"),
        (17, "more than the 16 bytes"),
        (64, "more than the 16 bytes"),
    ):
        assert f"a piece of {words}" in fault(pieces(content=zlib.compress(bytes(size))))
    cut = zlib.compress(COUNTS.tobytes())
    assert "bytes where 16 are needed" in fault(pieces(content=cut[: len(cut) // 100]))


def test_pieces_that_are_missing(put):  # noqa: F811
    def fill(file):
        dataset = file.create_dataset("x", (8,), "<f4", chunks=(4,))
        dataset[4:] = 1

    assert "'x' is there in 1 of 2 pieces" in fault(put(hdf5(fill)))


# -- files that are more than numbers


def linked(link):
    return hdf5(lambda file: file.__setitem__("a/w", link))


def outside(file):
    file.create_dataset("x", (4,), "<f4", external=[("secret", 0, 16)])


def virtual(file):
    layout = h5py.VirtualLayout((4,), "<f4")
    layout[:] = h5py.VirtualSource("secret", "x", (4,))
    file.create_virtual_dataset("x", layout)


def inside_itself(file):
    file["a/x"] = BIAS
    file["a/a"] = file["a"]


def root_inside(file):
    file["a/x"] = BIAS
    file["a/b"] = file["/"]


def twice(file):
    file["a"] = BIAS
    file["b"] = file["a"]


def model_is_the_root(file):
    file["x"] = BIAS
    file["model_weights"] = file["/"]


def model_is_an_array(file):
    file["model_weights"] = BIAS


def named_type(file):
    file["x"] = np.dtype("<f4")


def odd_bits(file):
    """A 32-bit float with a bit less of exponent: its bytes are not NumPy's."""
    kind = h5py.h5t.IEEE_F32LE.copy()
    kind.set_fields(31, 24, 7, 0, 24)
    kind.set_ebias(63)
    dataset = h5py.h5d.create(file.id, b"x", kind, h5py.h5s.create_simple((4,)))
    dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, np.ones(4, np.float32))


def few_bits(file):
    """12 bits in 16, from bit 4 on."""
    kind = h5py.h5t.STD_I16LE.copy()
    kind.set_precision(12)
    kind.set_offset(4)
    dataset = h5py.h5d.create(file.id, b"x", kind, h5py.h5s.create_simple((4,)))
    dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, np.ones(4, np.int16))


def deep(file):
    for _ in range(400):
        file = file.create_group("g")
    file["x"] = BIAS


NO_NUMBERS = "'x' holds no plain numbers"
HOSTILE = {
    "link to a file": (linked(h5py.ExternalLink("secret", "/x")), "the group 'a' has other links than"),
    "link to itself": (linked(h5py.SoftLink("/a/w")), "'a/w' is a link to another name"),
    "link to nothing": (linked(h5py.SoftLink("/none")), "'a/w' is a link to another name"),
    "values in a file": (hdf5(outside), "'x' lies in other files"),
    "virtual": (hdf5(virtual), "'x' has layout 3 of version 4"),
    "group in itself": (hdf5(inside_itself), "'a/a' is in the file under another name too"),
    "root in a group": (hdf5(root_inside), "'a/b' is in the file under another name too"),
    "array twice": (hdf5(twice), "'b' is in the file under another name too"),
    "model is the root": (hdf5(model_is_the_root), "'model_weights' is in the file under another name too"),
    "model is an array": (hdf5(model_is_an_array), "'/' is neither a group nor an array"),
    "named type": (hdf5(named_type), "'x' is neither a group nor an array"),
    "objects": (one(data=["a", "b"], dtype=h5py.string_dtype()), NO_NUMBERS),
    "text": (one(data=np.array([b"abcd"])), NO_NUMBERS),
    "rows": (one(shape=(2,), dtype=h5py.vlen_dtype(np.float32)), NO_NUMBERS),
    "references": (one(shape=(4,), dtype=h5py.ref_dtype), NO_NUMBERS),
    "compound": (one(data=np.zeros(4, [("a", "f4"), ("b", "i4")])), NO_NUMBERS),
    "complex": (one(data=np.zeros(4, np.complex64)), NO_NUMBERS),
    "arrays as numbers": (one(shape=(4,), dtype=np.dtype(("f4", (3,)))), NO_NUMBERS),
    "enumeration": (one(shape=(4,), dtype=h5py.enum_dtype({"a": 1, "b": 2})), NO_NUMBERS),
    "opaque": (one(data=np.zeros(4, "V7")), NO_NUMBERS),
    "long floats": (one(data=np.zeros(4, np.longdouble)), NO_NUMBERS),
    "odd bits": (hdf5(odd_bits), NO_NUMBERS),
    "few bits": (hdf5(few_bits), NO_NUMBERS),
    "no space": (one(data=h5py.Empty("f4")), "'x' has no shape"),
    "never written": (one(shape=(4,), dtype="f4"), "'x' has a shape but was never written"),
    "4 TB": (one(shape=(2**40,), dtype="f4"), "'x' has a shape but was never written"),
    "4 TB in pieces": (one(shape=(2**40,), dtype="f4", chunks=(2**20,)), "would unpack to too much"),
    "a huge piece": (one(shape=(10,), maxshape=(None,), dtype="f4", chunks=(2**29,)), "would unpack to too much"),
    "pieces of a byte": (
        one(shape=(2**20,), dtype="u1", chunks=(1,)),
        "with 'x' there are 1048576 pieces of arrays; up to 100000",
    ),
    "scaled": (one(data=np.zeros(100, "i4"), chunks=(50,), scaleoffset=1), "packed by the filters (6,)"),
    "checked": (one(data=BIAS, chunks=(4,), fletcher32=True), "packed by the filters (3,)"),
    "lzf": (one(data=BIAS, chunks=(4,), compression="lzf"), "packed by the filters (32000,)"),
    "deep": (hdf5(deep), "is a name of more than 500 characters"),
    "no text": (hdf5(lambda file: file.create_dataset(b"\xff\xfe", data=BIAS)), "not a complete HDF5 file"),
    "newest version": (hdf5(lambda file: file.create_dataset("x", data=BIAS), libver="latest"), "HDF5's superblock 3"),
    "newer group": (hdf5(lambda file: file.create_group("a", track_order=True)), "'a' is of HDF5's newer version 2"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_more_than_numbers_is_refused(put, tmp_path, monkeypatch, what):  # noqa: F811
    """Whatever else it could reach lies beside it, with the right content."""
    monkeypatch.chdir(tmp_path)
    with h5py.File("secret", "w") as other:
        other["x"] = np.ones(4, np.float32)
    content, words = HOSTILE[what]
    path = put(content)
    assert words in peak(lambda: fault(path), len(content), slack=10 << 20)


def test_how_many_groups_and_arrays(put, monkeypatch):  # noqa: F811
    monkeypatch.setattr(reader, "_MOST_OBJECTS", 10)

    def fill(count):
        return lambda file: [file.create_dataset(f"{'ab'[k % 2]}/{k}", data=BIAS) for k in range(count)]

    assert len(read(put(hdf5(fill(7))))) == 7  # and the root, a and b
    assert "more than 10 groups and arrays" in fault(put(hdf5(fill(8))))
    assert "more than 10 groups and arrays" in fault(put(hdf5(lambda f: [f.create_group(str(k)) for k in range(11)])))


def test_how_many_names(put, monkeypatch):  # noqa: F811
    """Before it is asked what they lead to, which may be the same."""
    monkeypatch.setattr(reader, "_MOST_OBJECTS", 10)

    def fill(file):
        for k in range(11):
            file[f"{k}"] = file["0"] if k else BIAS

    assert "more than 10 groups and arrays" in fault(put(hdf5(fill)))


def test_how_many_pieces(put, monkeypatch):  # noqa: F811
    monkeypatch.setattr(reader, "_MOST_PIECES", 10)

    def fill(count):
        return lambda file: [file.create_dataset(f"{k}", data=BIAS, chunks=(1,)) for k in range(count)]

    assert len(read(put(hdf5(fill(2))))) == 2
    assert "with '2' there are 12 pieces of arrays; up to 10" in fault(put(hdf5(fill(3))))


# -- memory


def test_a_bomb_is_refused_by_what_it_declares(put):  # noqa: F811
    path = put(one(data=np.zeros(8 << 20, np.float32), chunks=(1 << 18,), compression="gzip"))
    assert "'x' would unpack to too much" in peak(lambda: fault(path), path.stat().st_size, slack=4 << 20)
    little = np.zeros(2 << 20, np.float32)
    assert same(read(put(one(data=little, chunks=(1 << 18,), compression="gzip")))["x"], little)


def test_a_piece_that_unpacks_to_more_than_it_says_is_cut_off(put):  # noqa: F811
    def fill(file):
        dataset = file.create_dataset("x", (4,), "<f4", chunks=(4,), compression="gzip")
        dataset.id.write_direct_chunk((0,), zlib.compress(bytes(100 << 20)))

    path = put(hdf5(fill))
    assert "a piece of more than the 16 bytes that it needs" in peak(
        lambda: fault(path), path.stat().st_size, slack=1 << 20
    )


def test_many_arrays_share_one_limit(put):  # noqa: F811
    little = np.zeros(1 << 20, np.float32)

    def fill(file):
        for k in range(4):
            file.create_dataset(f"{k}", data=little, chunks=(1 << 18,), compression="gzip")

    assert "'2' would unpack to too much" in fault(put(hdf5(fill)))


def test_pieces_that_share_their_bytes_are_refused(put):  # noqa: F811
    """Each would be unpacked again: 100 pieces, all of which lead to one deflated value behind 10 kB of nothing."""
    data = bytearray(one(data=np.ones(100, np.float32), chunks=(1,), compression="gzip"))
    value = np.float32(1).tobytes()
    nothing, last = b"\0\0\0\xff\xff" * 2000, b"\1\4\0\xfb\xff" + value
    content = b"\x78\1" + nothing + last + zlib.adler32(value).to_bytes(4, "big")
    assert zlib.decompress(content) == value
    size, count = len(data), 0
    for tree in (at for at in range(size) if data[at : at + 6] == b"TREE\1\0"):
        for key in range(tree + 24, tree + 24 + 32 * int.from_bytes(data[tree + 6 : tree + 8], "little"), 32):
            data[key : key + 4] = len(content).to_bytes(4, "little")
            data[key + 24 : key + 32] = size.to_bytes(8, "little")
            count += 1
    assert count == 100
    total = size + len(content)
    words = f"with 'x' its values take {(total // len(content) + 1) * len(content)} bytes of {total}"
    assert words in fault(put(bytes(data) + content))


def test_a_piece_beside_its_array_counts(put):  # noqa: F811
    """8 MiB of zeros: with two pieces 12 MiB at once, with eight 9."""
    zeros = np.zeros(2 << 20, np.float32)
    assert "'x' would unpack to too much" in fault(put(one(data=zeros, chunks=(1 << 20,), compression="gzip")))
    for chunks in (1 << 18, 2 << 20):  # the second is the array itself
        assert same(read(put(one(data=zeros, chunks=(chunks,), compression="gzip")))["x"], zeros)


@pytest.mark.parametrize(("dtype", "size", "most"), [("?", 1, 4), (">f4", 4, 4), ("V2", 2, 3)])
def test_what_is_converted_counts_once_more(put, dtype, size, most):  # noqa: F811
    """Of 10 MiB: bfloat16 takes 1 + 2 times its bytes, the others take 1 + 1."""
    values = np.zeros(((most + 1) << 20) // size, dtype)
    assert "'x' would unpack to too much" in fault(put(one(data=values, chunks=(1 << 17,), compression="gzip")))
    values = values[: (most << 20) // size]
    assert len(read(put(one(data=values, chunks=(1 << 17,), compression="gzip")))["x"]) == len(values)


@pytest.mark.skipif(not hostile._resident("VmHWM"), reason="the system does not tell how much memory was used")
@pytest.mark.parametrize("options", [{"chunks": (8 << 20,)}, {"dtype": ">f4"}, {"dtype": "V2"}], ids=str)
def test_the_mapped_file_does_not_stay_in_memory(put, options):  # noqa: F811
    """What tracemalloc does not see: 32 MiB that were read to make others of them."""
    values = np.arange(8 << 20, dtype=np.float32)
    path = put(one(data=values.view("V2") if options.get("dtype") == "V2" else values, **options))
    hostile._forget_peak()
    before = hostile._resident("VmRSS")
    found = read(path)["x"]
    assert hostile._resident("VmHWM") - before < found.nbytes + (24 << 20)


def test_blocks_of_what_is_converted(put, monkeypatch):  # noqa: F811
    monkeypatch.setattr(reader, "_BLOCK", 12)
    for array in (np.arange(7, dtype=">f4"), np.arange(7) % 2 == 1, np.arange(35, dtype=">i2").reshape(5, 7)):
        for options in ({}, {"chunks": (2,) * array.ndim, "compression": "gzip", "shuffle": True}):
            expected = array.astype(array.dtype.newbyteorder("="))
            assert same(read(put(one(data=array, **options)))["x"], expected)
    bits = np.arange(100, dtype="<u2") * 600
    for options in ({}, {"chunks": (9,), "compression": "gzip", "shuffle": True}):
        found = read(put(one(data=bits.view("V2"), **options)))["x"]
        assert np.array_equal(found.view(np.uint32), bits.astype(np.uint32) * 65536)


PACKED = {"compression": 1, "shuffle": True}


@pytest.mark.parametrize(
    ("options", "copies"),
    [
        ({}, 0),
        ({"chunks": (1 << 18,)}, 1),
        ({"chunks": (2 << 20,), "compression": 1}, 1),
        ({"chunks": (2 << 20,), **PACKED}, 1),
        ({"chunks": (1 << 20,), **PACKED}, 1.5),
        ({"dtype": ">f4"}, 1),
        ({"dtype": ">f4", "chunks": (2 << 20,)}, 2),
    ],
    ids=str,
)
def test_memory_of_a_large_file(put, options, copies):  # noqa: F811
    values = np.random.default_rng(0).random(2 << 20, np.float32)
    path = put(one(data=values, **options))
    found = peak(lambda: read(path), 0, slack=int(copies * (8 << 20)) + (3 << 20))
    assert same(found["x"], values)


# -- around it


def test_the_file_is_closed_and_may_be_replaced(put, tmp_path):  # noqa: F811
    path = put(GOOD["contiguous"])
    found = read(path)
    with h5py.File(path, "r+"):  # HDF5 locks what is open
        pass
    put(b"something else", "other").replace(path)
    assert same(found["a/k:0"], KERNEL)


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_h5(tmp_path / "none")
