"""Reference of the die-to-die link: its CRC, its flits, its efficiency."""
FLIT_BYTES, PHIT_BYTES, SLOT_BYTES, SLOTS, LINE_BYTES = 256, 64, 80, 3, 64


def crc32c(data: bytes) -> int:
    """CRC-32C of RFC 3720 appendix B.4, bit by bit; 0xE3069283 for b"123456789"."""
    state = 0xFFFFFFFF
    for byte in data:
        state ^= byte
        for _ in range(8):
            state = state >> 1 ^ (0x82F63B78 if state & 1 else 0)
    return state ^ 0xFFFFFFFF


def flit_fields(flit: bytes) -> dict[str, int]:
    """The trailer of a flit by field, and ``good``: whether its CRC holds."""
    trailer = int.from_bytes(flit[240:252], "little")
    fields = {}
    for name, bits in (("sequence", 16), ("ack", 16), ("requests", 16), ("responses", 16),
                       ("sequenced", 1), ("nak", 1), ("poll", 1), ("round", 2)):
        fields[name] = trailer & (1 << bits) - 1
        trailer >>= bits
    fields["good"] = int(crc32c(flit[:252] + bytes(4)) == int.from_bytes(flit[252:], "little"))
    return fields


def flit_slots(flit: bytes) -> list[int]:
    """The used slots of a flit as integers of 640 bits; kind NONE (0) is left out."""
    slots = [int.from_bytes(flit[i * SLOT_BYTES:(i + 1) * SLOT_BYTES], "little")
             for i in range(SLOTS)]
    return [slot for slot in slots if slot & 15]


def goodput(*, flit_error_rate: float, window_flits: float) -> float:
    """Share of the flits sent by go-back-N that are taken, with a round trip of so many flits."""
    p = flit_error_rate
    return (1 - p) / (1 - p + p * window_flits)


def flit_error_rate(bit_error_rate: float) -> float:
    return 1 - (1 - bit_error_rate) ** (8 * FLIT_BYTES)


def payload_efficiency(*, bit_error_rate: float = 0.0, window_flits: float = 16) -> float:
    """Share of the wires' bytes that are lines of payload, when every slot carries one."""
    share = goodput(flit_error_rate=flit_error_rate(bit_error_rate), window_flits=window_flits)
    return SLOTS * LINE_BYTES / FLIT_BYTES * share
