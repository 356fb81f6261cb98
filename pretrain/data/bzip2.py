"""Reads a .bz2 file from the middle: its blocks are found by their marks and unpacked one by one.

A file of bzip2 is one stream or several (a multistream dump), each of blocks that stand at any bit
of it. A block begins with 48 bits that say so, a stream ends with 48 others, and a block unpacks by
itself once it is put into a stream of its own. So any number of processes can each take a stretch
of a dump, however it was packed. Chance makes a mark once in 2**48 bits: a block that does not
unpack is tried again together with what follows the mark that ended it.
"""

import bz2
from collections.abc import Iterator
from typing import BinaryIO

from pretrain.data.bad_input import Damaged

BLOCK, END = 0x314159265359, 0x177245385090  # pi, and its square root, in decimal digits
MARK_BITS, CHECKSUM_BITS = 48, 32
# bzip2 -9 packs 900,000 bytes a block; what cannot be packed grows by less than a fiftieth.
LONGEST = 1_000_000
WINDOW = 1 << 20


def blocks(file: BinaryIO, begin: int, end: int) -> Iterator[tuple[int, bytes]]:
    """Unpacks the blocks whose marks begin in bytes begin .. end - 1 of a file.

    Args:
      file: a .bz2 file opened for binary reading, unbuffered or not.
      begin, end: byte offsets.

    Yields:
      (offset of the byte in which the block's mark begins, its unpacked bytes).

    Raises:
      EOFError: the file ends inside of a block.
      Damaged: a block is; the offset is that of its first byte.
    """
    found = _marks(file, begin)
    first = next(found, None)
    if first is None and not begin:
        raise EOFError  # even of nothing, a stream has its end's mark
    while first is not None:
        at, mark = first
        if at // 8 >= end:
            return
        following = next(found, None)
        if mark == BLOCK:
            following = yield from _unpacked(file, at, following, found)
        first = following


def _unpacked(file, at, following, found):
    """Yields the block at bit `at`, which reaches to a mark; returns the mark that ends it."""
    while True:
        if following is None:
            raise EOFError
        content = _alone(file, at, following[0])
        try:
            unpacked = bz2.decompress(content)
        except (OSError, ValueError):
            # A mark that is one by chance, or damage.
            following = next(found, None)
            if following is None or following[0] - at > 8 * LONGEST:
                raise Damaged(at // 8) from None
            continue
        yield at // 8, unpacked
        return following


def _alone(file, begin, end):
    """The bits begin .. end - 1 of a file, which are one block, as a stream of their own."""
    file.seek(begin // 8)
    data = file.read(-(-end // 8) - begin // 8)
    bits = end - begin
    block = int.from_bytes(data) >> (-end % 8) & ((1 << bits) - 1)
    # The checksum of a stream of one block is that block's, which stands behind its mark.
    checksum = block >> (bits - MARK_BITS - CHECKSUM_BITS) & (2**CHECKSUM_BITS - 1)
    block = block << MARK_BITS + CHECKSUM_BITS | END << CHECKSUM_BITS | checksum
    bits += MARK_BITS + CHECKSUM_BITS
    padding = -bits % 8
    return b'BZh9' + (block << padding).to_bytes((bits + padding) // 8)


def _marks(file, begin):
    """Yields (bit, mark) for each mark at byte `begin` or after it, in order."""
    position, kept = begin, b''
    while True:
        file.seek(position + len(kept))
        read = file.read(WINDOW)
        data = kept + read
        hits = []
        for shift, needle, mark in _NEEDLES:
            place = data.find(needle)
            while place >= 0:
                # The needle is the mark's whole bytes; the bits around them are looked at now.
                first = place - (shift > 0)
                piece = data[first : first + 7] if first >= 0 else b''
                if len(piece) == 7 or (len(piece) == 6 and not shift):
                    value = int.from_bytes(piece.ljust(7, b'\0'))
                    if value >> (8 - shift) & (2**MARK_BITS - 1) == mark:
                        hits.append((8 * (position + first) + shift, mark))
                place = data.find(needle, place + 1)
        # Marks that the window's end cuts are found in the next, and no mark is found twice.
        limit = 8 * (position + max(0, len(data) - 7)) if read else float('inf')
        yield from sorted(hit for hit in hits if hit[0] < limit)
        if not read:
            return
        kept = data[max(0, len(data) - 7) :]
        position += len(data) - len(kept)


def _needles():
    for mark in (BLOCK, END):
        for shift in range(8):
            # `shift` bits of the first byte come before the mark.
            whole = (mark << (8 - shift)).to_bytes(7)
            yield shift, whole[:6] if not shift else whole[1:6], mark


_NEEDLES = tuple(_needles())
