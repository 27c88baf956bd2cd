"""Our .pth files: byte for byte what they should be, read back to the bit by our reader, and by PyTorch itself."""

import io
import pickletools
import struct
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minifcn.training.files import write_arrays
from minifcn.weights import pth_writer, read
from minifcn.weights.pth_writer import write_pth

DTYPES = ("f8", "f4", "f2", "i8", "i4", "i2", "i1", "u1", "?")
ARRAYS = {
    "weight": np.array([[1.5, -0.0, 3.25e-40], [np.inf, np.nan, -7.0]], np.float32),
    "turned": np.arange(6, dtype=np.float64).reshape(2, 3).T,
    "every other": np.arange(10, dtype=np.int16)[::2],
    "foreign order": np.array([1, -2], ">i4"),
    "num_batches_tracked": np.array(7),
    "nothing": np.zeros((0, 4), np.float16),
    "größe.x": np.array([True, False]),
}


def content(arrays):
    stream = io.BytesIO()
    write_pth(stream, arrays)
    return stream.getvalue()


def entries(data):
    """(name, where the data begin, the data) of each entry of a zip archive, from its local headers, in their order."""
    found, at = [], 0
    while data[at : at + 4] == b"PK\3\4":
        _, _, flags, method, _, _, _, packed, size, name, extra = struct.unpack("<4s5H3L2H", data[at : at + 30])
        assert (flags, method, packed) == (0, 0, size)  # stored as it is, and the sizes come before
        begin = at + 30 + name + extra
        found.append((data[at + 30 : at + 30 + name].decode(), begin, data[begin : begin + size]))
        at = begin + size
    return found


def test_every_byte():
    data = content({"a": np.array([[1.0, 2.0]], np.float32), "n": np.array(-2), "z": np.zeros((2, 0, 3))})
    names, begins, parts = zip(*entries(data), strict=True)
    assert names == tuple(
        f"archive/{name}" for name in ("data.pkl", "byteorder", "data/0", "data/1", "data/2", "version")
    )
    assert [begin % 64 for begin in begins] == [0] * 6
    assert parts[1:] == (b"little", struct.pack("<2f", 1, 2), struct.pack("<q", -2), b"", b"3\n")

    def text(value):
        return b"X" + struct.pack("<I", len(value)) + value

    def tensor(kind, key, count, size, stride):
        numbers = [b"".join(b"J" + struct.pack("<i", n) for n in row) for row in ([0], [count], size, stride)]
        storage = b"(" + text(b"storage") + b"ctorch\n" + kind + b"\n" + text(key) + text(b"cpu") + numbers[1] + b"tQ"
        after = b"\x89ccollections\nOrderedDict\n)RtR"
        return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + numbers[0] + b"(%bt(%bt" % tuple(numbers[2:]) + after

    assert parts[0] == (
        b"\x80\x02ccollections\nOrderedDict\n)R("
        + text(b"a")
        + tensor(b"FloatStorage", b"0", 2, [1, 2], [2, 1])
        + text(b"n")
        + tensor(b"LongStorage", b"1", 1, [], [])
        + text(b"z")
        + tensor(b"DoubleStorage", b"2", 0, [2, 0, 3], [3, 3, 1])
        + b"u."
    )
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None  # the checksums
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}  # no clock in it
    assert content({"a": np.array([[1.0, 2.0]], np.float32), "n": np.array(-2), "z": np.zeros((2, 0, 3))}) == data


def test_the_pickle_is_well_formed():
    pickle = entries(content(ARRAYS))[0][2]
    opcodes = {opcode.name: opcode.proto for opcode, _, _ in pickletools.genops(pickle)}
    assert max(opcodes.values()) == 2
    pickletools.dis(pickle, out=io.StringIO())  # which follows the stack, and complains


def test_our_reader_finds_the_same_bits(tmp_path):
    (tmp_path / "w.pth").write_bytes(content(ARRAYS))
    found = read(tmp_path / "w.pth")
    assert list(found) == list(ARRAYS)
    for name, array in ARRAYS.items():
        native = array.astype(array.dtype.newbyteorder("="))
        assert (found[name].dtype, found[name].shape) == (native.dtype, array.shape)
        assert found[name].tobytes() == native.tobytes()


@given(
    st.dictionaries(
        st.text(min_size=1, max_size=8).filter(lambda t: t.isprintable()),
        st.tuples(st.sampled_from(DTYPES), st.lists(st.integers(0, 3), max_size=4)),
        min_size=1,
        max_size=5,
    )
)
def test_any_names_dtypes_and_shapes(tmp_path_factory, described):
    rng = np.random.default_rng(0)
    arrays = {name: rng.integers(0, 2, shape).astype(dtype) for name, (dtype, shape) in described.items()}
    file = tmp_path_factory.mktemp("any") / "w.pth"
    file.write_bytes(content(arrays))
    found = read(file)
    assert {name: (a.dtype, a.shape, a.tobytes()) for name, a in found.items()} == {
        name: (a.dtype, a.shape, a.tobytes()) for name, a in arrays.items()
    }


def test_large_sizes():
    """Numbers beyond 31 bits, and entries with 64-bit sizes in their headers, which are aligned too."""
    for value in ((1 << 31) - 1, 1 << 31, 1 << 40, (1 << 47) - 1):
        opcode, argument, _ = next(pickletools.genops(pth_writer._number(value) + b"."))
        assert (opcode.name, argument) == ("BININT" if value < 1 << 31 else "LONG1", value)


def test_64_bit_sizes(monkeypatch, tmp_path):
    monkeypatch.setattr(pth_writer, "_LARGE", 15)
    data = content({"w": np.arange(4, dtype=np.float32), "b": np.zeros(2, np.float32)})
    (tmp_path / "w.pth").write_bytes(data)
    assert {name: a.tolist() for name, a in read(tmp_path / "w.pth").items()} == {"w": [0, 1, 2, 3], "b": [0, 0]}
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for entry in archive.infolist():
            name, extra = struct.unpack("<2H", data[entry.header_offset + 26 : entry.header_offset + 30])
            assert (entry.header_offset + 30 + name + extra) % 64 == 0, entry.filename


def test_what_a_pth_lacks_is_refused_before_anything_is_written(tmp_path):
    stream = io.BytesIO()
    for array in (np.zeros(2, np.uint32), np.zeros(2, np.complex64), np.array(["text"]), np.array([None])):
        with pytest.raises(
            ValueError, match=r"^write_pth: 'odd' is .*, which a .pth file lacks; floats, .* are needed$"
        ):
            write_pth(stream, {"fine": np.zeros(2), "odd": array})
    assert stream.getvalue() == b""
    (tmp_path / "w.pth").write_bytes(b"precious")
    with pytest.raises(ValueError, match="lacks"):
        write_arrays(tmp_path / "w.pth", {"odd": np.zeros(2, np.uint32)})
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("w.pth", b"precious")]


def test_write_arrays_knows_the_suffix(tmp_path):
    write_arrays(tmp_path / "w.pth", ARRAYS)
    assert (tmp_path / "w.pth").read_bytes() == content(ARRAYS)


@pytest.mark.oracle
@pytest.mark.parametrize("options", [{}, {"mmap": True}, {"weights_only": False}], ids=["plain", "mapped", "unpickled"])
def test_pytorch_loads_the_same_bits(tmp_path, options):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch==2.13.0")
    write_arrays(tmp_path / "w.pth", ARRAYS)
    found = torch.load(tmp_path / "w.pth", **{"weights_only": True} | options)
    assert type(found).__name__ == "OrderedDict"
    assert list(found) == list(ARRAYS)
    for name, array in ARRAYS.items():
        native = array.astype(array.dtype.newbyteorder("="))
        tensor = found[name].numpy()
        assert (tensor.dtype, tensor.shape, tensor.tobytes()) == (native.dtype, array.shape, native.tobytes())
        assert found[name].stride() == torch.empty(array.shape).stride()


@pytest.mark.oracle
def test_a_module_of_pytorch_takes_them(tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch==2.13.0")
    source = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    write_arrays(tmp_path / "w.pth", {name: tensor.numpy() for name, tensor in source.state_dict().items()})
    target = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    target.load_state_dict(torch.load(tmp_path / "w.pth", weights_only=True))
    for name, tensor in source.state_dict().items():
        assert torch.equal(target.state_dict()[name], tensor), name
