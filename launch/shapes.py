"""The slices of TPUs that can be had, by the chips along each side."""

import math

# A generation with three axes also has all cuboids of sides that 4 divides.
FLAT = ('1x1', '2x2', '2x4', '4x4', '4x8', '8x8', '8x16', '16x16')
DEEP = (
    '2x2x1', '2x2x2', '2x2x4', '2x4x4', '4x4x4', '4x4x8', '4x8x8', '8x8x8', '8x8x16', '8x16x16',
    '16x16x16',
)  # fmt: skip
SHAPES = {'v4': DEEP, 'v5e': FLAT, 'v5p': (*DEEP, '16x16x24'), 'v6e': FLAT}
ALIASES = {'v5litepod': 'v5e', 'v5lite': 'v5e', 'v5': 'v5p'}


def chips(shape):
    """Number of chips of '4x4x8'."""
    return math.prod(map(int, shape.split('x')))


def exists(generation, shape):
    """Whether a generation, of SHAPES, has slices of this shape."""
    sides = [int(side) for side in shape.split('x')]
    deep = len(sides) == 3 and SHAPES[generation][0] in DEEP
    cuboid = deep and all(side and side % 4 == 0 for side in sides)
    return shape in SHAPES[generation] or (cuboid and chips(shape) <= chips(SHAPES[generation][-1]))


def nearest(generation, count):
    """The shape of a generation whose number of chips is nearest to `count`, in proportion."""
    return min(SHAPES[generation], key=lambda shape: abs(math.log(chips(shape) / max(count, 0.5))))
