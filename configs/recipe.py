"""What every recipe has; a config file changes what it needs."""

import difflib

from ml_collections import ConfigDict

MODEL = {  # what each field does stands in pretrain/model/config.py
    'vocabulary': 0,
    'encoder_layers': 0,
    'decoder_layers': 0,
    'width': 768,
    'heads': 12,
    'kv_heads': 0,
    'head_width': 0,
    'feedforward_width': 0,
    'norm': 'layer',
    'norm_bias': True,
    'norm_epsilon': 1e-5,
    'norm_placement': 'pre',
    'first_norm': True,
    'final_norm': True,
    'embedding_norm': False,
    'biases': True,
    'positions': 'learned',
    'max_positions': 1024,
    'rotary_theta': 10000.0,
    'rotary_theta_local': 0.0,
    'relative_buckets': 32,
    'relative_distance': 128,
    'segment_types': 0,
    'embedding_width': 0,
    'activation': 'gelu',
    'gated': False,
    'scale_attention': True,
    'query_key_norm': False,
    'attention_window': 0,
    'global_every': 0,
    'token_head': True,
    'tied': True,
    'scale_logits': False,
    'logit_transform': False,
    'logit_bias': False,
    'pooler': False,
    'classes': 0,
    'token_scores': False,
    'projection_width': 0,
    'initializer': 'normal',
    'stddev': 0.02,
    'position_stddev': 0.0,
    'residual_scale': False,
    'dropout': 0.0,
    'attention_dropout': 0.0,
    'dropout_inside': False,
    'dropout_final': False,
    'dropout_broadcast': False,
    'dtype': 'float32',
    'remat': 'none',
    'unroll': False,
}


def recipe():
    """The keys of every recipe, with the values that most of them keep."""
    config = ConfigDict()
    config.name = ''  # of the recipe, for logs
    config.seed = 0
    config.steps = 1000
    config.batch_size = 16  # windows a step, over all devices and processes
    config.phases = ()  # (steps, batch_size, length) of those before the last
    config.accumulation = 1  # parts that a batch is worked off in
    config.mesh = 'data=-1'  # axes: data, fsdp, tensor
    config.init_from = ''  # a run whose parameters a new run starts from

    config.data = data = ConfigDict()
    data.source = 'wikipedia:excerpt'  # see pretrain/data/documents.py
    data.mixture = ()  # in place of it: ((source, weight), ...)
    data.mixing = 'weights'  # or 'size': weight x min(size, cap) ** (1 / temperature)
    data.temperature = 1.0
    data.cap = 0  # tokens; 0: none
    data.data_dir = ''  # of tfds: sources; '': ~/tensorflow_datasets
    data.text_field = 'text'  # of JSON lines, parquet and tfds: records
    data.tokenizer = ''  # path of one, see docs/data.md; '' trains a SentencePiece model
    data.vocabulary_size = 8192  # pieces of the one that is trained
    data.tokenizer_megabytes = 10.0  # of text that it is trained on
    data.validation_fraction = 0.05  # of the documents, chosen by a hash of their text
    data.shard_megabytes = 4.0  # of text in a shard, about
    data.filters = ()  # names of pretrain/data/filters.py, such as ('c4', 'duplicates')
    data.cache = 'cache'  # folder of prepared corpora
    data.cut = 'stream'  # or 'pack': whole documents, as many as fill a window best; 'document':
    # one document a window, which begins at a sentence
    data.separator = True  # an eos after each document
    data.workers = 1  # threads that read windows ahead; 0: none
    data.prefetch = 2  # steps that they are ahead

    config.model = ConfigDict(MODEL)

    config.objective = ConfigDict()
    config.objective.name = 'causal_lm'

    config.optimizer = optimizer = ConfigDict()
    optimizer.name = 'adamw'
    optimizer.learning_rate = 1e-3
    optimizer.b1 = 0.9
    optimizer.b2 = 0.999
    optimizer.epsilon = 1e-8
    optimizer.bias_correction = True  # False: BERT's Adam
    optimizer.momentum = 0.95  # muon's
    optimizer.weight_decay = 0.0
    optimizer.no_decay = r'(bias|scale)$'
    optimizer.clip = 1.0  # global norm of the gradient; 0: none
    optimizer.schedule = schedule = ConfigDict()
    schedule.name = 'cosine'
    schedule.unit = 'steps'  # or 'tokens': what warmup and decay count
    schedule.warmup = 0.0
    schedule.decay = 0.0  # where the decay ends; 0: with the run
    schedule.final = 0.1  # share of the peak that is left then

    config.checkpoint = ConfigDict()
    config.checkpoint.every = 1000  # steps
    config.checkpoint.keep = 2  # the newest; the best is kept as well
    config.eval = ConfigDict()
    config.eval.every = 1000  # steps
    config.eval.windows = 1024  # of the validation split; 0: all of it
    config.log = ConfigDict()
    config.log.every = 10  # steps

    config.sample = ConfigDict()  # the text that a run prints when it ends; '' and 0: none
    config.sample.prompt = 'The city of'
    config.sample.tokens = 100
    return config


def select(variant, variants):
    """Builds `NAME`, or `NAME,smoke`, which is NAME cut down to seconds on a CPU.

    Args:
        variant: what stands behind the colon of --config=FILE:VARIANT.
        variants: functions that make the named configs.

    Raises:
        ValueError: there is no such variant; the nearest name is said.
    """
    name, *rest = variant.split(',')
    for word in [name, *rest]:
        if word not in variants and word != 'smoke':
            near = difflib.get_close_matches(word, [*variants, 'smoke'], 1)
            hint = f'did you mean {near[0]!r}?' if near else f'there are: {", ".join(variants)}'
            raise ValueError(f'unknown variant {word!r}; {hint}')
    if any(word != 'smoke' for word in rest):
        raise ValueError(f'{variant!r} names two variants; only smoke goes with another')
    first = next(iter(variants)) if name == 'smoke' else name
    config = variants[first]()
    if 'smoke' in (name, *rest):
        smoke(config)
    config.name = variant
    return config


def tiny_run(config, steps, every, learning_rate=4e-3, b2=0.95, weight_decay=0.1):
    """What the runs of minutes on two cores have in common: Muon, 16 windows a step.

    Args:
        config: changed in place. steps: of the run, a tenth of them warm-up.
        every: steps between checkpoints, and between evaluations on all of the held-out text.
        learning_rate, b2, weight_decay: of the optimizer.
    """
    config.steps = steps
    config.batch_size = 16
    config.optimizer.update(
        name='muon', learning_rate=learning_rate, b2=b2, weight_decay=weight_decay
    )
    config.optimizer.schedule.update(warmup=steps / 10)
    config.checkpoint.every = config.eval.every = every
    config.eval.windows = 0
    config.log.every = 5


def paper_scale(config):
    """What the papers' sizes have in common: much text, bfloat16, activations made again."""
    # A tokenizer takes 22 MB of memory and 2 s for each megabyte that it is trained on.
    config.data.update(tokenizer_megabytes=25.0, validation_fraction=0.005, shard_megabytes=64.0)
    config.model.update(dtype='bfloat16', remat='dots')


def smoke(config):
    """Cuts a config down to seconds on a CPU: what it is stays, how large it is goes."""
    model = config.model
    for stack in ('encoder_layers', 'decoder_layers'):
        if model[stack]:
            model[stack] = 2
    grouped = 0 < model.kv_heads < model.heads
    model.vocabulary = 0
    model.width, model.heads, model.head_width, model.feedforward_width = 32, 4, 8, 64
    model.kv_heads = 2 if grouped else 0
    if model.attention_window:
        model.attention_window = 8
    model.max_positions = min(model.max_positions, 128)
    for name in ('length', 'inputs_length', 'window'):
        if config.objective.get(name):
            config.objective[name] = 32
    if 'generator' in config:
        config.generator.update(width=16, heads=2, feedforward_width=32)
        model.embedding_width = 16 if model.embedding_width < model.width else 32
    if 'teacher' in config:
        config.objective.teacher = ''
        config.teacher.update({name: 4 for name in config.teacher if name.endswith('_layers')})
        for name in ('width', 'heads', 'feedforward_width'):
            if name in config.teacher:
                config.teacher[name] = model[name]
        if config.objective.layers:
            config.objective.layers = (0, 3)
    cut, separator = config.data.cut, config.data.separator
    config.data.update(recipe().data.copy_and_resolve_references())
    config.data.update(cut=cut, separator=separator)
    config.steps, config.batch_size, config.accumulation = 20, 8, 1
    if config.phases:
        config.phases = ((10, 8, 16),)
    config.mesh = 'data=-1'
    schedule = config.optimizer.schedule
    schedule.update(unit='steps', warmup=2.0, decay=5.0 if schedule.name == 'wsd' else 0.0)
    config.checkpoint.every = config.eval.every = 10
    config.eval.windows = 16
    config.log.every = 1
    config.sample.tokens = 16
