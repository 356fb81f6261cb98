"""Optimizers against formulas in numpy, and stacked layers against layers one by one."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from pretrain.errors import UserError
from pretrain.optimizers import global_norm, make_optimizer, muon_labels

STEPS = 20


def config(name, learning_rate=0.1, schedule=None, **numbers):
    schedule = schedule or {'name': 'linear', 'warmup': 2, 'final': 0.1}
    return ConfigDict(
        {'name': name, 'learning_rate': learning_rate, 'schedule': schedule, **numbers}
    )


def rate(step):
    """The schedule of `config`, by hand."""
    return 0.1 * min(step / 2, 1) * (0.1 + 0.9 * min((STEPS - step) / (STEPS - 2), 1))


def draw(seed, sizes, scale=1.0):
    """A tree of float32 arrays from {'a/b/c': shape}."""
    generator = np.random.default_rng(seed)
    tree = {}
    for path, shape in sizes.items():
        *parents, name = path.split('/')
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = (scale * generator.standard_normal(shape)).astype(np.float32)
    return tree


def leaves(tree):
    """{'a/b/c': leaf}."""
    return {
        jax.tree_util.keystr(path, simple=True, separator='/'): leaf
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
    }


def flat(tree):
    """{'a/b/c': array} in float64."""
    return {path: np.asarray(leaf, np.float64) for path, leaf in leaves(tree).items()}


def run(optimizer, params, gradients):
    """The parameters after each gradient."""
    state = optimizer.init(params)
    update = jax.jit(optimizer.update)
    after = []
    for gradient in gradients:
        updates, state = update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        after.append(flat(params))
    return after, state


SMALL = {
    'token_embedding/table': (7, 4),
    'decoder/layers/attention/query/kernel': (2, 4, 4),
    'decoder/layers/attention/query/bias': (2, 4),
    'decoder/layers/attention_norm/scale': (2, 4),
    'decoder/relative_bias/table': (8, 2),
    'head/logits/bias': (7,),
}
UNDECAYED = {name for name in SMALL if name.endswith(('bias', 'scale'))}


def clipped(gradient, largest):
    gradient = flat(gradient)
    norm = np.sqrt(sum((g**2).sum() for g in gradient.values()))
    return {name: g * min(1, largest / norm) for name, g in gradient.items()}


def test_adamw_over_several_steps():
    """Clip, then Adam with bias correction, then decay x rate, biases and scales left alone."""
    params = draw(0, SMALL)
    gradients = [draw(1 + i, SMALL, scale=10.0 ** (i - 2)) for i in range(5)]
    after, _ = run(
        make_optimizer(
            config('adamw', b1=0.8, b2=0.95, epsilon=1e-3, weight_decay=0.3, clip=1.0), STEPS, 1
        ),
        params,
        gradients,
    )
    p = flat(params)
    m = {name: 0.0 for name in p}
    v = {name: 0.0 for name in p}
    for step, gradient in enumerate(gradients):
        for name, g in clipped(gradient, 1.0).items():
            m[name] = 0.8 * m[name] + 0.2 * g
            v[name] = 0.95 * v[name] + 0.05 * g**2
            u = (m[name] / (1 - 0.8 ** (step + 1))) / (
                np.sqrt(v[name] / (1 - 0.95 ** (step + 1))) + 1e-3
            )
            decay = 0.0 if name in UNDECAYED else 0.3
            p[name] = p[name] - rate(step) * (u + decay * p[name])
            np.testing.assert_allclose(after[step][name], p[name], atol=2e-6, err_msg=name)


def test_adamw_without_bias_correction():
    """BERT's: m / (sqrt(v) + epsilon), then decay x rate; the state is that of the corrected."""
    params = draw(0, SMALL)
    gradients = [draw(1 + i, SMALL) for i in range(5)]
    constant = {'name': 'constant', 'warmup': 0}
    numbers = {'b1': 0.9, 'b2': 0.999, 'epsilon': 1e-6, 'weight_decay': 0.01}
    make = lambda **more: make_optimizer(  # noqa: E731
        config('adamw', 1e-3, constant, **numbers, **more), STEPS, 1
    )
    after, state = run(make(bias_correction=False), params, gradients)
    p = flat(params)
    m = {name: np.zeros_like(value) for name, value in p.items()}
    v = {name: np.zeros_like(value) for name, value in p.items()}
    for step, gradient in enumerate(gradients):
        for name, g in flat(gradient).items():
            m[name] = 0.9 * m[name] + 0.1 * g
            v[name] = 0.999 * v[name] + 0.001 * g**2
            decay = 0.0 if name in UNDECAYED else 0.01
            p[name] = p[name] - 1e-3 * (m[name] / (np.sqrt(v[name]) + 1e-6) + decay * p[name])
            np.testing.assert_allclose(after[step][name], p[name], atol=1e-6, err_msg=name)

    corrected, state_of_corrected = run(make(), params, gradients)
    assert jax.tree.structure(state) == jax.tree.structure(state_of_corrected)
    jax.tree.map(np.testing.assert_array_equal, state, state_of_corrected)
    # The first update without decay: 0.1 / sqrt(0.001) of the corrected one.
    name = 'decoder/layers/attention/query/bias'
    ratio = (after[0][name] - flat(params)[name]) / (corrected[0][name] - flat(params)[name])
    np.testing.assert_allclose(ratio, 0.1 / np.sqrt(0.001), rtol=1e-3)


def test_lion_over_several_steps():
    """Sign of the mixture by b1, momentum by b2 (Chen et al. 2023, program 1)."""
    params = draw(0, SMALL)
    gradients = [draw(1 + i, SMALL) for i in range(5)]
    after, _ = run(make_optimizer(config('lion', weight_decay=0.5), STEPS, 1), params, gradients)
    p = flat(params)
    m = {name: np.zeros_like(value) for name, value in p.items()}
    for step, gradient in enumerate(gradients):
        for name, g in flat(gradient).items():
            decay = 0.0 if name in UNDECAYED else 0.5
            p[name] -= rate(step) * (np.sign(0.9 * m[name] + 0.1 * g) + decay * p[name])
            m[name] = 0.99 * m[name] + 0.01 * g
            np.testing.assert_allclose(after[step][name], p[name], atol=2e-6, err_msg=name)


def test_decay_alone_touches_what_the_pattern_leaves():
    """No gradient: what moves is what decays; an empty pattern decays everything."""
    params = draw(0, SMALL)
    zeros = jax.tree.map(np.zeros_like, params)

    def moved(**numbers):
        constant = {'name': 'constant', 'warmup': 0}
        optimizer = make_optimizer(
            config('adamw', schedule=constant, weight_decay=0.5, **numbers), STEPS, 1
        )
        (after,), _ = run(optimizer, params, [zeros])
        before = flat(params)
        changed = {name for name in before if (after[name] != before[name]).any()}
        for name in changed:
            np.testing.assert_allclose(after[name], before[name] * (1 - 0.1 * 0.5), rtol=1e-5)
        return changed

    assert moved() == set(SMALL) - UNDECAYED
    assert moved(no_decay='') == set(SMALL)
    assert moved(no_decay='table|bias') == {
        'decoder/layers/attention/query/kernel',
        'decoder/layers/attention_norm/scale',
    }


LAYERED = {
    'token_embedding/table': (130, 128),
    'encoder/layers/feedforward/up/kernel': (2, 128, 130),
    'encoder/layers/attention_norm/scale': (2, 128),
    'decoder/layers/feedforward/up/kernel': (3, 128, 130),
    'decoder/layers/feedforward/up/bias': (3, 130),
    'decoder/layers/feedforward/down/kernel': (3, 40, 128),
    'decoder/relative_bias/table': (32, 4),
}
T5_SCHEDULE = {'name': 'rsqrt', 'warmup': 4}


def layer_scaled(seed, scale=1.0):
    """Layers of very different sizes, so that statistics over the whole stack would show."""
    tree = draw(seed, LAYERED, scale)
    for stack in ('encoder', 'decoder'):
        tree[stack]['layers'] = jax.tree.map(
            lambda x: (
                x * (10.0 ** np.arange(len(x), dtype=np.float32)).reshape(-1, *(1,) * (x.ndim - 1))
            ),
            tree[stack]['layers'],
        )
    return tree


def test_adafactor_of_a_stack_equals_its_layers_one_by_one():
    params = layer_scaled(0, 0.1)
    gradients = [layer_scaled(1 + i, 1e-3) for i in range(5)]
    after, state = run(
        make_optimizer(config('adafactor', 1.0, T5_SCHEDULE), STEPS, 1), params, gradients
    )

    def unrolled(tree):
        tensors = {}
        for name, value in flat(tree).items():
            if '/layers/' in name:
                tensors |= {f'{name}:{i}': layer for i, layer in enumerate(value)}
            else:
                tensors[name] = value
        return {name: jnp.asarray(value, jnp.float32) for name, value in tensors.items()}

    plain = optax.adafactor(lambda t: jnp.maximum(t, 4) ** -0.5)
    expected, _ = run(plain, unrolled(params), [unrolled(g) for g in gradients])
    for step, tree in enumerate(after):
        for name, value in unrolled(tree).items():
            np.testing.assert_allclose(
                value, expected[step][name], rtol=1e-5, atol=1e-7, err_msg=name
            )

    # T5's memory: a row and a column for a matrix of 128 and more, in every layer.
    shapes = {path: leaf.shape for path, leaf in leaves(state).items()}
    for ending, shape in [
        ('v_row/decoder/layers/feedforward/up/kernel', (3, 128)),
        ('v_col/decoder/layers/feedforward/up/kernel', (3, 130)),
        ('v/decoder/layers/feedforward/down/kernel', (3, 40, 128)),
        ('v/decoder/layers/feedforward/up/bias', (3, 130)),
        ('v_row/token_embedding/table', (128,)),
    ]:
        assert [s for path, s in shapes.items() if path.endswith('/' + ending)] == [shape], ending


def test_adafactor_by_hand():
    """Step 1: g / |g| clipped to RMS 1, times RMS(p). Step 2: decay 1 - 2^-0.8 = 0.4257."""
    params = {'table': np.array([3.0, -4.0], np.float32), 'small': np.full(2, 2e-5, np.float32)}
    first = {'table': np.array([0.5, -2.0], np.float32), 'small': np.ones(2, np.float32)}
    second = {'table': np.array([2.0, 2.0], np.float32), 'small': np.ones(2, np.float32)}
    schedule = {'name': 'constant', 'warmup': 0}
    after, _ = run(
        make_optimizer(config('adafactor', 0.01, schedule), STEPS, 1), params, [first, second]
    )
    rms = np.sqrt((9 + 16) / 2)
    expected = np.array([3.0, -4.0]) - 0.01 * rms * np.array([1.0, -1.0])
    np.testing.assert_allclose(after[0]['table'], expected, rtol=1e-6)
    # A parameter below 1e-3 moves as one of that size.
    np.testing.assert_allclose(after[0]['small'], 2e-5 - 0.01 * 1e-3, rtol=1e-5)

    kept = 1 - 2**-0.8
    v = kept * np.array([0.25, 4.0]) + (1 - kept) * 4.0
    u = 2.0 / np.sqrt(v)
    u /= max(1, np.sqrt((u**2).mean()))
    expected -= 0.01 * np.sqrt((expected**2).mean()) * u
    np.testing.assert_allclose(after[1]['table'], expected, rtol=1e-6)


def newton_schulz(matrix):
    """Five steps of Jordan's quintic on one matrix, towards the nearest orthogonal one."""
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    x = wide / np.linalg.norm(wide)
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x if matrix.shape[0] <= matrix.shape[1] else x.T


MUON = {
    'token_embedding/table': (9, 4),
    'decoder/layers/feedforward/up/kernel': (7, 4, 6),
    'decoder/layers/feedforward/down/kernel': (7, 6, 4),
    'decoder/layers/feedforward/up/bias': (7, 6),
    'decoder/layers/attention_norm/scale': (7, 4),
    'head/transform/kernel': (4, 4),
    'head/logits/kernel': (4, 9),
}


def test_muon_orthogonalizes_each_layer_and_leaves_the_rest_to_adam():
    params = draw(0, MUON)
    gradients = [draw(1 + i, MUON) for i in range(3)]
    schedule = {'name': 'constant', 'warmup': 0}
    optimizer = make_optimizer(
        config('muon', schedule=schedule, b2=0.95, weight_decay=0.2, momentum=0.9), STEPS, 1
    )
    after, _ = run(optimizer, params, gradients)
    p = flat(params)
    m = {name: np.zeros_like(value) for name, value in p.items()}
    v = {name: np.zeros_like(value) for name, value in p.items()}
    for step, gradient in enumerate(gradients):
        t = step + 1
        for name, g in flat(gradient).items():
            if '/layers/' in name and name.endswith('kernel'):
                m[name] = 0.9 * m[name] + 0.1 * g
                # Nesterov's look-ahead, each part with its own bias correction.
                mixed = 0.9 * m[name] / (1 - 0.9 ** (t + 1)) + 0.1 * g / (1 - 0.9**t)
                u = np.stack([newton_schulz(layer) for layer in mixed])
                u *= 0.2 * np.sqrt(max(g.shape[1:]))
            else:
                m[name] = 0.9 * m[name] + 0.1 * g
                v[name] = 0.95 * v[name] + 0.05 * g**2
                u = (m[name] / (1 - 0.9**t)) / (np.sqrt(v[name] / (1 - 0.95**t)) + 1e-8)
            decay = 0.0 if name.endswith(('bias', 'scale')) else 0.2
            p[name] = p[name] - 0.1 * (u + decay * p[name])
            np.testing.assert_allclose(after[step][name], p[name], atol=1e-5, err_msg=name)


def test_muon_state_holds_one_moment_for_kernels_and_two_for_the_rest():
    optimizer = make_optimizer(config('muon'), STEPS, 1)
    paths = leaves(jax.eval_shape(optimizer.init, draw(0, MUON)))
    moments = {name: sum(path.endswith(name) for path in paths) for name in MUON}
    kernels = {
        'decoder/layers/feedforward/up/kernel',
        'decoder/layers/feedforward/down/kernel',
    }
    assert moments == {name: 1 if name in kernels else 2 for name in MUON}
    labels = leaves(muon_labels(draw(0, MUON)))
    assert {name for name, label in labels.items() if label == 'muon'} == kernels


@pytest.mark.parametrize('name', ['adamw', 'adafactor', 'lion', 'muon'])
def test_nothing_is_frozen_and_the_state_does_not_depend_on_the_numbers(name):
    params = draw(0, MUON)
    schedule = {'name': 'constant', 'warmup': 0}
    optimizer = make_optimizer(config(name, schedule=schedule), STEPS, 1)
    (after,), _ = run(optimizer, params, [draw(1, MUON)])
    for leaf, before in flat(params).items():
        # Even Lion moves every entry, whose gradient is never exactly 0.
        assert (after[leaf] != before).all(), leaf

    full = make_optimizer(config(name, weight_decay=0.1, clip=1.0), STEPS, 1)
    assert jax.tree.structure(jax.eval_shape(optimizer.init, params)) == jax.tree.structure(
        jax.eval_shape(full.init, params)
    )


def test_clip_zero_means_none():
    params = draw(0, SMALL)
    gradient = draw(1, SMALL, scale=1e-12)  # below epsilon, where Adam sees the gradient's size
    schedule = {'name': 'constant', 'warmup': 0}
    (free,), _ = run(
        make_optimizer(config('adamw', 1.0, schedule, clip=0.0), STEPS, 1), params, [gradient]
    )
    (cut,), _ = run(
        make_optimizer(config('adamw', 1.0, schedule, clip=1e-13), STEPS, 1), params, [gradient]
    )
    name = 'token_embedding/table'
    before = flat(params)[name]
    assert np.abs(free[name] - before).max() > 5 * np.abs(cut[name] - before).max() > 0


def test_global_norm():
    assert global_norm({'a': jnp.array([3.0]), 'b': {'c': jnp.array([[4.0, 12.0]])}}) == 13.0


@pytest.mark.parametrize(
    ('broken', 'words'),
    [
        (config('adamww'), ["'adamww'", "'adamw'", 'lion']),
        (config('adamw', weight_deacy=0.1), ['weight_deacy', "'weight_decay'"]),
        (config('adamw', no_decay='('), ['no_decay', "'('"]),
        (config('adamw', b2=1.0), ['b2=1', 'below 1']),
        (config('adamw', b1=-0.1), ['b1=-0.1']),
        (config('adamw', clip=-1.0), ['clip=-1']),
        (config('lion', bias_correction=False), ['bias_correction=False', 'adamw', 'lion']),
        (config('adamw', schedule={'name': 'cosin'}), ["'cosine'"]),
    ],
)
def test_mistakes_are_said_in_one_line(broken, words):
    with pytest.raises(UserError) as error:
        make_optimizer(broken, STEPS, 1)
    message = str(error.value)
    assert '\n' not in message
    for word in words:
        assert word in message
