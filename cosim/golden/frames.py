"""Frames of the network: built and taken apart from the table of docs/network.md."""
import struct
from dataclasses import dataclass, field

from cosim.golden.link import crc32c

BEAT, HEADER, MTU = 16, 48, 4096
ETHER_TYPE = 0x88B5
SEND, WRITE, WRITE_IMM, READ_REQUEST, READ_RESPONSE, ACK, NAK = 1, 2, 3, 4, 5, 8, 9
MARK = 23               # byte that switches change


@dataclass
class Frame:
    """A frame; ``payload`` is without its padding."""

    destination: bytes
    source: bytes
    kind: int
    qp: int
    source_qp: int
    psn: int
    first: int = 1
    last: int = 1
    echo: int = 0
    ask: int = 0
    mark: int = 0
    key: int = 0
    address: int = 0
    syndrome: int = 0
    immediate: int = 0
    total: int = 0
    payload: bytes = field(default=b"")

    def pack(self):
        """Its bytes, checksum included."""
        flags = self.first | self.last << 1 | self.echo << 2 | self.ask << 3
        header = (self.destination + self.source + struct.pack(">H", ETHER_TYPE)
                  + struct.pack("<BBHH", self.kind, flags, self.qp, self.source_qp)
                  + self.psn.to_bytes(3, "little") + b"\0"
                  + struct.pack("<II", len(self.payload), self.key)
                  + self.address.to_bytes(6, "little") + bytes([self.syndrome, 0])
                  + struct.pack("<II", self.immediate, self.total))
        text = header + self.payload + bytes(-len(self.payload) % BEAT)
        text += crc32c(text).to_bytes(4, "little") + bytes(12)
        return text[:MARK] + bytes([self.mark]) + text[MARK + 1:]


def parse(text):
    """The frame of these bytes; :exc:`ValueError` if something is wrong with it."""
    if len(text) % BEAT or len(text) < HEADER + BEAT:
        raise ValueError(f"Frame must be whole beats of at least a header, not {len(text)} bytes")
    plain = text[:MARK] + b"\0" + text[MARK + 1:]
    if crc32c(plain[:-BEAT]) != int.from_bytes(text[-BEAT:-BEAT + 4], "little"):
        raise ValueError("Checksum is wrong")
    kind, flags, qp, source_qp = struct.unpack("<BBHH", text[14:20])
    length, key = struct.unpack("<II", text[24:32])
    immediate, total = struct.unpack("<II", text[40:48])
    if struct.unpack(">H", text[12:14])[0] != ETHER_TYPE or (
            len(text) != HEADER + -(-length // BEAT) * BEAT + BEAT or length > MTU):
        raise ValueError("Type or length is wrong")
    if any(text[HEADER + length:-BEAT]):
        raise ValueError("Padding is not zero")
    return Frame(text[:6], text[6:12], kind, qp, source_qp, int.from_bytes(text[20:23], "little"),
                 flags & 1, flags >> 1 & 1, flags >> 2 & 1, flags >> 3 & 1, text[MARK], key,
                 int.from_bytes(text[32:38], "little"), text[38], immediate, total,
                 text[HEADER:HEADER + length])
