"""Messages: what goes in comes out, bit for bit, and what is torn is refused."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from common.errors import BadInput
from common.orders import SiteCard, TrainReport
from common.tasks import Task
from common.update import Weights
from common.weights import fingerprint
from common.wire import arrays_of, from_config, pack, payload_bytes, to_config, unpack, weights_of

CARD = SiteCard("tal", "train", Task("lump", ("a", "b"), "b"), {"train": 3, "val": 1, "test": 2}, 5, "0" * 64)
REPORT = TrainReport("tal", 3.0, 96, 3, 0.1 + 0.2, 1e-300, 0.25)

tensors = st.sampled_from(["<f2", "<f4", "<f8"]).flatmap(
    lambda kind: hnp.arrays(np.dtype(kind), hnp.array_shapes(min_dims=0, max_dims=4, min_side=1, max_side=5))
)


@settings(max_examples=50)
@given(st.dictionaries(st.text(max_size=20), tensors, max_size=12))
def test_tensors_come_back_bit_for_bit(weights: Weights) -> None:
    back = weights_of(arrays_of(weights))
    assert list(back) == list(weights)
    assert fingerprint(back) == fingerprint(weights)
    assert all(array.flags.writeable for array in back.values())


def test_large_and_many_tensors_travel_in_few_arrays() -> None:
    rng = np.random.default_rng(0)
    large = {"large": rng.normal(size=(1500, 1000)).astype(np.float32), "odd": rng.normal(size=1_000_003)}
    many = {f"layer.{i}.bias": rng.normal(size=7).astype(np.float32) for i in range(2000)}
    record = arrays_of({**large, **many})
    assert len(record) == 1 + -(-(6_000_000 + 8_000_024 + 2000 * 28) // (5 << 20))
    assert fingerprint(weights_of(record)) == fingerprint({**large, **many})


@pytest.mark.parametrize("sides", [(), (5,), (2000, 1000)])
def test_arrays_are_those_that_flower_makes_and_reads(sides: tuple[int, ...]) -> None:
    record = arrays_of({"a": np.ones(sides), "empty": np.ones((0, 3)), "b": np.full(7, 2.0, np.float32)})
    for array in record.values():
        theirs = Array(array.numpy())
        assert (theirs.dtype, theirs.shape, theirs.stype, theirs.data) == (
            array.dtype,
            array.shape,
            array.stype,
            array.data,
        )


def test_a_view_travels_as_what_it_shows() -> None:
    weights = {"view": np.arange(12.0).reshape(3, 4).T[::2]}
    assert np.array_equal(weights_of(arrays_of(weights))["view"], weights["view"])


def torn() -> dict[str, ArrayRecord]:
    whole = dict(arrays_of({"a": np.ones((600, 1000), np.float64), "b": np.zeros((), np.float32)}))
    pieces = sorted(set(whole) - {"directory"})

    def cut(array: Array, end: int) -> Array:
        return replace(array, data=array.data[:-end])

    def directory(entries: object) -> ArrayRecord:
        content = json.dumps(entries).encode() if not isinstance(entries, bytes) else entries
        return ArrayRecord({**whole, "directory": Array(np.frombuffer(content, np.uint8))})

    shape = [600, 1000]
    return {
        "no directory": ArrayRecord({name: whole[name] for name in pieces}),
        "the last piece is lost": ArrayRecord({n: a for n, a in whole.items() if n != pieces[-1]}),
        "a piece too many": ArrayRecord({**whole, "0009": whole[pieces[-1]]}),
        "a directory torn": directory(b'[["a", "<f8", [60'),
        "a tensor of pickles": directory([["a", "|O", shape], ["b", "<f4", []]]),
        "integers": directory([["a", "<i8", shape], ["b", "<f4", []]]),
        "a tensor unlisted": directory([["a", "<f8", shape]]),
        "a negative side": directory([["a", "<f8", [-1]], ["b", "<f4", []]]),
        "a shape too large": directory([["a", "<f8", [1 << 62, 1 << 62]], ["b", "<f4", []]]),
        "no list": directory({"a": 1}),
        "a shape of words": directory([["a", "<f8", ["x"]]]),
        "bytes torn": ArrayRecord({**whole, pieces[0]: Array("uint8", (9,), "numpy.ndarray", b"")}),
        "no array": ArrayRecord({**whole, pieces[0]: Array("uint8", (9,), "numpy.ndarray", b"PK\x03\x04")}),
        "a piece cut short": ArrayRecord({**whole, pieces[0]: cut(whole[pieces[0]], 1)}),
        "a piece of numbers": ArrayRecord({**whole, pieces[0]: Array(np.ones(5 << 17))}),
        "a piece of rows": ArrayRecord({**whole, pieces[0]: Array(np.ones((5, 1 << 20), np.uint8))}),
        "another way of writing": ArrayRecord({**whole, pieces[0]: replace(whole[pieces[0]], stype="pickle")}),
        "a header torn": ArrayRecord({**whole, pieces[0]: Array("uint8", (9,), "numpy.ndarray", b"\x93NUMPY")}),
    }


@pytest.mark.parametrize("how", list(torn()))
def test_torn_tensors_are_refused(how: str) -> None:
    with pytest.raises(BadInput, match="message: "):
        weights_of(torn()[how])


def test_plain_values_come_back_equal() -> None:
    content = pack(REPORT, arrays_of({"a": np.ones(3)}))
    assert unpack(TrainReport, content) == REPORT
    assert unpack(SiteCard, pack(CARD)) == CARD
    assert payload_bytes(content) > 24


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"site": "tal"}',
        to_config(REPORT)["json"],
        to_config(replace(CARD, role="train"))["json"][:-2],
    ],
)
def test_another_message_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="message"):
        from_config(SiteCard, ConfigRecord({"json": str(text)}))


def test_a_message_without_an_order_is_refused() -> None:
    with pytest.raises(BadInput, match="no order"):
        unpack(SiteCard, RecordDict())
