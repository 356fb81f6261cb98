"""TFRecord files and tf.train.Example, read without TensorFlow.

A record is its length (uint64), the masked CRC-32C of those eight bytes, the data, and the masked
CRC-32C of the data, all little-endian. An Example is a protocol buffer of three nested messages and
a map: little enough to be read by hand.
"""

import functools
import os
import struct
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from pretrain.data.bad_input import Damaged

POLYNOMIAL = 0x82F63B78  # Castagnoli's, bits reversed
WIDTH = 1024  # bytes whose checksums are added up at once
LONGEST = 16_000_000  # bytes of a record; a longer one is no text that anyone wrote
HEADER = struct.Struct('<QI')


def records(file: BinaryIO, begin: int, end: int) -> Iterator[tuple[int, int, bytes | None]]:
    """The records of a file that begin in bytes begin .. end - 1.

    Lengths are followed from the file's start, for a record's beginning shows in no other way; the
    data before `begin` is passed over.

    Args:
      file: opened for binary reading. begin, end: byte offsets.

    Yields:
      (offset, length, data); data is None where its checksum is wrong, or the length over LONGEST.

    Raises:
      EOFError: the file ends inside of a record.
      Damaged: a length is, so that what follows it cannot be found.
    """
    offset, size = 0, file.seek(0, os.SEEK_END)
    while offset < end:
        file.seek(offset)
        head = file.read(12)
        if not head:
            return
        if len(head) < 12:
            raise EOFError
        length, checksum = HEADER.unpack(head)
        if masked(crc32c(head[:8])) != checksum:
            raise Damaged(offset)
        if offset + length + 16 > size:
            raise EOFError
        if offset >= begin:
            data = None
            if length <= LONGEST:
                data, checksum = file.read(length), file.read(4)
                if masked(crc32c(data)) != int.from_bytes(checksum, 'little'):
                    data = None
            yield offset, length, data
        offset += length + 16


def text_of(example: bytes, key: str) -> str | None:
    """The string under a key of a tf.train.Example.

    Args:
      example: the message's bytes. key: name of the feature.

    Returns:
      Its first value, None where there is no such key.

    Raises:
      ValueError: the bytes are no such message, or the value is no UTF-8.
    """
    wanted = key.encode()
    for features in _fields(example, 1):
        for entry in _fields(features, 1):
            if next(_fields(entry, 1), b'') != wanted:
                continue
            for feature in _fields(entry, 2):
                for values in _fields(feature, 1):  # of the kinds of lists, that of bytes
                    for value in _fields(values, 1):
                        return value.decode()
    return None


def keys_of(example: bytes) -> list[str]:
    """The keys of a tf.train.Example; ValueError as of text_of."""
    return sorted(
        next(_fields(entry, 1), b'').decode(errors='replace')
        for features in _fields(example, 1)
        for entry in _fields(features, 1)
    )


def _fields(message, number):
    """The values of the length-delimited fields of that number, in a protocol buffer."""
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        kind = tag & 7
        if kind == 0:
            _, place = _varint(message, place)
        elif kind == 2:
            length, place = _varint(message, place)
            if place + length > len(message):
                raise ValueError('a field is longer than its message')
            if tag >> 3 == number:
                yield message[place : place + length]
            place += length
        elif kind in (1, 5):
            place += 8 if kind == 1 else 4
        else:
            raise ValueError(f'a field of the unknown kind {kind}')


def _varint(message, place):
    value = shift = 0
    while True:
        if place >= len(message) or shift > 63:
            raise ValueError('a number is cut off')
        byte = message[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value, place


def masked(checksum: int) -> int:
    """As TFRecord files store a checksum: rotated and shifted by a constant."""
    return ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF


def crc32c(data: bytes) -> int:
    """CRC-32C of some bytes.

    The checksum is linear: that of many bytes is the exclusive or of what each byte adds from its
    place. So it is looked up WIDTH bytes at a time, one table a place.
    """
    table, by_place, over = _tables()
    if len(data) < 4:
        value = 0xFFFFFFFF
        for byte in data:
            value = int(table[(value ^ byte) & 255]) ^ value >> 8
        return value ^ 0xFFFFFFFF
    # Zeros in front add nothing, once the start value is in the first four bytes.
    padded = bytearray(-len(data) % WIDTH + len(data))
    first = len(padded) - len(data)
    padded[first:] = data
    for place in range(first, first + 4):
        padded[place] ^= 255
    rows = np.frombuffer(padded, np.uint8).reshape(-1, WIDTH)
    added = np.bitwise_xor.reduce(by_place[np.arange(WIDTH), rows], axis=1)
    value = 0
    for row in added.tolist():
        bytes_ = value & 255, value >> 8 & 255, value >> 16 & 255, value >> 24
        for places, byte in zip(over, bytes_, strict=True):
            row ^= places[byte]
        value = row
    return value ^ 0xFFFFFFFF


@functools.cache
def _tables():
    """(by byte, by place and byte, by byte of a value that WIDTH bytes follow)."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, table >> 1 ^ np.uint32(POLYNOMIAL), table >> 1)
    by_place = np.empty((WIDTH, 256), np.uint32)
    by_place[-1] = table
    for place in range(WIDTH - 2, -1, -1):
        after = by_place[place + 1]
        by_place[place] = table[after & 255] ^ after >> 8
    over = []
    for byte in range(4):
        value = np.arange(256, dtype=np.uint32) << np.uint32(8 * byte)
        for _ in range(WIDTH):
            value = table[value & 255] ^ value >> 8
        over.append(value.tolist())
    return table, by_place, over
