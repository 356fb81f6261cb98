"""Programs as XLA prints them: loops are followed, so that a scan counts as what it unrolls to."""

import jax
import jax.numpy as jnp
import pytest

from launch import hlo, work


def parsed(function, *arguments):
    return hlo.parse(jax.jit(function).lower(*arguments).compile().as_text())


def loops(program):
    return [
        hlo.trip_count(program, name, each)
        for name, computation in program.computations.items()
        for each in computation.values()
        if each.opcode == 'while'
    ]


def flops(function, *arguments):
    program = parsed(function, *arguments)
    return work.flops(program, hlo.runs(program).times)[0]


X, W = jnp.ones((16, 32)), jnp.ones((6, 32, 32))


def layers(unroll):
    def total(w, x):
        x, _ = jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, w, unroll=unroll)
        return x.sum()

    return jax.grad(total)


def test_a_scan_counts_as_what_it_unrolls_to():
    """Forward, and backward twice as much, of six layers; the gradient of x is not asked for."""
    expected = 2 * 16 * 32 * 32 * (6 + 6 + 5)
    assert flops(layers(6), W, X) == pytest.approx(expected)
    rolled = flops(layers(1), W, X)
    assert rolled == pytest.approx(2 * 16 * 32 * 32 * 18)  # a loop body is the same every time
    assert jax.jit(layers(1)).lower(W, X).compile().cost_analysis()['flops'] < rolled / 2


def test_loops_in_loops():
    def nested(x, w):
        inner = lambda x: jax.lax.fori_loop(0, 5, lambda _, x: x @ w, x)  # noqa: E731
        return jax.lax.fori_loop(3, 10, lambda _, x: inner(x), x)

    assert flops(nested, X, W[0]) == 7 * 5 * 2 * 16 * 32 * 32
    assert sorted(loops(parsed(nested, X, W[0]))) == [5, 7]


def test_a_loop_that_counts_in_its_own_way():
    def collatz(x):
        body = lambda s: (s[0] * 2 + 1, s[1] @ s[1])  # noqa: E731
        return jax.lax.while_loop(lambda s: s[0] < 100, body, (jnp.int32(1), x))

    program = parsed(collatz, W[0])  # 1, 3, 7, 15, 31, 63, 127
    assert loops(program) == [6]


def test_a_loop_whose_length_depends_on_data_is_said():
    def search(x):
        return jax.lax.while_loop(lambda x: x.sum() < 100, lambda x: x @ x, x)

    program = parsed(search, W[0])
    runs = hlo.runs(program)
    assert len(runs.unknown) == 1
    assert work.flops(program, runs.times)[0] == 2 * 32**3  # counted once


TEXT = """HloModule test, entry_computation_layout={()->f32[]}

%body.1 (p.1: (u32[], bf16[4,8])) -> (u32[], bf16[4,8]) {
  %p.1 = (u32[]{:T(128)}, /*index=1*/bf16[4,8]{1,0:T(8,128)(2,1)S(1)}) parameter(0)
  %i.1 = u32[]{:T(128)} get-tuple-element(%p.1), index=0
  %x.1 = bf16[4,8]{1,0:T(8,128)(2,1)S(1)} get-tuple-element(%p.1), index=1
  %two.1 = u32[]{:T(128)} constant(2)
  %next.1 = u32[]{:T(128)} add(%i.1, %two.1)
  ROOT %t.1 = (u32[], bf16[4,8]{1,0}) tuple(%next.1, %x.1)
}

%condition.1 (p.2: (u32[], bf16[4,8])) -> pred[] {
  %p.2 = (u32[]{:T(128)}, bf16[4,8]{1,0:T(8,128)(2,1)S(1)}) parameter(0)
  %i.2 = u32[]{:T(128)} get-tuple-element(%p.2), index=0
  %end.2 = u32[]{:T(128)} constant(9)
  ROOT %less.2 = pred[]{:T(512)} compare(%i.2, %end.2), direction=LT
}

ENTRY %main.3 (a.3: bf16[4,8]) -> bf16[4,8] {
  %a.3 = bf16[4,8]{1,0:T(8,128)(2,1)} parameter(0), metadata={op_name="x (y)"}
  %zero.3 = u32[]{:T(128)} constant(0)
  %t.3 = (u32[], bf16[4,8]{1,0}) tuple(%zero.3, %a.3)
  %loop.3 = (u32[]{:T(128)}, bf16[4,8]{1,0}) while(%t.3), condition=%condition.1, body=%body.1
  ROOT %x.3 = bf16[4,8]{1,0:T(8,128)(2,1)} get-tuple-element(%loop.3), index=1
}
"""


def test_the_text_that_the_tpu_compiler_prints():
    program = hlo.parse(TEXT)
    assert program.entry == 'main.3'
    assert program.roots['main.3'] == 'x.3'
    assert hlo.runs(program) == hlo.Runs({'main.3': 1, 'body.1': 5}, [])
    made = program.computations['body.1']['x.1']
    assert made.shapes == (hlo.Shape('bf16', (4, 8), space=1),)
    assert made.shapes[0].bytes == 64
    assert program.computations['main.3']['a.3'].source == 'x (y)'
    assert [s.dims for s in program.computations['body.1']['p.1'].shapes] == [(), (4, 8)]


def test_no_program():
    with pytest.raises(ValueError, match='no ENTRY'):
        hlo.parse('nothing')
