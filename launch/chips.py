"""What accelerators can do at best, from their makers' pages; nothing here was measured."""

from typing import NamedTuple


class Chip(NamedTuple):
    """memory: bytes that a program may use: those of a TPU are what the compiler of libtpu 0.0.42.1
    says when one needs more, which is less than the maker's page. flops: bfloat16 operations a
    second. bandwidth: bytes a second of the main memory. wires: bytes a second that a chip can send
    to the other chips of its slice or its node, over all its links together. network: the same to
    other slices or nodes; None: not stated. source: page and date.
    """

    name: str
    memory: float
    flops: float
    bandwidth: float
    wires: float
    network: float | None
    source: str


GOOGLE = 'cloud.google.com/tpu/docs'
# Google states the links of a chip in both directions together: half of that can be sent.
CHIPS = {
    'TPU v4': Chip(
        'v4', 30.75 * 2**30, 275e12, 1200e9, 300e9, None,
        f'{GOOGLE}/v4, read 2026-11-23; links: Jouppi et al. 2023, six of 50 GB/s each way',
    ),
    'TPU v5 lite': Chip(
        'v5e', 15.75 * 2**30, 197e12, 819e9, 200e9, 6.4e12 / 8 / 256,
        f'{GOOGLE}/v5e, read 2026-11-23; network: a pod of 256 has 6.4 Tbit/s',
    ),
    'TPU v5': Chip(
        'v5p', 95.74 * 2**30, 459e12, 2765e9, 600e9, 50e9 / 8, f'{GOOGLE}/v5p, read 2026-11-23'
    ),
    'TPU v6 lite': Chip(
        'v6e', 31.25 * 2**30, 918e12, 1638e9, 400e9, None, f'{GOOGLE}/v6e, read 2026-11-23'
    ),
}  # fmt: skip
