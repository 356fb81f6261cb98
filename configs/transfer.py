"""What every fine-tuning has: one setting for all tasks, which a config of a task changes.

The default is inside the grid of BERT's paper (appendix A.3): batches of 16, a rate of 5e-5, 3
epochs, a tenth of the steps to warm up, dropout 0.1, and five seeds. No choice is made on the dev
split. SETTINGS are those of papers, variants of configs/glue.py and the others
(`configs/glue.py:mrpc,electra`); GRIDS what papers search, for `pretrain.evaluate --grid=bert`.
"""

import difflib

from ml_collections import ConfigDict

from configs.recipe import recipe


def transfer(benchmark, task=''):
    """The config of a task with the default setting.

    Args:
        benchmark: 'glue', 'superglue', 'squad', 'snli' or 'own'. task: its name; '': all of them.
    """
    config = ConfigDict()
    config.name = task
    config.benchmark = benchmark
    config.task = task
    config.seed = 0
    config.mesh = 'data=-1'
    config.cache = 'cache'  # folder of compiled programs

    config.transfer = section = ConfigDict()
    section.cast = ''  # head, text or choices; '': what suits the checkpoint's stacks
    section.epochs = 3  # 0: as `epochs_of` says
    section.batch_size = 16  # rows
    section.eval_batch_size = 64
    section.warmup = 0.1  # share of the steps
    section.length = 0  # tokens of a row; 0: the task's own
    section.hide = ''  # a text that is hidden from every model ('premise'); '': none
    section.train_rows = 0  # a seeded part of the train split; 0: all of it
    section.dropout = 0.1  # in the trunk; -1: the checkpoint's own
    section.head_dropout = 0.1
    section.dtype = 'float32'
    section.remat = 'none'
    section.pooling = ''  # first, last, mean or concat; '': first of an encoder, last of a decoder
    section.hidden_width = 0  # of a layer more in the head
    section.mix_layers = False  # learned weights of all layers (ELMo)
    section.groups = 0  # trained from the top: 1 the head, 2 the last layer too, ...; 0: all
    section.unfreeze = False  # one group more each epoch (ULMFiT)
    section.layer_decay = 1.0  # of the rate, from each layer to the one below
    section.lm_coefficient = 0.0  # of the causal LM's loss beside (GPT: 0.5)
    section.answer_tokens = 16  # that text to text writes at most where the answers are open
    section.shots = 0  # solved examples before each question, of scored choices
    section.shots_per_query = False  # drawn anew for each question
    section.normalise = ''  # scored choices: none, tokens or bytes; '': as the task needs

    config.optimizer = recipe().optimizer
    config.optimizer.update(learning_rate=5e-5, weight_decay=0.01)
    config.optimizer.schedule.update(name='linear', final=0.0)
    config.epochs_of = ()  # ((task or benchmark, epochs), ...), where a paper has no one number
    config.grids = ConfigDict(GRIDS)
    return config


def variant(benchmark, tasks, name, base=None):
    """Builds `TASK`, `TASK,SETTING`, `SETTING` or nothing: all tasks with the default.

    Where there is one task only, it is meant by all of these. `base` is a function of the config
    that makes a benchmark's own default of it.

    Raises:
        ValueError: there is no such task or setting; the nearest is said.
    """
    words = [word for word in name.split(',') if word]
    for word in words:
        if word not in tasks and word not in SETTINGS:
            near = difflib.get_close_matches(word, [*tasks, *SETTINGS], 1)
            hint = f'did you mean {near[0]!r}?' if near else ''
            hint = hint or f'there are: {", ".join([*tasks, *SETTINGS])}'
            raise ValueError(f'unknown variant {word!r}; {hint}')
    chosen = [word for word in words if word in tasks] or [*tasks][: len(tasks) == 1]
    settings = [word for word in words if word not in tasks]
    if len(chosen) > 1 or len(settings) > 1:
        raise ValueError(f'{name!r} names two {"tasks" if len(chosen) > 1 else "settings"}')
    config = transfer(benchmark, *chosen)
    if base:
        base(config)
    for word in settings:
        SETTINGS[word](config)
    config.name = name
    return config


def _electra(config):
    """ELECTRA small and base (its released code): rate 1e-4, decay 0.8 a layer, batch 32."""
    config.transfer.update(batch_size=32, layer_decay=0.8, epochs=0)
    config.epochs_of = (('rte', 10), ('stsb', 10), ('squad', 2), ('', 3))
    config.optimizer.update(learning_rate=1e-4, epsilon=1e-6, bias_correction=False)


def _gpt(config):
    """GPT (section 4.1): rate 6.25e-5, batch 32, 3 epochs, the LM's loss at 0.5."""
    config.transfer.update(batch_size=32, lm_coefficient=0.5, warmup=0.002)
    config.optimizer.update(learning_rate=6.25e-5)


def _t5(config):
    """T5 (section 3.1.3): Adafactor at a constant 1e-3."""
    config.transfer.update(batch_size=128, warmup=0.0)
    config.optimizer.update(name='adafactor', learning_rate=1e-3, weight_decay=0.0, clip=0.0)
    config.optimizer.schedule.update(name='constant')


def _roberta(config):
    """RoBERTa (appendix C), one point of its grid: rate 2e-5, batch 16, 10 epochs, 6 % warm-up."""
    config.transfer.update(epochs=10, warmup=0.06)
    config.optimizer.update(learning_rate=2e-5, b2=0.98, epsilon=1e-6, weight_decay=0.1)


def _ulmfit(config):
    """ULMFiT (section 3): discriminative rates, slanted triangle, unfreezing, concat pooling."""
    config.transfer.update(
        unfreeze=True, layer_decay=1 / 2.6, pooling='concat', hidden_width=50, epochs=5
    )
    config.optimizer.update(b1=0.8, b2=0.99, learning_rate=1e-3)
    config.optimizer.schedule.update(name='slanted', final=1 / 32)


def _frozen(config):
    """Only a new head is trained, on features that are computed once."""
    config.transfer.update(groups=1, epochs=5)
    config.optimizer.update(learning_rate=1e-3)


def _elmo(config):
    """ELMo's use of a frozen model: a learned mix of all its layers (section 3.2)."""
    _frozen(config)
    config.transfer.update(mix_layers=True, pooling='mean')


SETTINGS = {
    'electra': _electra,
    'gpt': _gpt,
    't5': _t5,
    'roberta': _roberta,
    'ulmfit': _ulmfit,
    'frozen': _frozen,
    'elmo': _elmo,
}
# What papers search: every combination is a run of its own, chosen on dev and said so.
GRIDS = {
    'bert': {
        'transfer': {'batch_size': (16, 32), 'epochs': (2, 3, 4)},
        'optimizer': {'learning_rate': (5e-5, 4e-5, 3e-5, 2e-5)},
    },
    'small_bert': {
        'transfer': {'batch_size': (8, 16, 32, 64, 128), 'epochs': (4,)},
        'optimizer': {'learning_rate': (3e-4, 1e-4, 5e-5, 3e-5)},
    },
    'roberta': {
        'transfer': {'batch_size': (16, 32), 'epochs': (10,)},
        'optimizer': {'learning_rate': (1e-5, 2e-5, 3e-5)},
    },
}
