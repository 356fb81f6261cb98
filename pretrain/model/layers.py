"""Tables, dense, norm and feed-forward layers, drawn as each family draws them.

They are our own, in place of flax's, so that every kernel is a plain 2-D matrix: Adafactor and
Muon see matrices, and the rule table of partitioning.py stays short.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from pretrain.model.config import TransformerConfig
from pretrain.partitioning import gathered, kept, laid

ACTIVATIONS = {
    'gelu': jax.nn.gelu,  # the tanh form of the papers' code
    'gelu_erf': lambda x: jax.nn.gelu(x, approximate=False),
    'relu': jax.nn.relu,
    'silu': jax.nn.silu,
}


def initializer(config, stddev=None):
    """The initializer of tables and kernels; `stddev` overrides the config's."""
    stddev = config.stddev if stddev is None else stddev
    if config.initializer == 'truncated_normal':
        return nn.initializers.truncated_normal(stddev)
    return nn.initializers.normal(stddev)


class Table(nn.Module):
    """A table of vectors of width E, one a row."""

    config: TransformerConfig
    rows: int
    stddev: float | None = None

    def setup(self):
        init = initializer(self.config, self.stddev)
        self.table = self.param('table', init, (self.rows, self.config.e))

    def __call__(self, ids):
        """ids -> their rows, in config.dtype."""
        return self._whole(self.config.dtype)[ids]

    def project(self, x):
        """x_...xE -> its products with all rows, float32 (tied logits)."""
        # On a CPU the einsum over both last axes would copy the table once more.
        return jnp.matmul(x, self._whole(x.dtype).T, preferred_element_type=jnp.float32)

    def _whole(self, dtype):
        return gathered(self.table.astype(dtype), '/'.join((*self.path, 'table')))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def product(x, kernel, name):
    """x_...xI @ kernel_IxO, with its gradient written out.

    The gradient of the kernel that jax derives is that of its transpose, transposed: on a CPU 1.6
    times as slow as the product below, and a twelfth of a whole step. And here each device has all
    of the kernel that it multiplies, and of its gradient only the part of the kernel that it keeps.

    Args:
        x, kernel: arrays. name: path of the kernel among the parameters.
    """
    return jnp.matmul(x, gathered(kernel, name))


def _product_forward(x, kernel, name):
    return jnp.matmul(x, gathered(kernel, name)), (x, kernel)


def _product_backward(name, saved, g):
    x, kernel = saved
    rows = tuple(range(x.ndim - 1))
    of_x = jax.lax.dot_general(g, gathered(kernel, name), (((g.ndim - 1,), (1,)), ((), ())))
    return of_x, kept(jax.lax.dot_general(x, g, ((rows, rows), ((), ()))), name)


product.defvjp(_product_forward, _product_backward)


class Dense(nn.Module):
    """x @ kernel + bias on the last axis, computed in config.dtype from float32 parameters.

    features: width of the output. stddev: of the kernel; None: fan-in or config.stddev by
    config.initializer. biases: None takes the config's.
    """

    config: TransformerConfig
    features: int
    stddev: float | None = None
    biases: bool | None = None

    @nn.compact
    def __call__(self, x, dtype=None):
        """x_...xI -> ...x`features`, in the dtype of x or in `dtype`."""
        stddev = self.stddev
        if stddev is None and self.config.initializer == 'fan_in':
            stddev = x.shape[-1] ** -0.5
        init = initializer(self.config, stddev)
        kernel = self.param('kernel', init, (x.shape[-1], self.features))
        kernel = kernel.astype(x.dtype)
        name = '/'.join((*self.path, 'kernel'))
        if dtype is None or dtype == x.dtype:
            y = product(x, kernel, name)
        else:
            y = jnp.matmul(x, gathered(kernel, name), preferred_element_type=dtype)
        if self.config.biases if self.biases is None else self.biases:
            bias = self.param('bias', nn.initializers.zeros, (self.features,))
            y += bias.astype(y.dtype)
        return y


class Norm(nn.Module):
    """LayerNorm, or RMSNorm (no mean, no bias), over the last axis, computed in float32."""

    config: TransformerConfig
    kind: str | None = None

    @nn.compact
    def __call__(self, x):
        """x_...xD -> the same shape and dtype."""
        config = self.config
        kind = self.kind or config.norm
        y = x.astype(jnp.float32)
        if kind == 'layer':
            y -= jnp.mean(y, axis=-1, keepdims=True)
        y *= jax.lax.rsqrt(jnp.mean(jnp.square(y), axis=-1, keepdims=True) + config.norm_epsilon)
        y *= self.param('scale', nn.initializers.ones, (x.shape[-1],))
        if kind == 'layer' and config.norm_bias:
            y += self.param('bias', nn.initializers.zeros, (x.shape[-1],))
        return y.astype(x.dtype)


class FeedForward(nn.Module):
    """down(activation(up(x))), or with a gate, down(activation(gate(x)) * up(x))."""

    config: TransformerConfig
    residual_stddev: float | None
    deterministic: bool

    @nn.compact
    def __call__(self, x_BxLxD):
        """x_BxLxD -> the same shape."""
        config = self.config
        activation = ACTIVATIONS[config.activation]
        h_BxLxF = Dense(config, config.f, name='up')(x_BxLxD)
        if config.gated:
            h_BxLxF *= activation(Dense(config, config.f, name='gate')(x_BxLxD))
        else:
            h_BxLxF = activation(h_BxLxF)
        h_BxLxF = laid(h_BxLxF, 'BxLxF')
        if config.dropout_inside:
            h_BxLxF = Dropout(config, self.deterministic)(h_BxLxF)
        return Dense(config, config.width, self.residual_stddev, name='down')(h_BxLxF)


class Dropout(nn.Module):
    """Dropout on x_BxLxD; with `dropout_broadcast` one mask for all positions of a row."""

    config: TransformerConfig
    deterministic: bool

    @nn.compact
    def __call__(self, x_BxLxD):
        """x_BxLxD -> the same shape."""
        shared = (1,) if self.config.dropout_broadcast else ()
        return nn.Dropout(self.config.dropout, shared, self.deterministic)(x_BxLxD)
