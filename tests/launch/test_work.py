"""Arithmetic and traffic of compiled programs, against XLA's own count where there is no loop."""

import jax
import jax.numpy as jnp
import pytest

from launch import hlo, work


def compiled(function, *arguments):
    made = jax.jit(function).lower(*arguments).compile()
    program = hlo.parse(made.as_text())
    return made, program, hlo.runs(program).times


@pytest.mark.parametrize(
    'options',
    [
        {'window_strides': (1, 1), 'padding': 'VALID'},
        {'window_strides': (2, 1), 'padding': ((1, 2), (0, 3))},
        {'window_strides': (1, 1), 'padding': ((3, 1), (2, 2)), 'lhs_dilation': (2, 3)},
        {'window_strides': (1, 2), 'padding': 'SAME', 'rhs_dilation': (2, 1)},
        {'window_strides': (1, 1), 'padding': 'SAME', 'feature_group_count': 2},
    ],
)
def test_convolutions_count_as_xla_counts_them(options):
    groups = options.get('feature_group_count', 1)
    x, kernel = jnp.ones((2, 6, 9, 7)), jnp.ones((4, 6 // groups, 3, 2))
    made, program, times = compiled(
        lambda x, k: jax.lax.conv_general_dilated(x, k, **options), x, kernel
    )
    if ' convolution(' not in made.as_text():
        pytest.skip('XLA has made something else of this convolution')
    assert work.flops(program, times)[0] == made.cost_analysis()['flops']


@pytest.mark.parametrize(
    ('equation', 'shapes', 'products'),
    [
        ('ij,jk->ik', ((3, 5), (5, 7)), 3 * 5 * 7),
        ('bthk,bshk->bhts', ((2, 3, 4, 5), (2, 6, 4, 5)), 2 * 4 * 3 * 6 * 5),
        ('abc,abc->a', ((2, 3, 4), (2, 3, 4)), 2 * 3 * 4),
    ],
)
def test_products_count_two_operations_each(equation, shapes, products):
    arrays = [jnp.ones(shape) for shape in shapes]
    made, program, times = compiled(lambda *a: jnp.einsum(equation, *a), *arrays)
    if ' dot(' in made.as_text():
        assert work.flops(program, times)[0] == 2 * products


def test_what_is_sliced_is_read_in_slices_and_what_is_updated_written_in_slices():
    """A loop over 8 layers of 1 MB each reads and writes 8 MB, not 64."""
    stack, x = jnp.ones((8, 512, 512)), jnp.ones((512, 512))

    def total(stack, x):
        return jax.lax.scan(lambda x, w: (x + w, x * 2), x, stack)

    _, program, times = compiled(total, stack, x)
    size = 512 * 512 * 4
    moved = work.memory_bytes(program, times)
    # Each turn reads x and a layer, and writes x and a row of the results, perhaps by a copy.
    assert 8 * 4 * size <= moved <= 8 * 8 * size + 16 * size


def test_memory_on_the_chip_is_no_traffic():
    text = """
ENTRY %main (a: f32[256]) -> f32[256] {
  %a = f32[256]{0:T(256)} parameter(0)
  %b = f32[256]{0:T(256)S(1)} negate(%a)
  %c = f32[256]{0:T(256)S(1)} negate(%b)
  ROOT %d = f32[256]{0:T(256)} negate(%c)
}
"""
    program = hlo.parse(text)
    assert work.memory_bytes(program, {'main': 3}) == 3 * 2 * 1024


def test_copies_to_the_chip_read_what_they_copy():
    text = """
ENTRY %main (a: f32[1024]) -> f32[256] {
  %a = f32[1024]{0:T(256)} parameter(0)
  %b = (f32[1024]{0:T(256)}, f32[256]{0:T(256)S(1)}, s32[]) slice-start(%a), slice={[0:256]}
  %c = f32[256]{0:T(256)S(1)} slice-done(%b)
  %d = (f32[256]{0:T(256)}, f32[256]{0:T(256)S(1)}, u32[]) copy-start(%c)
  ROOT %e = f32[256]{0:T(256)} copy-done(%d)
}
"""
    assert work.memory_bytes(hlo.parse(text), {'main': 1}) == 2 * 1024


def test_kernels_that_are_not_counted_are_named():
    text = """
ENTRY %main (a: f32[256]) -> f32[256] {
  %a = f32[256]{0} parameter(0)
  ROOT %b = f32[256]{0} custom-call(%a), custom_call_target="__cublas$gemm"
}
"""
    program = hlo.parse(text)
    assert work.flops(program, {'main': 2}) == (0.0, {'__cublas$gemm': 2})
