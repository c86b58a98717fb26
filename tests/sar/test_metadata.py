"""Pickled metadata: what is plain comes out as it went in, by every protocol; nothing else does anything."""

import os
import pickle
import pickletools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from l4s.errors import DataError
from l4s.sar.metadata import LARGEST, read_metadata
from l4s.sar.plain import parse

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
METADATA = {
    "variables": ["TS::vv::20180824", "TS::vh::20180824", "TP::coherence::20180824_20180905", "ST::landslides"],
    "bounds": {"minx": 10.5, "miny": -3, "maxx": 1e300, "maxy": 2**70},
    "crs": "EPSG:32654",
    "chip_id": "überall",
    "flags": (True, False, None, (), [], {}, (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)),
}
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inside: st.lists(inside) | st.tuples(inside, inside) | st.dictionaries(st.text(), inside),
    max_leaves=30,
)


class Reduced:
    """What a pickle of it calls is told to `__reduce__`."""

    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call


def fresh(value):
    """Equal, but without a container or text that is used twice."""
    return pickle.loads(pickle.dumps(value))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_metadata_come_out_as_they_went_in(tmp_path, protocol):
    path = tmp_path / "1.metadata.pkl"
    path.write_bytes(pickle.dumps(METADATA, protocol))
    assert read_metadata(path) == METADATA
    path.write_bytes(pickletools.optimize(pickle.dumps(METADATA, protocol)))
    assert read_metadata(path) == METADATA


@given(PLAIN, st.sampled_from(PROTOCOLS))
def test_every_plain_value_by_every_protocol(value, protocol):
    data = pickle.dumps(value, protocol)
    try:
        found = parse(data, "x")
    except DataError as error:
        assert "twice" in str(error) or "deep" in str(error)  # hypothesis may hand out one container twice
        return
    assert found == value and repr(found) == repr(value)


@pytest.mark.parametrize("kind", ["f8", "f4", "i8", "i4", "u8", "u4", "?", ">f8", ">i4"])
@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_numbers_of_numpy_become_plain(kind, protocol):
    values = [np.array(1, kind)[()], np.array(0, kind)[()]]
    found = parse(pickle.dumps({"bounds": values}, protocol), "x")["bounds"]
    assert found == values and not any(isinstance(value, np.generic) for value in found)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "call",
    [
        (os.system, ("touch ran",)),
        (eval, ("open('ran', 'w')",)),
        (exec, ("open('ran', 'w')",)),
        (open, ("ran", "w")),
        (__import__, ("os",)),
        (np.zeros, (10,)),
        (dict, ()),
        (complex, (1, 2)),
    ],
    ids=["os.system", "eval", "exec", "open", "import", "numpy", "dict", "complex"],
)
@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: {"crs": x}, lambda x: [{"a": (1, [x])}]])
def test_calls_are_refused_by_name_and_not_made(tmp_path, monkeypatch, protocol, call, wrap):
    monkeypatch.chdir(tmp_path)
    data = pickle.dumps(wrap(Reduced(*call)), protocol)
    with pytest.raises(DataError, match=rf"1\.pkl: it names '[\w.]+ {call[0].__name__}'.*nothing was run"):
        parse(data, "1.pkl")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "value", [{1, 2}, frozenset({1}), b"raw", bytearray(b"raw"), 1j, range(3), slice(1), np.ones(3)]
)
def test_other_values_are_refused(protocol, value):
    with pytest.raises(DataError, match="no plain value|plain values do not need"):
        parse(pickle.dumps({"crs": value}, protocol), "x")


@pytest.mark.parametrize(
    ("program", "says"),
    [
        (b"(S'touch ran'\nios\nsystem\n.", "instruction INST"),
        (b"cos\nsystem\n(S'touch ran'\ntR.", "names 'os system'"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x09touch ran\x85R.", "names 'os system'"),
        (b"\x80\x02\x82\x01.", "instruction EXT1"),
        (b"Pname\n.", "instruction PERSID"),
        (b"]Q.", "instruction BINPERSID"),
        (b"\x80\x05\x97.", "instruction NEXT_BUFFER"),
        (b"\x80\x02cnumpy\ndtype\n)\x81.", "instruction NEWOBJ"),
        (b"\x80\x02})b.", "plain values do not have"),
        (b"\x80\x02cnumpy\ndtype\n.", "holds name"),
        (b"\x80\x02cnumpy\ndtype\n(X\x02\x00\x00\x00f8I00\nI01\ntR.", "holds dtype"),
        (b"\x80\x02cnumpy\ndtype\n(X\x02\x00\x00\x00O8I00\nI01\ntR.", "no plain number"),
        (b"\x80\x04C\x03raw.", "holds bytes"),
        (b"]q\x00h\x00a.", "uses a list twice"),  # a list in itself
        (b"]2.", "instruction DUP"),
        (b"}(]I1\nu.", "key that is neither"),
        (b"](K\x01.", "left after its end"),
        (b"K\x01.K\x02.", "left after its end"),
        (b"K\x01", "broken pickle|without an end"),
        (b"", "broken pickle|without an end"),
        (b"\xff\xff", "broken pickle"),
        (b"a.", "broken pickle"),
        (b"e.", "broken pickle"),
        (b"K\x01K\x02a.", "items are added to a int"),
        (b"h\x07.", "broken pickle"),
        (b"(.", "holds mark"),
    ],
)
def test_programs_that_are_no_metadata(tmp_path, monkeypatch, program, says):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=says):
        parse(program, "x")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("program", "says"),
    [
        (b"\x80\x04\x8d" + (2**60).to_bytes(8, "little") + b"x.", "broken"),  # a text of an exabyte
        (b"\x80\x02\x8b" + (2**31 - 1).to_bytes(4, "little") + b"x.", "broken"),  # a number of two gigabytes
        (b"\x80\x02Nr\xff\xff\xff\xff.", None),  # the last of four billion places of memory
        (b"]" + b"".join(b"q%c(%sl" % (k, b"h%c" % k * 9) for k in range(9)) + b".", "uses a list twice"),  # 9**9 items
        (b"]" * 400_000 + b"a" * 399_999 + b".", "more than 20 deep"),
        (b"}N" + b"\x85" * 400_000 + b"Ns.", "key that is neither"),
        (b"N" + b"\x85" * 400_000 + b".", "more than 20 deep"),
        (b"I" + b"9" * 100_000 + b"\n.", "broken"),
    ],
    ids=["text", "number", "memory", "laughs", "lists", "key", "tuples", "digits"],
)
def test_bombs(program, says):
    if says is None:
        assert parse(program, "x") is None
        return
    with pytest.raises(DataError, match=says):
        parse(program, "x")


@given(st.binary(max_size=40))
def test_any_bytes_give_a_plain_value_or_an_error(data):
    try:
        parse(data, "x")
    except DataError:
        return


def test_files_of_another_kind(tmp_path):
    path = tmp_path / "1.metadata.pkl"
    path.write_bytes(pickle.dumps(["TS::vv::20180824"]))
    with pytest.raises(DataError, match="holds a list; the metadata of a chip are a dict"):
        read_metadata(path)
    path.write_bytes(pickle.dumps({1: 2}))
    with pytest.raises(DataError, match="strings as keys"):
        read_metadata(path)
    path.write_bytes(pickle.dumps({"a": "x" * LARGEST}))
    with pytest.raises(DataError, match=r"1\.metadata\.pkl has 1,048,\d+ bytes"):
        read_metadata(path)
    with pytest.raises(DataError, match="cannot be read"):
        read_metadata(tmp_path / "none.pkl")
