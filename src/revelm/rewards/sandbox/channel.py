"""Messages over a stream socket: four bytes of length, then text. A peer that says too much is cut off."""

import socket
import struct

MAX_MESSAGE = 64 * 2**20
_LENGTH = struct.Struct("!I")


class ClosedError(Exception):
    """The other side is gone, or has said what no message can be."""


def send(peer: socket.socket, text: str) -> None:
    """One message. Raises ClosedError."""
    data = text.encode("utf-8", "surrogatepass")
    if len(data) > MAX_MESSAGE:
        raise ClosedError(f"a message of {len(data)} bytes")
    try:
        peer.sendall(_LENGTH.pack(len(data)) + data)
    except OSError as error:
        raise ClosedError(str(error)) from error


def receive(peer: socket.socket) -> str:
    """The next message. Raises ClosedError."""
    (length,) = _LENGTH.unpack(_exactly(peer, _LENGTH.size))
    if length > MAX_MESSAGE:
        raise ClosedError(f"a message of {length} bytes")
    try:
        return _exactly(peer, length).decode("utf-8", "surrogatepass")
    except UnicodeDecodeError as error:
        raise ClosedError("a message that is no text") from error


def _exactly(peer: socket.socket, length: int) -> bytes:
    parts, missing = [], length
    while missing:
        try:
            part = peer.recv(min(missing, 2**20))
        except OSError as error:
            raise ClosedError(str(error)) from error
        if not part:
            raise ClosedError("the other side closed")
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)
