"""Values between processes of ours, through pipes; nothing that lies on a disk, or is from elsewhere, is unpickled."""

from __future__ import annotations

import pickle
import struct
from typing import IO, Any

_LENGTH = struct.Struct("<Q")


def packed(value: Any) -> bytes:
    """A value as bytes; raises whatever its classes do if it can't be."""
    return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)


def unpacked(data: bytes) -> Any:
    """The value that was `packed` by a process that this one started, or that started this one."""
    return pickle.loads(data)


def put(stream: IO[bytes], value: Any) -> None:
    """Send a value."""
    data = packed(value)
    stream.write(_LENGTH.pack(len(data)))
    stream.write(data)
    stream.flush()


def take(stream: IO[bytes]) -> bytes:
    """The next value that was `put`, still packed; raises EOFError at the end."""
    (length,) = _LENGTH.unpack(_exactly(stream, _LENGTH.size))
    return _exactly(stream, length)


def _exactly(stream: IO[bytes], length: int) -> bytes:
    parts: list[bytes] = []
    while length > 0:
        part = stream.read(length)  # of a pipe without a buffer, what is there
        if not part:
            raise EOFError
        parts.append(part)
        length -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)
