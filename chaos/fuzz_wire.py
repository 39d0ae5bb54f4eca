"""Bytes for a gRPC port that no HTTP/2 client sends."""

from __future__ import annotations

from random import Random

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _SETTINGS = 0, 1, 4
_END_STREAM, _END_HEADERS = 1, 4


def fuzzed_frames(random: Random, message: bytes) -> bytes:
    """Return what goes over a new connection.

    Args:
        random: tells everything.
        message: of a call that would be answered.
    """
    match random.randrange(6):
        case 0:
            return random.randbytes(random.choice((1, 24, 1_000, 100_000)))
        case 1:
            return random.choice((b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\0", _PREFACE[:10]))
        case 2:
            return _PREFACE + b"".join(_random_frame(random) for _ in range(random.choice((1, 50))))
        case 3:
            settings = _frame(_SETTINGS, 0, 0, random.randbytes(6 * random.choice((1, 10, 2_000))))
            return _PREFACE + settings + _call(message)
        case 4:
            good = bytearray(_PREFACE + _frame(_SETTINGS, 0, 0, b"") + _call(message))
            for _ in range(random.choice((1, 5, 50))):
                good[random.randrange(len(_PREFACE), min(len(good), 400))] = random.randrange(256)
            return bytes(good)
        case _:
            good = _PREFACE + _frame(_SETTINGS, 0, 0, b"") + _call(message)
            return good[: random.randrange(len(good))]


def _frame(kind: int, flags: int, stream: int, content: bytes) -> bytes:
    head = len(content).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big")
    return head + content


def _random_frame(random: Random) -> bytes:
    stream = random.choice((0, 1, 2, 3, 0x7FFFFFFF, 0xFFFFFFFF))
    content = random.randbytes(random.choice((0, 1, 4, 5, 8, 100, 16_385)))
    return _frame(random.randrange(12), random.randrange(256), stream, content)


def _call(message: bytes) -> bytes:
    """A call on stream 1, in frames that are right."""
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": "/inference.GRPCInferenceService/ModelInfer",
        ":authority": "localhost",
        "content-type": "application/grpc",
        "te": "trailers",
    }
    # HPACK: each field literal, neither indexed nor compressed.
    block = b"".join(
        b"\0" + bytes((len(name),)) + name.encode() + bytes((len(value),)) + value.encode()
        for name, value in fields.items()
    )
    framed = b"\0" + len(message).to_bytes(4, "big") + message
    parts = [framed[at : at + 16_384] for at in range(0, len(framed), 16_384)]
    data = b"".join(
        _frame(_DATA, _END_STREAM if part is parts[-1] else 0, 1, part) for part in parts
    )
    return _frame(_HEADERS, _END_HEADERS, 1, block) + data
