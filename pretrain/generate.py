"""Continues prompts with a trained decoder.

python -m pretrain.generate --checkpoint=runs/gpt-tiny --prompt="The city of"
"""

from pathlib import Path

import jax
from absl import flags

from pretrain import assembly, commandline
from pretrain.errors import UserError
from pretrain.model.decoding import continue_texts

BATCH = 32  # prompts at once

CHECKPOINT = flags.DEFINE_string('checkpoint', None, 'Folder of a run.', required=True)
STEP = flags.DEFINE_integer('step', None, 'Of the checkpoint; default: the newest whole one.')
PROMPT = flags.DEFINE_string('prompt', None, 'Text to continue; an empty one begins a document.')
PROMPTS_FILE = flags.DEFINE_string('prompts_file', None, 'File of prompts, one a line.')
TOKENS = flags.DEFINE_integer('tokens', 100, 'Tokens to make.')
TEMPERATURE = flags.DEFINE_float('temperature', 0.8, '0: the likeliest token each time (greedy).')
TOP_K = flags.DEFINE_integer('top_k', 40, 'Draw from the k likeliest tokens; 0: from all.')
TOP_P = flags.DEFINE_float('top_p', 1.0, 'Draw from the fewest tokens with this probability.')
SEED = flags.DEFINE_integer('seed', 0, 'Of the random choices.')
MESH = flags.DEFINE_string('mesh', 'data=-1', 'Devices; see the config key of the same name.')


def main(argv):
    """Prints each prompt with its continuation."""
    if len(argv) > 1:
        raise UserError(f'unknown argument {argv[1]!r}: a text goes behind --prompt=')
    for flag, fits in (
        (TOKENS, TOKENS.value >= 1),
        (TEMPERATURE, TEMPERATURE.value >= 0),
        (TOP_K, TOP_K.value >= 0),
        (TOP_P, 0 < TOP_P.value <= 1),
    ):
        if not fits:
            raise UserError(f'--{flag.name}={flag.value} is out of range')
    prompts = read_prompts(PROMPT.value, PROMPTS_FILE.value)
    config = commandline.read_run_config(CHECKPOINT.value)
    config.mesh = MESH.value
    run = assembly.open_run(CHECKPOINT.value, config, STEP.value, frozen=False)
    if run.objective.prompt is None:
        raise UserError(
            f'{CHECKPOINT.value!r} was trained on {config.objective.name!r}, which does not teach '
            'to continue texts: give a run of causal_lm or prefix_lm'
        )
    name = 'student' if 'student' in run.params else 'model'
    module = run.learner.transformers[name]
    for first in range(0, len(prompts), BATCH):
        part = prompts[first : first + BATCH]
        texts = continue_texts(
            module, run.params[name], run.tokenizer, part,
            jax.random.fold_in(jax.random.key(SEED.value), first), new_tokens=TOKENS.value,
            temperature=TEMPERATURE.value, top_k=TOP_K.value, top_p=TOP_P.value,
            prompt=run.objective.prompt,
        )  # fmt: skip
        for prompt, text in zip(part, texts):
            print(prompt + text, flush=True)


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
