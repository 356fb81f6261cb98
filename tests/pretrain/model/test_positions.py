import jax.numpy as jnp
import numpy as np

from pretrain.model.positions import relative_buckets, rotate

RELATIVE = [-200, -128, -127, -64, -32, -20, -16, -12, -9, -8, -7, -1, 0,
            1, 7, 8, 9, 12, 16, 20, 32, 64, 127, 128, 200]  # fmt: skip
BIDIRECTIONAL = [15, 15, 15, 14, 12, 10, 10, 9, 8, 8, 7, 1, 0,
                 17, 23, 24, 24, 25, 26, 26, 28, 30, 31, 31, 31]  # fmt: skip
CAUSAL = [31, 31, 31, 26, 21, 17, 16, 12, 9, 8, 7, 1, 0] + [0] * 12


def test_relative_buckets_equal_t5s():
    relative = jnp.array(RELATIVE)
    np.testing.assert_array_equal(relative_buckets(relative, bidirectional=True), BIDIRECTIONAL)
    np.testing.assert_array_equal(relative_buckets(relative, bidirectional=False), CAUSAL)


def test_rotation_equals_complex_multiplication():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 5, 3, 8)).astype(np.float32)
    positions = rng.integers(0, 1000, (2, 5))
    turned = np.asarray(rotate(jnp.asarray(x), jnp.asarray(positions), 10000.0))
    for i in range(4):  # pair (i, i + 4) is one complex number
        z = x[..., i] + 1j * x[..., i + 4]
        angle = positions[:, :, None] * 10000.0 ** (-2 * i / 8)
        expected = z * np.exp(1j * angle)
        np.testing.assert_allclose(turned[..., i], expected.real, atol=2e-4)
        np.testing.assert_allclose(turned[..., i + 4], expected.imag, atol=2e-4)


def test_rotated_products_depend_on_distance_alone():
    rng = np.random.default_rng(1)
    q, k = rng.normal(size=(2, 1, 1, 1, 16)).astype(np.float32)
    product = lambda m, n: float(  # noqa: E731
        jnp.sum(rotate(q, jnp.array([[m]]), 100.0) * rotate(k, jnp.array([[n]]), 100.0))
    )
    assert abs(product(7, 3) - product(107, 103)) < 1e-4
    assert abs(product(7, 3) - product(7, 4)) > 1e-3
