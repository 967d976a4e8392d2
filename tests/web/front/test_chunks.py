"""Chunks without sockets: the same body and the same rest, however the bytes come."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.web.front.chunks import Chunks, Malformed
from tests.web.front.raw import chunks


@given(
    st.binary(max_size=200),
    st.integers(1, 60),
    st.sampled_from([b"", b";", b" ; a=b", b';a="\xe9"']),
    st.sampled_from([b"", b"A: b\r\n", b"A:\r\nB: \tc\r\n"]),
    st.lists(st.integers(0, 400), max_size=6),
)
def test_however_it_is_cut(
    body: bytes, size: int, extension: bytes, trailers: bytes, cuts: list[int]
) -> None:
    sent = chunks(body, size, extension, trailers) + b"GET / HTTP/1.1"
    buffer, read, reader = bytearray(), bytearray(), Chunks()
    bounds = [0, *sorted(cuts), len(sent)]
    whole = False
    for begin, end in pairwise(bounds):
        buffer += sent[begin:end]
        left = -1
        while left != len(buffer):  # it takes so many at once
            left = len(buffer)
            whole = reader.feed(buffer, read)
    assert whole
    assert read == body
    assert buffer == b"GET / HTTP/1.1"


@given(st.binary(max_size=50))
def test_anything_ends_well(sent: bytes) -> None:
    outcomes = []
    for pieces in [sent], [bytes([byte]) for byte in sent]:
        buffer, read, reader, ended = bytearray(), bytearray(), Chunks(), False
        try:
            for piece in pieces:
                buffer += piece
                ended = reader.feed(buffer, read)
        except Malformed:
            outcomes.append((b"", b"malformed"))
        else:
            outcomes.append((bytes(read), bytes(buffer) if ended else b"not whole"))
    assert len(set(outcomes)) <= 1


def test_a_size_line_has_a_bound() -> None:
    with pytest.raises(Malformed):
        Chunks().feed(bytearray(b"1" * 5_000), bytearray())
