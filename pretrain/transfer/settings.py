"""What the numbers of a task's config may be, looked at before anything is read."""

from pretrain.errors import UserError
from pretrain.optimizers import make_optimizer
from pretrain.transfer import casts, heads, squad

INF = float('inf')
# {key: (lowest, highest)}; the values keep the type that the config file gave them.
BOUNDS = {
    'seed': (0, 2**31 - 1),
    'transfer.epochs': (1, INF),
    'transfer.batch_size': (1, INF),
    'transfer.eval_batch_size': (1, INF),
    'transfer.warmup': (0, 1),
    'transfer.length': (0, INF),
    'transfer.train_rows': (0, INF),
    'transfer.hidden_width': (0, INF),
    'transfer.groups': (0, INF),
    'transfer.lm_coefficient': (0, INF),
    'transfer.answer_tokens': (1, 128),
    'transfer.shots': (0, INF),
    'squad.stride': (1, INF),
    'squad.question_length': (1, INF),
    'squad.answer_length': (1, INF),
    'squad.best': (1, INF),
    'squad.threshold': (-INF, INF),
}
NAMES = {
    'transfer.cast': ('', *casts.CASTS),
    'transfer.pooling': ('', *heads.POOLINGS),
    'transfer.normalise': ('', 'none', 'tokens', 'bytes'),
    'transfer.dtype': ('float32', 'bfloat16'),
    'transfer.remat': ('none', 'full', 'dots'),
    'squad.version': squad.VERSIONS,
}
LONG = 10**9  # steps: how long the training is, is not known yet


def for_task(config, task):
    """The config of one task: its name, and its epochs where `epochs_of` tells them.

    Args:
        config: of a transfer. task: name; '': of no task yet.

    Returns:
        A copy. A number of epochs of one's own is kept.
    """
    config = config.copy_and_resolve_references()
    config.task = task
    if not config.transfer.epochs and config.epochs_of:
        known = dict(config.epochs_of)
        config.transfer.epochs = known.get(task, known.get(config.benchmark, known.get('', 0)))
    return config


def check(config):
    """Refuses numbers and names that no fine-tuning can have.

    Args:
        config: of a transfer.

    Raises:
        UserError: the first that is wrong.
    """
    for key, (low, high) in BOUNDS.items():
        value = _value(config, key)
        if value is None or (low <= value <= high and abs(value) < INF):
            continue
        if low == -INF:
            raise UserError(f'{key}={value} must be a number')
        most = '' if high == INF else f' and at most {high}'
        raise UserError(f'{key}={value} must be at least {low}{most}')
    for key, names in NAMES.items():
        value = _value(config, key)
        if value is not None and value not in names:
            raise UserError(f'{key}={value!r} is none of {", ".join(filter(None, names))}')
    if config.optimizer.schedule.warmup:
        raise UserError(
            f'optimizer.schedule.warmup={config.optimizer.schedule.warmup:g} has no part in a '
            'fine-tuning: set transfer.warmup, a share of its steps'
        )
    section = config.transfer
    if not (section.dropout == -1 or 0 <= section.dropout < 1):
        raise UserError(
            f'transfer.dropout={section.dropout} must be from 0 to below 1, or -1 for the '
            "checkpoint's own"
        )
    if not 0 <= section.head_dropout < 1:
        raise UserError(f'transfer.head_dropout={section.head_dropout} must be from 0 to below 1')
    if not 0 < section.layer_decay <= 1:
        raise UserError(f'transfer.layer_decay={section.layer_decay} must be above 0, at most 1')
    make_optimizer(config.optimizer, LONG, 1)


def _value(config, key):
    section, _, name = key.rpartition('.')
    return (config.get(section, {}) if section else config).get(name)
