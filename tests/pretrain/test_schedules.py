"""Schedules against golden values of the papers and plain double-precision formulas."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from pretrain.errors import UserError
from pretrain.schedules import make_schedule


def config(name, learning_rate=1.0, **schedule):
    return ConfigDict({'learning_rate': learning_rate, 'schedule': {'name': name, **schedule}})


def test_t5_golden_values():
    rate = make_schedule(config('rsqrt', warmup=10_000), 2**19, 65_536)
    for step, golden in [(0, 0.01), (9_999, 0.01), (10_000, 0.01), (40_000, 0.005)]:
        np.testing.assert_allclose(rate(step), golden, rtol=1e-6)
    np.testing.assert_allclose(rate(524_288), 0.001381, atol=5e-7)


def test_rsqrt_without_warmup_is_finite_at_the_first_step():
    rate = make_schedule(config('rsqrt', learning_rate=0.5), 100, 1)
    np.testing.assert_allclose(rate(jnp.arange(5)), [0.5, 0.5, 0.5 / 2**0.5, 0.5 / 3**0.5, 0.25])


def test_gpt3_in_tokens():
    """Warm-up over 375M tokens, cosine to 10 % at 260B, constant to 300B (GPT-3, appendix B)."""
    tokens_per_step = 524_288
    steps = round(300e9 / tokens_per_step)
    rate = make_schedule(
        config('cosine', 6e-4, unit='tokens', warmup=375_000_000, decay=260_000_000_000, final=0.1),
        steps,
        tokens_per_step,
    )

    def reference(step):
        tokens = step * tokens_per_step
        if tokens < 375e6:
            return 6e-4 * tokens / 375e6
        progress = min((tokens - 375e6) / (260e9 - 375e6), 1)
        return 6e-4 * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * progress)))

    for step in (0, 1, 357, 715, 716, 100_000, 250_000, 495_910, 495_911, 496_000, steps - 1):
        np.testing.assert_allclose(rate(step), reference(step), rtol=2e-6)
    assert float(rate(496_000)) == pytest.approx(6e-5, rel=1e-6)
    assert float(rate(715)) < float(rate(716)) == pytest.approx(6e-4, rel=1e-5)


def test_berts_golden_values():
    """Up to the peak over 100 steps, then at once on the line that fell from step 0."""
    rate = make_schedule(config('bert', 1e-4, warmup=100), 1000, 64)
    steps = jnp.array([0, 50, 99, 100, 500, 999, 1000, 1100])
    golden = [0, 5e-5, 9.9e-5, 9e-5, 5e-5, 1e-7, 0, 0]
    np.testing.assert_allclose(rate(steps), golden, rtol=1e-5)
    np.testing.assert_allclose(jax.jit(rate)(steps), golden, rtol=1e-5)
    tokens = make_schedule(config('bert', 1e-4, unit='tokens', warmup=6_400), 1000, 64)
    np.testing.assert_array_equal(tokens(steps), rate(steps))
    without = make_schedule(config('bert', 1e-4), 1000, 64)
    np.testing.assert_allclose(without(jnp.array([0, 250])), [1e-4, 7.5e-5], rtol=1e-6)


def test_electra_multiplies_warmup_and_decay():
    rate = make_schedule(config('electra', 1e-4, warmup=100), 1000, 64)
    steps = jnp.array([0, 50, 99, 100, 500, 1000])
    golden = [0, 0.5 * 9.5e-5, 0.99 * 9.01e-5, 9e-5, 5e-5, 0]
    np.testing.assert_allclose(rate(steps), golden, rtol=1e-5)


def test_ulmfits_golden_values():
    """A tenth of 100 steps up from a 32nd of the peak, then down to it again."""
    rate = make_schedule(config('slanted', 0.01, warmup=10, decay=100, final=1 / 32), 100, 1)
    steps = jnp.array([0, 5, 10, 55, 99, 100, 150])
    golden = [3.125e-4, 5.15625e-3, 0.01, 5.15625e-3, 4.2014e-4, 3.125e-4, 3.125e-4]
    np.testing.assert_allclose(rate(steps), golden, rtol=1e-5)
    np.testing.assert_allclose(jax.jit(rate)(steps), golden, rtol=1e-5)


@pytest.mark.parametrize(('steps', 'ratio'), [(100, 32), (1234, 32), (57, 10)])
def test_the_slanted_triangle_is_that_of_the_paper(steps, ratio):
    """Howard and Ruder 2018, equation 3, step by step, with cut_frac 0.1."""
    cut = math.floor(steps * 0.1)
    known = []
    for t in range(steps):
        p = t / cut if t < cut else 1 - (t - cut) / (cut * (1 / 0.1 - 1))
        known.append(0.01 * (1 + max(p, 0) * (ratio - 1)) / ratio)
    rate = make_schedule(
        config('slanted', 0.01, warmup=cut, decay=cut / 0.1, final=1 / ratio), steps, 1
    )
    np.testing.assert_allclose(rate(jnp.arange(steps)), known, rtol=1e-4)


@pytest.mark.parametrize('name', ['bert', 'electra'])
def test_berts_line_may_end_early_and_above_zero(name):
    rate = make_schedule(config(name, 2.0, warmup=10, decay=50, final=0.5), 100, 64)
    np.testing.assert_allclose(rate(jnp.array([20, 25, 50, 80])), [1.6, 1.5, 1, 1], rtol=1e-6)


@pytest.mark.parametrize(
    ('name', 'expected'),
    [
        # peak 2, warm-up 10, end 50, final 0.2: t = 0, 5, 10, 30, 50, 90.
        ('constant', [0, 1, 2, 2, 2, 2]),
        ('linear', [0, 1, 2, 1.2, 0.4, 0.4]),
        ('cosine', [0, 1, 2, 1.2, 0.4, 0.4]),
    ],
)
@pytest.mark.parametrize('unit', ['steps', 'tokens'])
def test_shapes_by_hand(name, expected, unit):
    per_step = 1 if unit == 'steps' else 64
    rate = make_schedule(
        config(name, 2.0, unit=unit, warmup=10 * per_step, decay=50 * per_step, final=0.2), 100, 64
    )
    steps = jnp.array([0, 5, 10, 30, 50, 90])
    np.testing.assert_allclose(rate(steps), expected, rtol=1e-6)
    np.testing.assert_allclose(jax.jit(rate)(steps), expected, rtol=1e-6)
    assert rate(3).dtype == jnp.float32


def test_linear_and_cosine_differ_between_their_common_points():
    linear = make_schedule(config('linear', final=0.2, warmup=10, decay=50), 100, 1)
    cosine = make_schedule(config('cosine', final=0.2, warmup=10, decay=50), 100, 1)
    np.testing.assert_allclose(linear(20), 0.2 + 0.8 * 0.75, rtol=1e-6)
    np.testing.assert_allclose(cosine(20), 0.2 + 0.8 * 0.5 * (1 + math.cos(math.pi / 4)), rtol=1e-6)


def test_decay_zero_ends_with_the_run():
    rate = make_schedule(config('linear', warmup=0, final=0.0), 100, 1)
    np.testing.assert_allclose(rate(jnp.array([0, 25, 99, 100])), [1, 0.75, 0.01, 0], rtol=1e-6)


def test_wsd_decays_over_the_last_part_of_the_run():
    rate = make_schedule(config('wsd', warmup=10, decay=20, final=0.1), 100, 1)
    steps = jnp.array([0, 5, 10, 79, 80, 90, 100, 120])
    np.testing.assert_allclose(rate(steps), [0, 0.5, 1, 1, 1, 0.55, 0.1, 0.1], rtol=1e-6)


def test_a_warmup_as_long_as_the_run():
    rate = make_schedule(config('cosine', warmup=10, final=0.1), 10, 1)
    np.testing.assert_allclose(rate(jnp.arange(10)), np.arange(10) / 10, rtol=1e-6)


def test_digits_survive_a_run_of_a_billion_steps():
    """3e14 tokens fit neither int32 nor a float32's 24 bits; neighbouring steps still differ."""
    steps = 10**9
    rate = make_schedule(
        config('linear', unit='tokens', warmup=0, decay=0, final=0.0), steps, 300_000
    )
    np.testing.assert_allclose(rate(steps - 1), 1e-9, rtol=1e-6)
    np.testing.assert_allclose(rate(steps - 3), 3e-9, rtol=1e-6)
    np.testing.assert_allclose(rate(steps // 3), 2 / 3, rtol=1e-6)


def test_a_decay_that_ends_far_beyond_the_run():
    rate = make_schedule(config('linear', warmup=0, decay=10**13, final=0.0), 100, 1)
    np.testing.assert_allclose(rate(50), 1.0, rtol=1e-6)


@pytest.mark.parametrize(
    ('broken', 'words'),
    [
        (config('cosin'), ['cosin', "'cosine'", 'wsd']),
        (config('cosine', unit='token'), ["'tokens'"]),
        (config('cosine', warmup=101), ['101', '100', 'steps']),
        (config('cosine', unit='tokens', warmup=6_401), ['6401', '6400', 'tokens']),
        (config('linear', warmup=20, decay=10), ['decay=10', '20']),
        (config('linear', warmup=-1), ['warmup=-1']),
        (config('linear', decay=-5), ['decay=-5']),
        (config('linear', final=-0.1), ['final=-0.1']),
        (config('linear', final=10), ['final=10', '0 to 1']),
        (config('linear', learning_rate=-1e-3), ['learning_rate=-0.001']),
        (config('linear', learning_rate=math.nan), ['learning_rate=nan']),
        (config('wsd', warmup=10), ['decay=0', '10 steps']),
        (config('wsd', warmup=50, decay=60), ['50', '60', '100']),
        (config('linear', warmups=3), ['warmups', "'warmup'"]),
    ],
)
def test_mistakes_are_said_in_one_line(broken, words):
    with pytest.raises(UserError) as error:
        make_schedule(broken, 100, 64)
    message = str(error.value)
    assert '\n' not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize('name', ['cosine', 'linear', 'bert', 'electra', 'constant', 'wsd'])
def test_tokens_of_a_ramp(name):
    """Rates by the count of tokens, in float64, where steps differ in tokens."""
    ramp = [(0, 100), (7, 250), (20, 1000)]
    steps = 60
    sizes = np.concatenate([np.full(7, 100), np.full(13, 250), np.full(40, 1000)])
    before = np.concatenate([[0], np.cumsum(sizes)])[:-1]
    total = sizes.sum()
    warmup, decay = 1500, 20_000
    rate = make_schedule(
        config(name, 2.0, unit='tokens', warmup=warmup, decay=decay, final=0.1), steps, ramp
    )
    start = {'bert': 0, 'electra': 0, 'wsd': total - decay}.get(name, warmup)
    end = total if name == 'wsd' else decay
    left = np.clip((end - before) / (end - start), 0, 1)
    height = 0.1 + 0.9 * (np.sin(np.pi / 2 * left) ** 2 if name == 'cosine' else left)
    height = np.ones(steps) if name == 'constant' else height
    warming = np.minimum(before / warmup, 1)
    expected = 2.0 * (
        np.where(before < warmup, warming, height) if name == 'bert' else warming * height
    )
    np.testing.assert_allclose(rate(np.arange(steps)), expected, rtol=2e-6, atol=1e-7)
    by_steps = make_schedule(config(name, 2.0, warmup=10, decay=30, final=0.1), steps, ramp)
    plain = make_schedule(config(name, 2.0, warmup=10, decay=30, final=0.1), steps, 5)
    np.testing.assert_array_equal(by_steps(np.arange(steps)), plain(np.arange(steps)))
