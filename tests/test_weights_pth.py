"""PyTorch's files, built here by hand or written by PyTorch: read to the bit, or refused, and nothing of them runs."""

import argparse
import builtins
import io
import itertools
import os
import pickle
import struct
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from minifcn.weights import unpickle
from minifcn.weights.faults import Fault
from minifcn.weights.pth import read_pth
from minifcn.weights.unpickle import Stub, Unpickler

MAGIC = 0x1950A86A20F9469CFC6C
MIB = 1 << 20

# -- a small assembler of pickles


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def number(value: int) -> bytes:
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    return b"\x8a\x0a" + value.to_bytes(10, "little", signed=True)


def tuple_of(*values: int) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


def storage(key: str = "0", kind: str = "FloatStorage", count: int = 6, view: bytes = b"") -> bytes:
    return b"(" + text("storage") + name("torch", kind) + text(key) + text("cpu") + number(count) + view + b"tQ"


def tensor(
    stored: bytes | None = None,
    offset: int = 0,
    size: tuple[int, ...] = (2, 3),
    stride: tuple[int, ...] = (3, 1),
    version: str = "_v2",
) -> bytes:
    more = b"\x89" + name("collections", "OrderedDict") + b")R" if version == "_v2" else b""
    arguments = (stored or storage()) + number(offset) + tuple_of(*size) + tuple_of(*stride) + more
    return name("torch._utils", f"_rebuild_tensor{version}") + b"(" + arguments + b"tR"


def mapping(**entries: bytes) -> bytes:
    return b"}(" + b"".join(text(key) + value for key, value in entries.items()) + b"u"


def pickled(body: bytes, protocol: int = 2) -> bytes:
    return b"\x80" + bytes([protocol]) + body + b"."


FLOATS = np.array([0.5, -1.0, 2.0, 3.25, -0.0, 1e-30], "<f4")  # storage "0" of most files here
STATE = mapping(weight=tensor())


def zipped(
    body: bytes = STATE,
    storages: dict[str, bytes] | None = None,
    root: str = "archive",
    extra: dict[str, bytes] | None = None,
    compression: int = zipfile.ZIP_STORED,
) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        archive.writestr(f"{root}/data.pkl", pickled(body))
        for key, values in ({"0": FLOATS.tobytes()} if storages is None else storages).items():
            archive.writestr(f"{root}/data/{key}", values)
        for entry, content in {f"{root}/version": b"3\n", **(extra or {})}.items():
            archive.writestr(entry, content)
    return buffer.getvalue()


def legacy(
    body: bytes = mapping(weight=tensor(storage(view=b"N"))),
    storages: dict[str, tuple[int, bytes]] | None = None,
    magic: int = MAGIC,
    protocol: int = 1001,
) -> bytes:
    stored = {"0": (6, FLOATS.tobytes())} if storages is None else storages
    keys = b"](" + b"".join(map(text, stored)) + b"e"
    facts = b"}" + text("little_endian") + b"\x88s"
    head = b"".join(map(pickled, (number(magic), number(protocol), facts, body, keys)))
    return head + b"".join(struct.pack("<q", count) + values for count, values in stored.values())


@pytest.fixture
def read(tmp_path: Path) -> Callable[[bytes], dict[str, Any]]:
    numbers = itertools.count()

    def reader(content: bytes) -> dict[str, Any]:
        path = tmp_path / f"{next(numbers)}-file.pth"  # each its own: arrays look into the earlier ones
        path.write_bytes(content)
        return read_pth(path)

    return reader


@contextmanager
def nothing_runs() -> Iterator[None]:
    """That the block calls nothing of what the hostile files below would call."""
    ran: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        for module, attribute in ((os, "system"), (builtins, "eval"), (pickle, "loads"), (pickle, "load")):
            patch.setattr(module, attribute, lambda *arguments: ran.append(arguments))
        yield
    assert not ran


@contextmanager
def memory_below(limit: float) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < limit, f"{peak / MIB:.1f} MiB"


@pytest.fixture
def refused(read: Callable[[bytes], dict[str, Any]]) -> Callable[..., None]:
    """That a file is refused by a check of ours, whose sentence matches, in little memory, and that nothing runs."""

    def check(content: bytes, match: str, spare: float = 100 * MIB) -> None:
        with memory_below(2 * len(content) + spare), nothing_runs(), pytest.raises(ValueError, match=match) as caught:
            read(content)
        assert isinstance(caught.value.__cause__, Fault)
        assert str(caught.value).startswith("read: ")
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 1000

    return check


# -- what is read


def equal(found: np.ndarray, expected: np.ndarray) -> None:
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    assert found.tobytes() == expected.tobytes()
    assert not found.flags.writeable


@pytest.mark.parametrize("content", [zipped(), zipped(root="my net.v2"), legacy()], ids=["zip", "root", "legacy"])
def test_both_formats(read, content: bytes) -> None:
    found = read(content)
    assert list(found) == ["weight"]
    equal(found["weight"], FLOATS.reshape(2, 3))


KINDS = {
    "DoubleStorage": np.array([0.1, -2.5], np.float64),
    "FloatStorage": np.array([0.1, -2.5], np.float32),
    "HalfStorage": np.array([0.1, -2.5], np.float16),
    "LongStorage": np.array([2**40, -1], np.int64),
    "IntStorage": np.array([2**30, -1], np.int32),
    "ShortStorage": np.array([300, -1], np.int16),
    "CharStorage": np.array([100, -1], np.int8),
    "ByteStorage": np.array([200, 1], np.uint8),
    "BoolStorage": np.array([True, False]),
}


@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize("kind", KINDS)
def test_dtypes_and_byte_orders(read, kind: str, order: str) -> None:
    values = KINDS[kind]
    stored = values.astype(values.dtype.newbyteorder("<" if order == "little" else ">")).tobytes()
    body = mapping(x=tensor(storage(kind=kind, count=2), size=(2,), stride=(1,)))
    equal(read(zipped(body, {"0": stored}, extra={"archive/byteorder": order.encode()}))["x"], values)


def test_bfloat16_is_widened_exactly(read) -> None:
    # sign, 8 bits of exponent, 7 of fraction: 1.5 = 0x3FC0, −2 = 0xC000, the largest 0x7F7F, infinity 0x7F80
    body = mapping(x=tensor(storage(kind="BFloat16Storage", count=4), size=(4,), stride=(1,)))
    for order, form in (("little", "<4H"), ("big", ">4H")):
        stored = struct.pack(form, 0x3FC0, 0xC000, 0x7F7F, 0x7F80)
        found = read(zipped(body, {"0": stored}, extra={"archive/byteorder": order.encode()}))["x"]
        equal(found, np.array([1.5, -2.0, (2 - 2**-7) * 2.0**127, np.inf], np.float32))


def test_a_bool_is_0_or_1_whatever_the_byte(read) -> None:
    body = mapping(x=tensor(storage(kind="BoolStorage", count=3), size=(3,), stride=(1,)))
    assert read(zipped(body, {"0": b"\x00\x01\x07"}))["x"].view(np.uint8).tolist() == [0, 1, 1]


def test_strides_offsets_and_shared_storages(read) -> None:
    body = mapping(
        transposed=tensor(size=(3, 2), stride=(1, 3)),
        part=tensor(offset=2, size=(2,), stride=(3,)),
        repeated=tensor(offset=1, size=(4, 2), stride=(0, 1)),
        single=tensor(offset=5, size=(), stride=()),
        one=tensor(size=(1, 1), stride=(10**9, 7)),
        empty=tensor(offset=9, size=(0, 4), stride=(4, 1)),
    )
    for content in (zipped(body), legacy(body)):
        found = read(content)
        equal(found["transposed"], FLOATS.reshape(2, 3).T)
        equal(found["part"], FLOATS[[2, 5]])
        equal(found["repeated"], np.tile(FLOATS[1:3], (4, 1)))
        equal(found["single"], FLOATS[5].reshape(()))
        equal(found["one"], FLOATS[:1].reshape(1, 1))
        equal(found["empty"], np.empty((0, 4), np.float32))
        assert np.shares_memory(found["transposed"], found["single"])


def test_views_of_a_legacy_storage(read) -> None:
    view = storage(view=b"(" + text("1") + number(2) + number(3) + b"t")
    found = read(legacy(mapping(x=tensor(view, offset=1, size=(2,), stride=(1,)))))
    equal(found["x"], FLOATS[3:5])


def test_an_empty_storage(read) -> None:
    body = mapping(x=tensor(storage(count=0, view=b"N"), size=(0,), stride=(1,)))
    for content in (zipped(body, {"0": b""}), legacy(body, {"0": (0, b"")})):
        equal(read(content)["x"], np.empty(0, np.float32))


def test_what_python_2_and_early_pytorch_wrote(read) -> None:
    pairs = b"](](U\x06weight" + tensor(storage(view=b"N"), version="") + b"e" + b"e"
    body = name("collections", "OrderedDict") + pairs + b"\x85R}U\x09_metadata}sb"
    equal(read(legacy(body))["weight"], FLOATS.reshape(2, 3))


def test_parameters_and_what_lies_beside_them(read) -> None:
    parameter = name("torch._utils", "_rebuild_parameter") + b"(" + tensor() + b"\x88N" + b"tR"
    options = name("argparse", "Namespace") + b")\x81}" + text("lr") + b"G" + struct.pack(">d", 0.1) + b"sb"
    body = mapping(w=parameter, steps=number(3), flags=b"(\x88\x89Nt", options=options, nested=mapping(lr=number(1)))
    assert list(read(zipped(body))) == ["w"]


@pytest.mark.parametrize("protocol", [4, 5])
def test_later_protocols(read, protocol: int) -> None:
    class Pickler(pickle.Pickler):
        def persistent_id(self, value: Any) -> Any:
            return value.key if isinstance(value, Marked) else None

    class Marked:
        key = "seen"

    body = {"deep": [{"a": (1, 2.5, "ü" * 300, b"x" * 300, None, True, -(2**70))}], "s": {1, 2}, "m": Marked()}
    buffer = io.BytesIO()
    Pickler(buffer, protocol).dump(body)
    content = buffer.getvalue()
    found = Unpickler(content, 0, len(content), find=Stub, persistent=str.upper).load()
    assert found["deep"] == [{"a": (1, 2.5, "ü" * 300, found["s"], None, True, -(2**70))}]
    assert found["m"] == "SEEN"


NESTED = [
    mapping(epoch=number(3), state_dict=STATE),
    mapping(model_state_dict=STATE, optim_state_dict=mapping(momentum=tensor())),
    mapping(model=STATE, rng_state=tensor(), model_ema=STATE),
    mapping(whatever=STATE),
    mapping(whatever=STATE, optimizer=mapping(momentum=tensor())),
    mapping(weight=tensor()) + number(7) + tensor() + b"s",
    mapping(checkpoint=mapping(model=STATE)),
]


@pytest.mark.parametrize("body", NESTED, ids=range(len(NESTED)))
def test_the_state_dict_is_found(read, body: bytes) -> None:
    assert list(read(zipped(body))) == ["weight"]


def test_reading_copies_nothing(tmp_path: Path) -> None:
    values = np.arange(2 * MIB, dtype="<f4").tobytes()
    body = mapping(x=tensor(storage(count=2 * MIB), size=(2 * MIB,), stride=(1,)))
    for content in (zipped(body, {"0": values}), legacy(body, {"0": (2 * MIB, values)})):
        path = tmp_path / "large.pth"
        path.unlink(missing_ok=True)
        path.write_bytes(content)
        with memory_below(MIB):
            found = read_pth(path)
        assert found["x"][-1] == 2 * MIB - 1


# -- what is refused


def call(module: str, attribute: str, argument: str) -> bytes:
    return name(module, attribute) + text(argument) + b"\x85R"


CODE = {
    "reduce": (call("os", "system", "true"), "refers to os.system"),
    "posix": (call("posix", "system", "true"), "refers to posix.system"),
    "eval": (call("builtins", "eval", "1"), "refers to builtins.eval"),
    "python2": (call("__builtin__", "eval", "1"), "refers to __builtin__.eval"),
    "getattr": (call("builtins", "getattr", "x"), "refers to builtins.getattr"),
    "only named": (name("os", "system"), "refers to os.system"),
    "stack_global": (text("os") + text("system") + b"\x93" + text("true") + b"\x85R", "refers to os.system"),
    "dotted": (text("torch") + text("serialization.pickle.loads") + b"\x93", "refers to torch.serialization.pickle"),
    "inst": (b"(" + text("true") + b"ios\nsystem\n", "instruction 0x69"),
    "obj": (b"(" + name("os", "system") + text("true") + b"o", "refers to os.system"),
    "newobj": (name("os", "system") + text("true") + b"\x85\x81", "refers to os.system"),
    "obj of a stub": (b"(" + name("collections", "OrderedDict") + b"o", "instruction 0x6f"),
    "newobj_ex": (name("collections", "OrderedDict") + b")}\x92", "instruction 0x92"),
    "extension": (b"\x82\x01", "instruction 0x82"),
    "text persistent id": (b"Pos.system\n", "instruction 0x50"),
    "in a persistent id": (b"(" + text("storage") + call("os", "system", "true") + b"tQ", "refers to os.system"),
    "persistent module": (b"(" + text("module") + text("a") + text("b") + text("c") + b"tQ", "no storage"),
    "call of a dtype": (name("torch", "float32") + b")R", "calls what is no function"),
    "call of a storage": (name("torch", "FloatStorage") + b")R", "calls what is no function"),
    "call of text": (text("os.system") + b")R", "calls what is no function"),
    "call of a tensor": (tensor() + b")R", "calls what is no function"),
    "no arguments": (name("collections", "OrderedDict") + b"}R", "calls what is no function"),
    "attributes": (tensor() + b"}" + text("__class__") + name("collections", "OrderedDict") + b"sb", "sets attributes"),
    "module": (name("torch.nn.modules.conv", "Conv2d") + b")\x81}b", r"a torch.nn.modules.conv.Conv2d: a whole module"),
    "storage loader": (call("torch.storage", "_load_from_bytes", "x"), "refers to torch.storage._load_from_bytes"),
    "control characters": (name("os\x1b[2J", "system"), r"refers to os\\x1b\[2J.system"),
}


@pytest.mark.parametrize("case", CODE)
@pytest.mark.parametrize("container", [zipped, legacy])
def test_nothing_in_a_pickle_runs(refused, container: Callable[[bytes], bytes], case: str) -> None:
    body, match = CODE[case]
    refused(container(mapping(first=tensor(), second=body)), match)


@pytest.mark.parametrize("case", CODE)
def test_nor_in_a_plain_pickle_that_is_called_pth(refused, case: str) -> None:
    refused(pickled(CODE[case][0]), CODE[case][1])


def test_pickles_of_python_itself(refused) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.path.join, ("a", "b")

    for protocol in (2, 3, 4, 5):
        refused(pickle.dumps({"weight": Evil()}, protocol), "refers to posixpath.join|refers to ntpath.join")
    for protocol in (0, 1):
        refused(pickle.dumps({"weight": Evil()}, protocol), "neither a zip archive nor a pickle")


BOMBS = {
    "empty lists": b"]" * 200_000,
    "empty dicts": b"}" * 200_000,
    "nested tuples": b")" + b"\x85" * 200_000,
    "nested lists": b"]" * 100_000 + b"a" * 200_000,
    "memoized": b"]" + b"\x94" * 200_000,
    "huge memo numbers": b"]" + b"".join(b"r" + struct.pack("<I", 2**32 - 1 - index) for index in range(100_000)),
    "entries": b"}" + b"".join(text(str(index)) + b"]s" for index in range(50_000)),
    "entries at once": b"}(" + b"".join(text(str(index)) + b"N" for index in range(50_000)) + b"u",
    "copies of a dict": name("collections", "OrderedDict")
    + b"q\x00](" + b"".join(text(str(index)) + b"N\x86" for index in range(1000)) + b"eq\x01"
    + b"h\x00h\x01\x85R" * 5000,
    "wide text": b"".join(text("x" * 700_000 + "𝒲") + b"r" + struct.pack("<I", index) for index in range(6)),
    "numbers": b"G\0\0\0\0\0\0\0\1" * 500_000,
    "long numbers": (b"\x8a\xff" + b"\x7f" * 255) * 50_000,
    "marks": b"(" * 500_000,
    "ordered dicts": name("collections", "OrderedDict") + b"q\x00" + b"h\x00)R" * 100_000,
    "names": name("torch", "Size") * 200_000,
    "storages": b"".join(storage(str(index)) for index in range(20_000)),
    "tensors": name("torch._utils", "_rebuild_tensor_v2")
    + b"q\x00(" + storage() + number(0) + tuple_of(*[1] * 8) + tuple_of(*[1] * 8) + b"\x89Ntq\x01"
    + b"h\x00h\x01R" * 100_000,
}  # fmt: skip


@pytest.mark.parametrize("case", BOMBS)
def test_memory_is_counted(refused, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    """The rule of 64 MiB and twice the pickle's length, with 2 MiB so that the test takes little time."""
    monkeypatch.setattr(unpickle, "_FREE", 2 * MIB)
    refused(zipped(BOMBS[case]), "file.pth: its pickle (would take|is damaged)", spare=2.2 * MIB)


LIES = {
    "text": b"X\xff\xff\xff\xff",
    "text of 2⁶⁴ bytes": b"\x8d" + b"\xff" * 8,
    "bytes of 2⁶⁴ bytes": b"\x8e" + b"\xff" * 8,
    "bytearray": b"\x96" + b"\xff" * 7 + b"\x7f",
    "long": b"\x8a\xff",
    "long line": b"c" + b"a" * 100_000 + b"\nb\n",
    "memo": b"r\xff\xff\xff\x7f",
}


@pytest.mark.parametrize("case", LIES)
def test_lengths_are_checked_first(refused, case: str) -> None:
    for container in (zipped, legacy):
        refused(container(LIES[case]), "its pickle is (cut off or )?damaged|file.pth: it", spare=MIB)


def test_a_bomb_of_full_size(refused) -> None:
    refused(zipped(b"]" * 3_000_000), "would take more than 6[0-9] MiB", spare=70 * MIB)


def test_repeated_arrays_and_deep_nesting(read) -> None:
    again = b"".join(text(f"{index}") + b"h\x00" for index in range(20_000))
    with memory_below(20 * MIB):
        found = read(zipped(b"}(" + text("a") + tensor(size=(1,) * 8, stride=(1,) * 8) + b"q\x00" + again + b"u"))
    assert len(found) == 20_001
    deep = b")" + b"\x85" * 100_000
    assert list(read(zipped(mapping(weight=tensor(), deep=deep)))) == ["weight"]
    key = mapping(weight=tensor()) + deep + b"Ns"  # hashing that key would overflow C's stack
    assert list(read(zipped(key))) == ["weight"]


def test_expanded_tensors_are_bounded(refused) -> None:
    refused(zipped(mapping(x=tensor(size=(2**20, 2**10), stride=(0, 0)))), "repeat numbers up to 4096 MiB")
    refused(zipped(mapping(x=tensor(size=(2**40, 2**40), stride=(0, 0)))), "larger than a file")
    refused(zipped(mapping(x=tensor(size=(0, 2**40, 2**40), stride=(0, 0, 0)))), "larger than a file")


TENSORS = {
    "negative offset": (tensor(offset=-1), "negative"),
    "negative size": (tensor(size=(-2, 3)), "negative"),
    "negative stride": (tensor(stride=(-3, 1)), "negative"),
    "offset beyond": (tensor(offset=1), "reaches beyond its storage"),
    "size beyond": (tensor(size=(3, 3)), "reaches beyond its storage"),
    "stride beyond": (tensor(stride=(4, 1)), "reaches beyond its storage"),
    "huge stride": (tensor(stride=(2**62, 2**62)), "negative or no number"),
    "huge offset": (tensor(offset=2**64), "negative or no number"),
    "fewer strides": (tensor(stride=(1,)), "different lengths"),
    "many axes": (tensor(size=(1,) * 9, stride=(1,) * 9), "9 axes"),
    "bool as size": (
        name("torch._utils", "_rebuild_tensor_v2") + b"(" + storage() + number(0) + b"(\x88t(\x88t\x89NtR",
        "negative or no number",
    ),
    "no storage": (tensor(number(3)), "no storage"),
    "too few values": (name("torch._utils", "_rebuild_tensor_v2") + b"(" + storage() + b"tR", "described by 1 values"),
    "parameter of nothing": (name("torch._utils", "_rebuild_parameter") + b"(NNNtR", "a parameter in it has no tensor"),
    "negative count": (tensor(storage(count=-6)), "negative"),
    "two dtypes": (b"(" + tensor() + tensor(storage(kind="IntStorage")) + b"t", "two dtypes or lengths"),
    "two lengths": (b"(" + tensor() + tensor(storage(count=7)) + b"t", "two dtypes or lengths"),
    "view beyond": (tensor(storage(view=b"(" + text("1") + number(2) + number(5) + b"t")), "view .* beyond it"),
    "damaged view": (tensor(storage(view=b"(" + text("1") + b"t")), "view .* damaged"),
    "complex": (tensor(storage(kind="ComplexFloatStorage")), "complex numbers"),
    "quantised": (name("torch._utils", "_rebuild_qtensor"), "quantised"),
    "quantised storage": (tensor(storage(kind="QInt8Storage")), "quantised"),
    "sparse": (name("torch._utils", "_rebuild_sparse_tensor"), "sparse"),
    "another dtype": (name("torch._utils", "_rebuild_tensor_v3"), "a dtype that minifcn lacks"),
}


@pytest.mark.parametrize("case", TENSORS)
@pytest.mark.parametrize("container", [zipped, legacy])
def test_malformed_tensors(refused, container: Callable[[bytes], bytes], case: str) -> None:
    body, match = TENSORS[case]
    refused(container(mapping(x=body)), match)


DAMAGED = {
    "empty stack": b"0",
    "nothing to append to": b"]a",
    "append to a tuple": b")Na",
    "appends without mark": b"]e",
    "odd items": b"}(" + text("a") + b"u",
    "items of a list": b"](" + text("a") + b"Nu",
    "below the mark": b"]K\x01(ata",
    "memo": b"h\x07",
    "long memo": b"j\xff\xff\xff\xff",
    "not utf-8": b"X\x01\x00\x00\x00\xff",
    "two values": b"]]",
    "open mark": b"](",
    "protocol": b"\x80\x09N",
    "set items without set": b"](Nt\x90",
    "stack global of numbers": b"K\x01K\x02\x93",
    "line": b"cabc",
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_pickles(refused, case: str) -> None:
    refused(zipped(DAMAGED[case]), "its pickle")


NO_STATE_DICT = {
    "one tensor": (tensor(), "holds one tensor"),
    "list": (b"](" + tensor() + b"e", "no mapping from names"),
    "numbers": (mapping(epoch=number(1), lr=number(2)), "no tensors by name, but 'epoch', 'lr'"),
    "nothing": (b"}", "no tensors by name, but nothing"),
    "several": (mapping(generator=STATE, discriminator=STATE), "several state dicts .'generator', 'discriminator'"),
    "two usual names": (mapping(model=STATE, net=STATE), "several state dicts .'model', 'net'"),
    "too deep": (mapping(a=mapping(b=mapping(c=STATE))), "no tensors by name, but 'a'"),
    "itself": (b"}q\x00" + text("a") + b"h\x00s", "no tensors by name, but 'a'"),
}


@pytest.mark.parametrize("case", NO_STATE_DICT)
def test_no_state_dict(refused, case: str) -> None:
    body, match = NO_STATE_DICT[case]
    refused(zipped(body), match)


def test_a_dict_that_holds_itself_is_searched_once(refused) -> None:
    entries = b"".join(text(str(index)) + b"h\x00" for index in range(500))
    refused(zipped(b"}q\x00(" + entries + b"u"), "no tensors by name, but '0', .*, …;", spare=4 * MIB)


def archive(*entries: tuple[str, bytes], comment: bytes = b"", compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as out:
        for entry, content in entries:
            out.writestr(entry, content)
        out.comment = comment
    return buffer.getvalue()


def patched(content: bytes, entry: str, at: int, new: bytes, local: bool = False) -> bytes:
    """A zip archive with some bytes of an entry's directory record, or of its local header, replaced."""
    name_at = content.index(entry.encode()) if local else content.rindex(entry.encode())
    start = name_at - (30 if local else 46) + at
    return content[:start] + new + content[start + len(new) :]


def with_64_bit_fields(content: bytes, entry: str) -> bytes:
    """The archive with the sizes and place of its last entry, and the directory's place, as 64-bit fields."""
    end = len(content) - 22
    *_, count, length, start, _ = struct.unpack("<4s4H2LH", content[end:])
    record = content.rindex(entry.encode()) - 46
    fields = struct.unpack("<4s6H3L5H2L", content[record : record + 46])
    extra = struct.pack("<2H3Q", 1, 24, fields[9], fields[8], fields[16])
    big = 0xFFFFFFFF
    wide = struct.pack("<4s6H3L5H2L", *fields[:8], big, big, fields[10], len(extra), *fields[12:16], big)
    length += len(extra)
    directory = content[start:record] + wide + entry.encode() + extra
    end_64 = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, length, start)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, start + length, 1)
    last = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, big, big, 0)
    return content[:start] + directory + end_64 + locator + last


def test_archives_with_64_bit_fields(read) -> None:
    equal(read(with_64_bit_fields(zipped(), "archive/version"))["weight"], FLOATS.reshape(2, 3))


PKL, DATA = ("archive/data.pkl", pickled(STATE)), ("archive/data/0", FLOATS.tobytes())
ARCHIVES = {
    "deflated": (zipped(compression=zipfile.ZIP_DEFLATED), "compressed"),
    "bomb": (zipped(storages={"0": bytes(50_000_000)}, compression=zipfile.ZIP_DEFLATED), "compressed"),
    "bomb as pickle": (archive(("a/data.pkl", bytes(50_000_000)), compression=zipfile.ZIP_DEFLATED), "compressed"),
    "compressed, says the directory": (patched(zipped(), "archive/data/0", 10, b"\x08\x00"), "compressed"),
    "packed, says the directory": (patched(zipped(), "archive/data/0", 20, b"\x17"), "compressed"),
    "encrypted": (patched(zipped(), "archive/data/0", 8, b"\x01\x00"), "encrypted"),
    "parent": (archive(PKL, DATA, ("archive/../../etc/passwd", b"x")), "unsafe name"),
    "absolute": (archive(PKL, DATA, ("/etc/passwd", b"x")), "unsafe name"),
    "drive": (archive(PKL, DATA, ("C:/x", b"x")), "unsafe name"),
    "backslash": (zipped().replace(b"archive/version", b"arch\\ve/version"), "unsafe name"),
    "not utf-8": (zipped().replace(b"archive/version", b"archive/vers\xffon"), "not UTF-8"),
    "twice": (
        zipped(storages={"0": b"", "1": b""}).replace(b"archive/data/1", b"archive/data/0"),
        "'archive/data/0' twice",
    ),
    "two roots": (archive(PKL, DATA, ("other/data.pkl", b"x")), "one folder"),
    "no pickle": (archive(DATA), "one folder"),
    "no root": (archive(("data.pkl", pickled(STATE))), "one folder"),
    "nothing": (b"PK\x03\x04" + archive(), "damaged|one folder"),
    "torchscript": (zipped(extra={"archive/constants.pkl": b"x"}), "TorchScript"),
    "comment": (archive(PKL, DATA, comment=b"hello"), "cut off or damaged"),
    "byte order": (zipped(extra={"archive/byteorder": b"middle"}), "byte order"),
    "storage missing": (archive(PKL), "storage '0' is missing"),
    "storage too short": (zipped(storages={"0": bytes(20)}), "has 20 bytes, and 24 are needed"),
    "storage too long": (zipped(storages={"0": bytes(28)}), "has 28 bytes, and 24 are needed"),
    "size beyond the file": (patched(zipped(), "archive/data/0", 20, struct.pack("<2L", 2**31, 2**31)), "disagree"),
    "both sizes beyond": (
        patched(
            patched(zipped(), "archive/data/0", 20, struct.pack("<2L", 2**31, 2**31)),
            *("archive/data/0", 18, struct.pack("<2L", 2**31, 2**31), True),
        ),
        "overlap",
    ),
    "header beyond": (patched(zipped(), "archive/data/0", 42, struct.pack("<L", 2**31)), "cut off or damaged"),
    "overlapping": (patched(zipped(), "archive/data/0", 42, struct.pack("<L", 0)), "disagree"),
    "another local name": (patched(zipped(), "archive/data/0", 30, b"brchive", True), "disagree"),
    "another local method": (patched(zipped(), "archive/data/0", 8, b"\x08\x00", True), "disagree"),
    "many entries": (zipped()[:-14] + struct.pack("<2H", 60_000, 60_000) + zipped()[-10:], "60000 entries"),
    "directory too long": (zipped()[:-10] + struct.pack("<2LH", 10**6, 0, 0), "damaged"),
    "directory too short": (zipped()[:-10] + struct.pack("<L", 60) + zipped()[-6:], "longer than it says"),
    "64-bit size missing": (patched(zipped(), "archive/data/0", 20, b"\xff" * 8), "64-bit size is missing"),
    "64-bit place beyond": (
        with_64_bit_fields(zipped(), "archive/version").replace(
            struct.pack("<Q", zipped().index(b"archive/version") - 30), b"\xff" * 8
        ),
        "cut off or damaged",
    ),
}


@pytest.mark.parametrize("case", ARCHIVES)
def test_malformed_archives(refused, case: str) -> None:
    content, match = ARCHIVES[case]
    refused(content, match)


def test_overlapping_entries(refused) -> None:
    # the second storage's local header lies inside of the first storage, which is what the directory says too
    inner = struct.pack("<4s5H3L2H", b"PK\x03\x04", 20, 0, 0, 0, 0, 0, 24, 24, 14, 0) + b"archive/data/1" + bytes(24)
    content = zipped(storages={"0": inner, "1": bytes(24)})
    moved = patched(content, "archive/data/1", 42, struct.pack("<L", content.index(inner)))
    refused(moved, "overlap")


LEGACY = {
    "magic": (legacy(magic=MAGIC + 1), "magic number"),
    "protocol": (legacy(protocol=1002), "protocol number"),
    "count": (legacy(storages={"0": (5, FLOATS.tobytes())}), "differ in its length"),
    "negative count": (legacy(storages={"0": (-6, FLOATS.tobytes())}), "differ in its length"),
    "too short": (legacy(storages={"0": (6, bytes(20))}), "4 bytes are missing"),
    "too long": (legacy() + b"x", "goes on after its last storage .1 bytes"),
    "unknown key": (legacy(storages={"7": (6, FLOATS.tobytes())}), "list of storages"),
    "no keys": (legacy(storages={}), "list of storages"),
    "count beyond": (
        legacy(mapping(x=tensor(storage(count=2**40))), {"0": (2**40, bytes(8))}),
        "cut off .4398046511096 bytes are missing",
    ),
    "empty": (b"", "it is empty"),
    "text": (b"hello", "neither a zip archive nor a pickle"),
    "tar": (bytes(257) + b"ustar\x0000" + bytes(248), "tar format"),
    "plain pickle": (pickled(b"}"), "magic number"),
}


@pytest.mark.parametrize("case", LEGACY)
def test_malformed_legacy_files(refused, case: str) -> None:
    content, match = LEGACY[case]
    refused(content, match)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no file"):
        read_pth(tmp_path / "none.pth")


def readable(path: Path, content: bytes) -> bool:
    """Whether a file is read; if not, that a check of ours refused it."""
    path.unlink(missing_ok=True)
    path.write_bytes(content)
    try:
        with nothing_runs():
            arrays = read_pth(path)
    except ValueError as error:
        refusal = error
    else:
        refusal = None
    if refusal is not None:
        assert isinstance(refusal.__cause__, Fault), repr(refusal.__cause__)
        return False
    for array in arrays.values():
        assert array.size <= 2 * len(content) + 100 * MIB
        array.tobytes()
    return True


@pytest.mark.parametrize("content", [zipped(), legacy()], ids=["zip", "legacy"])
def test_truncated_anywhere(tmp_path: Path, content: bytes) -> None:
    assert readable(tmp_path / "file.pth", content)
    for length in range(len(content)):
        assert not readable(tmp_path / "file.pth", content[:length])


RICH = mapping(
    a=tensor(),
    b=tensor(storage("1", "BFloat16Storage", 4), size=(2, 2), stride=(2, 1)),
    c=tensor(offset=1, size=(2,), stride=(3,)),
    d=mapping(epoch=number(3)),
)
FILES = [zipped(RICH, {"0": FLOATS.tobytes(), "1": bytes(8)}), legacy(RICH, {"0": (6, bytes(24)), "1": (4, bytes(8))})]
EDITS = st.lists(
    st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 4), st.binary(max_size=9)), min_size=1, max_size=4
)


@given(which=st.sampled_from([0, 1]), edits=EDITS)
@example(which=0, edits=[(0.0, 0, b"")])
@example(which=1, edits=[(0.0, 0, b"")])
def test_changed_bytes_are_read_or_refused(tmp_path: Path, which: int, edits: list[tuple[float, int, bytes]]) -> None:
    content = FILES[which]
    for place, removed, added in edits:
        at = int(place * len(content))
        content = content[:at] + added + content[at + removed :]
    readable(tmp_path / "file.pth", content)


@given(body=st.binary(max_size=60))
def test_random_instructions(tmp_path: Path, body: bytes) -> None:
    readable(tmp_path / "file.pth", zipped(b"}" + body))


# -- files that PyTorch writes


def networks(torch: Any) -> dict[str, Any]:
    nn = torch.nn
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ConvTranspose2d(8, 4, 4, 2, bias=False))
    base = torch.randn(4, 6)
    half = base.to(torch.bfloat16)
    parallel = nn.DataParallel(net)
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.randn(2, 3, 8, 8)).sum().backward()
    optimizer.step()
    tied = {"a.weight": base, "b.weight": base.T, "c": base[1:3, ::2], "d": base[2, 3], "e": base[:1].expand(5, 6)}
    kinds = (torch.float16, torch.float64, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.bool)
    images = torch.ones(2, 3, 4, 5).to(memory_format=torch.channels_last)
    options = argparse.Namespace(lr=0.1, device=torch.device("cpu"), dtype=torch.float32, size=torch.Size([1, 2]))
    return {
        "state dict": net.state_dict(),
        "parallel": parallel.state_dict(),
        "shared": tied,
        "bfloat16": {"a": half, "b": half.T, "c": half[1:, 2]},
        "dtypes": {str(kind): (base * 3).abs().to(kind) for kind in kinds},
        "parameters": {"p": nn.Parameter(base), "q": nn.Parameter(base.T, requires_grad=False)},
        "odd": {"empty": torch.empty(0, 3), "zero": torch.tensor(1.5), "images": images},
        "checkpoint": {
            "model": net.state_dict(),
            "optimizer": optimizer.state_dict(),
            "rng_state": torch.get_rng_state(),
            "args": options,
            "best": np.float64(0.5),
            "history": [(1, 0.5), (2, 0.25)],
        },
    }


WHAT = ["state dict", "parallel", "shared", "bfloat16", "dtypes", "parameters", "odd", "checkpoint"]


@pytest.mark.oracle
@pytest.mark.parametrize("in_zip", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("what", WHAT)
def test_what_pytorch_writes(tmp_path: Path, what: str, in_zip: bool) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    saved = networks(torch)[what]
    torch.save(saved, tmp_path / "file.pth", _use_new_zipfile_serialization=in_zip)
    found = read_pth(tmp_path / "file.pth")
    expected = saved.get("model", saved)
    assert list(found) == list(expected)
    for key, value in expected.items():
        kept = value.detach().float() if value.dtype == torch.bfloat16 else value.detach()
        equal(found[key], kept.numpy())
        if value.numel() and what != "odd":
            width = found[key].itemsize
            assert found[key].strides == tuple(step * width for step in value.stride())
    if what == "shared":
        assert np.shares_memory(found["a.weight"], found["b.weight"])


@pytest.mark.oracle
@pytest.mark.parametrize("in_zip", [True, False], ids=["zip", "legacy"])
def test_what_pytorch_writes_and_we_refuse(tmp_path: Path, refused, in_zip: bool) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    for saved, match in (
        (torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1)), "a torch.nn.modules.container.Sequential: a whole module"),
        ({"x": torch.ones(2, dtype=torch.complex64)}, "complex"),
        ({"x": torch.eye(3).to_sparse()}, "sparse"),
        ({"x": torch.ones(2, dtype=torch.uint16)}, "a dtype that minifcn lacks|without a dtype"),
    ):
        torch.save(saved, tmp_path / "saved.pth", _use_new_zipfile_serialization=in_zip)
        refused((tmp_path / "saved.pth").read_bytes(), match)


@pytest.mark.oracle
def test_pytorch_reads_our_files_as_we_do(tmp_path: Path, read) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    swapped = {"0": FLOATS.astype(">f4").tobytes()}
    for content in (
        zipped(),
        zipped(storages=swapped, extra={"archive/byteorder": b"big"}),
        legacy(),
        legacy().replace(text("little_endian") + b"\x88", text("little_endian") + b"\x89"),  # it does not matter
    ):
        (tmp_path / "ours.pth").write_bytes(content)
        expected = torch.load(tmp_path / "ours.pth", weights_only=True)
        equal(read(content)["weight"], expected["weight"].numpy())
