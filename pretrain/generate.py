"""Continues or answers prompts with a trained decoder, or fills the masks in them with an encoder.

python -m pretrain.generate --checkpoint=runs/gpt-tiny --prompt="The city of"
python -m pretrain.generate --checkpoint=runs/t5 --prompt="translate ..." --beams=4
python -m pretrain.generate --checkpoint=runs/bert --prompt="The city of [MASK]." --top_k=3

A decoder alone prints the prompt and what follows it; behind an encoder it prints what it says to
the prompt; an encoder alone prints a line for each mask and candidate: the probability, the
piece, the text with it. Names of special pieces in a prompt ([MASK], <extra_id_0>) stand for these.
"""

import math
from pathlib import Path

import jax
from absl import flags

from pretrain import assembly, commandline, saved_run, train_step
from pretrain.errors import UserError
from pretrain.model.decoding import check_room, continue_texts
from pretrain.model.filling import fill_masks, text_ids

BATCH = 32  # prompts at once
EARLY = {'false': False, 'true': True, 'never': 'never'}

CHECKPOINT = flags.DEFINE_string('checkpoint', None, 'Folder of a run.', required=True)
STEP = flags.DEFINE_integer('step', None, 'Of the checkpoint; default: the newest whole one.')
PROMPT = flags.DEFINE_string('prompt', None, 'Text to continue; an empty one begins a document.')
PROMPTS_FILE = flags.DEFINE_string('prompts_file', None, 'File of prompts, one a line.')
TOKENS = flags.DEFINE_integer('tokens', 100, 'Tokens to make.')
TEMPERATURE = flags.DEFINE_float('temperature', 0.8, '0: the likeliest token each time (greedy).')
TOP_K = flags.DEFINE_integer(
    'top_k', None, 'Draw from the k likeliest tokens (default 40); 0: from all. Of an encoder: '
    'candidates for each mask (default 5).',
)  # fmt: skip
TOP_P = flags.DEFINE_float('top_p', 1.0, 'Draw from the fewest tokens with this probability.')
BEAMS = flags.DEFINE_integer('beams', 1, 'Above 1: beam search with so many beams.')
LENGTH_PENALTY = flags.DEFINE_float(
    'length_penalty', 1.0, 'Of beam search: log-probability / length ** penalty is the score.'
)
EARLY_STOPPING = flags.DEFINE_enum(
    'early_stopping', 'false', list(EARLY), 'Of beam search: done with the first N ended texts; '
    'false: when a better one is unlikely; never: when none can be better.',
)  # fmt: skip
SEED = flags.DEFINE_integer('seed', 0, 'Of the random choices.')
MESH = flags.DEFINE_string('mesh', 'data=-1', 'Devices; see the config key of the same name.')

DRAWING = TEMPERATURE, TOP_K, TOP_P
SEARCHING = LENGTH_PENALTY, EARLY_STOPPING


def main(argv):
    """Prints what the model makes of each prompt."""
    if len(argv) > 1:
        raise UserError(f'unknown argument {argv[1]!r}: a text goes behind --prompt=')
    check_flags()
    prompts = read_prompts(PROMPT.value, PROMPTS_FILE.value)
    config = commandline.read_run_config(CHECKPOINT.value)
    config.mesh = MESH.value
    run = saved_run.open_run(CHECKPOINT.value, config, STEP.value, frozen=False)
    modules = run.learner.transformers
    name = assembly.teaching({name: name for name in modules})
    if run.objective.prompt is not None:
        lines = continued(run, name, prompts)
    elif fills_masks(modules[name].config, run.tokenizer.vocabulary):
        lines = filled(run, name, prompts)
    else:
        raise UserError(
            f'{CHECKPOINT.value!r} ({config.objective.name}, model.token_head='
            f'{modules[name].config.token_head}) can neither continue texts nor fill masks: give a '
            'run of causal_lm, prefix_lm or masked_lm, with a head'
        )
    for line in lines:
        print(line, flush=True)


def check_flags():
    """Refuses numbers out of range and flags that do not go together."""
    for flag, fits in (
        (TOKENS, TOKENS.value >= 1),
        (TEMPERATURE, TEMPERATURE.value >= 0),
        (TOP_K, TOP_K.value is None or TOP_K.value >= 0),
        (TOP_P, 0 < TOP_P.value <= 1),
        (BEAMS, 1 <= BEAMS.value <= 1000),
        (LENGTH_PENALTY, math.isfinite(LENGTH_PENALTY.value)),
    ):
        if not fits:
            raise UserError(f'--{flag.name}={flag.value} is out of range')
    if BEAMS.value > 1:
        for flag in DRAWING:
            if flag.present and not (flag is TEMPERATURE and flag.value == 0):
                raise UserError(
                    f'--beams={BEAMS.value} searches and --{flag.name}={flag.value} draws at '
                    'random: give one of them'
                )
    for flag in SEARCHING:
        if flag.present and BEAMS.value == 1:
            raise UserError(
                f'--{flag.name}={flag.value} is a rule of beam search: give --beams above 1, too'
            )


def continued(run, name, prompts):
    """The lines that show what a decoder makes of the prompts."""
    for first in range(0, len(prompts), BATCH):
        part = prompts[first : first + BATCH]
        texts = continue_texts(
            run.learner.transformers[name], run.params[name], run.tokenizer, part,
            jax.random.fold_in(jax.random.key(SEED.value), first), new_tokens=TOKENS.value,
            temperature=TEMPERATURE.value, top_k=40 if TOP_K.value is None else TOP_K.value,
            top_p=TOP_P.value, beams=BEAMS.value, length_penalty=LENGTH_PENALTY.value,
            early_stopping=EARLY[EARLY_STOPPING.value], prompt=run.objective.prompt,
        )  # fmt: skip
        for prompt, text in zip(part, texts):
            yield text if run.objective.prompt == 'encoder' else prompt + text


def fills_masks(model, vocabulary):
    """Whether a model of this config can fill masks of texts of this vocabulary."""
    pieces = vocabulary.cls, vocabulary.sep, vocabulary.mask
    return model.token_head and not model.decoder_layers and None not in pieces


def filled(run, name, prompts):
    """The lines that show what an encoder puts in the place of the masks."""
    for flag in (TOKENS, TEMPERATURE, TOP_P, BEAMS, *SEARCHING, SEED):
        if flag.present:
            raise UserError(
                f'--{flag.name}={flag.value} does not apply: {CHECKPOINT.value!r} is an encoder, '
                'which fills masks; leave it out'
            )
    top_k = 5 if TOP_K.value is None else TOP_K.value
    if top_k < 1:
        raise UserError(f'--top_k={top_k} is out of range: it is the number of candidates a mask')
    config = run.learner.transformers[name].config
    check_room(config, max(len(text_ids(run.tokenizer, p)) for p in prompts), 0, 'encoder')

    def bind(params):
        return train_step.bind(run.learner, params)[name]  # with tables that models share

    for first in range(0, len(prompts), BATCH):
        part = prompts[first : first + BATCH]
        for masks in fill_masks(bind, run.params, run.tokenizer, part, top_k):
            for candidates in masks:
                for filling in candidates:
                    yield f'{filling.probability:.4f}  {filling.piece!r}  {filling.text}'


def read_prompts(prompt, path):
    """The list of prompts that the flags give."""
    if (prompt is None) == (path is None):
        raise UserError('give either --prompt=TEXT or --prompts_file=FILE')
    if path is None:
        return [prompt]
    try:
        prompts = Path(path).read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f'cannot read --prompts_file={path}: {error}') from None
    if not prompts:
        raise UserError(f'--prompts_file={path} is empty')
    return prompts


if __name__ == '__main__':
    commandline.run(main)
