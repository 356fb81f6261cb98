"""Training a task's model: one jitted function a step, a program for each length of a batch."""

import functools
import math
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from pretrain import partitioning
from pretrain.errors import UserError
from pretrain.optimizers import make_optimizer
from pretrain.schedules import make_schedule
from pretrain.transfer import layer_rates, rows
from pretrain.transfer.casts import Cast, run_rows

HEAD, DROPOUT = range(2)  # the random streams of a fine-tuning, folded into its key
LOOK_EVERY = 50  # steps between looks at the loss: a look waits for the device


class Trained(NamedTuple):
    """What a fine-tuning ends with.

    params: {'trunk': ..., 'head': ...}. steps: of training. rate: steps a second, without the first
    of each length, which may have to be compiled; 0 where there are no others. loss: mean of the
    last epoch. padding: share of padded places.
    """

    params: dict
    steps: int
    rate: float
    loss: float
    padding: float


def phases(epochs, trained, unfreeze, count):
    """How many groups of layers are trained in each epoch, counted from the head.

    Args:
        epochs: of the whole. trained: groups that are trained; 0: all.
        unfreeze: gradual unfreezing (ULMFiT, section 3.3): the head for one epoch, then one more
            group each epoch; the last epoch trains all that is trained at all.
        count: groups that there are.

    Returns:
        List of a number an epoch.
    """
    most = min(trained or count, count)
    if not unfreeze:
        return [most] * epochs
    return [min(1 + epoch, most) for epoch in range(epochs - 1)] + [most]


class Trainer:
    """Fine-tunes a cast with the settings of a config, for any number of seeds.

    Programs are compiled once and serve all seeds.
    """

    def __init__(self, cast: Cast, config, tokens, mesh):
        self.cast, self.config, self.tokens, self.mesh = cast, config, tokens, mesh
        self._steps = {}
        settings = config.transfer
        if settings.batch_size % partitioning.batch_shards(mesh):
            partitioning.process_rows(mesh, settings.batch_size)  # says what is wrong
        if settings.batch_size < cast.unit or settings.batch_size % cast.unit:
            raise UserError(
                f'transfer.batch_size={settings.batch_size} does not hold whole units of '
                f'{cast.unit} rows'
            )

    def train(self, params, made, seed, progress=None):
        """Trains on rows.

        Args:
            params: {'trunk': ..., 'head': ...} to start from.
            made: list of rows.Row.
            seed: of the order of the rows and of dropout.
            progress: function of the number of steps that returns a tqdm-like bar; None: none.

        Returns:
            Trained.

        Raises:
            UserError: the loss is not finite.
        """
        settings, cast = self.config.transfer, self.cast
        count = layer_rates.group_count(params['trunk'])
        plan = phases(settings.epochs, settings.groups, settings.unfreeze, count)
        features = None
        if cast.keeps_features and set(plan) == {1} and settings.lm_coefficient == 0:
            features = self._features(params['trunk'], made)
        an_epoch = math.ceil(len(made) / cast.unit / (settings.batch_size // cast.unit))
        steps = an_epoch * settings.epochs
        key = jax.random.fold_in(jax.random.key(seed), DROPOUT)
        bar = progress(steps) if progress else None
        step, timed, seen, began, spent, losses, held = 0, 0, set(), time.time(), 0.0, [], []
        rates = learning_rates(self.config, steps)
        whole_rates = layer_rates.rates(params, settings.layer_decay)
        # What was read from a checkpoint lies on one device and would stay there.
        shardings = partitioning.state_shardings(self.mesh, {'params': params})
        params = jax.device_put(params, shardings['params'])
        trained = state = frozen = factors = None
        for epoch, groups in enumerate(plan):
            if epoch == 0 or groups != plan[epoch - 1]:
                if epoch:
                    params = layer_rates.join(trained, frozen)
                trained, frozen = layer_rates.split(params, groups)
                if not trained:
                    raise UserError(
                        f'transfer.groups={groups} trains nothing: this model has no head of its '
                        'own above its layers; set 2 or more'
                    )
                update, make_state, place = self._compiled(trained, groups)
                factors = layer_rates.part_rates(trained, whole_rates)
                trained = place(trained)
                # Moments begin anew with every group that is thawed, as fastai does.
                state = make_state(trained)
            places = rows.training_batches(made, settings.batch_size, cast.unit, seed, epoch)
            held += places
            total = []
            for at in places:
                batch = self._batch(made, at, features)
                new = (groups, at.length) not in seen  # its program may have to be compiled
                if new:
                    jax.block_until_ready(trained)
                    spent += time.time() - began if seen else 0.0
                trained, state, loss = update(
                    trained, state, frozen, factors, rates[step], batch,
                    jax.random.fold_in(key, step),
                )  # fmt: skip
                if new:
                    seen.add((groups, at.length))
                    jax.block_until_ready(loss)
                    began = time.time()
                timed += not new
                total.append(loss)
                step += 1
                if bar is not None:
                    bar.update(1)
                    if step % LOOK_EVERY == 0:
                        bar.set_postfix(loss=f'{float(loss):.3f}')
            losses = np.array([float(x) for x in total])
            if not np.isfinite(losses).all():
                raise UserError(
                    f'the loss of seed {seed} is not finite in epoch {epoch + 1}: lower '
                    f'optimizer.learning_rate={self.config.optimizer.learning_rate:g}'
                )
        spent += time.time() - began
        if bar is not None:
            bar.close()
        return Trained(
            layer_rates.join(trained, frozen), steps, timed / max(spent, 1e-9),
            float(losses.mean()), rows.padding(made, held),
        )  # fmt: skip

    def _features(self, trunk, made):
        """What the head reads, of every row, computed once."""
        function = jax.jit(self.cast.features)

        def features(batch):
            return jnp.moveaxis(function(trunk, batch), -2, 0)

        return run_rows(
            features, made, self.config.transfer, self.cast.unit, self.tokens, self.cast.prefix
        )

    def _batch(self, made, at, features):
        batch = rows.lay_out(made, at, self.tokens.vocabulary.pad, self.cast.prefix)
        if features is not None:
            batch = batch._replace(features=features[np.maximum(at.rows_B, 0)])
        if self.mesh.size == 1:
            return batch
        return partitioning.global_array(self.mesh, batch, len(at.rows_B))

    def _compiled(self, trained, groups):
        """(update, a function that makes the optimizer's state, one that places parameters)."""
        if groups in self._steps:
            return self._steps[groups]
        optimizer = make_task_optimizer(self.config)

        def update(trained, state, frozen, factors, rate, batch, key):
            def loss_of(trained):
                return self.cast.loss(layer_rates.join(trained, frozen), batch, key)

            loss, gradients = jax.value_and_grad(loss_of)(trained)
            updates, state = optimizer.update(gradients, state, trained)
            updates = jax.tree.map(lambda u, factor: u * (rate * factor), updates, factors)
            return optax.apply_updates(trained, updates), state, loss

        shapes = {'params': trained, 'optimizer': jax.eval_shape(optimizer.init, trained)}
        shardings = partitioning.state_shardings(self.mesh, shapes)
        placed = shardings['params'], shardings['optimizer']
        made = (
            jax.jit(update, donate_argnums=(0, 1), out_shardings=(*placed, None)),
            jax.jit(optimizer.init, out_shardings=placed[1]),
            # A copy: the step gives its arguments away, and the next seed starts from these too.
            jax.jit(functools.partial(jax.tree.map, jnp.copy), out_shardings=placed[0]),
        )
        self._steps[groups] = made
        return made


def make_task_optimizer(config):
    """The optimizer of a fine-tuning at a learning rate of 1.

    The rate of each step is given to the program: as a part of it, no two tasks could share one.

    Args:
        config: with the section `optimizer`.
    """
    section = config.optimizer.copy_and_resolve_references()
    with section.unlocked():
        section.learning_rate = 1.0
        section.schedule.update(name='constant', warmup=0.0, decay=0.0)
    return make_optimizer(section, 1, 1)


def learning_rates(config, steps):
    """The learning rate of every step, float32; the warm-up is a share of them, rounded down.

    Args:
        config: with the sections `transfer` and `optimizer`. steps: of the whole training.
    """
    section = config.optimizer.copy_and_resolve_references()
    warmup = int(steps * config.transfer.warmup)
    with section.unlocked():
        section.schedule.warmup = float(warmup)
        if section.schedule.name == 'slanted' and warmup:
            section.schedule.decay = float(warmup) / config.transfer.warmup
    return np.asarray(make_schedule(section, steps, 1)(np.arange(steps)), np.float32)
