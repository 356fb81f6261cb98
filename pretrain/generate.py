"""Continues prompts with a trained decoder.

python -m pretrain.generate --checkpoint=runs/gpt-tiny --prompt="The city of"
"""

from pathlib import Path

import jax
import numpy as np
from absl import flags

from pretrain import assembly, commandline
from pretrain.errors import UserError
from pretrain.model import decoding

BATCH = 32  # prompts at once


def define_flags():
    """The flags of the command; not at the top, because train.py imports this module."""
    flags.DEFINE_string('checkpoint', None, 'Folder of a run.', required=True)
    flags.DEFINE_integer('step', None, 'Step of the checkpoint; default: the newest whole one.')
    flags.DEFINE_string('prompt', None, 'Text to continue; may be empty.')
    flags.DEFINE_string('prompts_file', None, 'File of prompts, one a line.')
    flags.DEFINE_integer('tokens', 100, 'Tokens to make.')
    flags.DEFINE_float('temperature', 0.8, '0: the likeliest token each time (greedy).')
    flags.DEFINE_integer('top_k', 40, 'Draw from the k likeliest tokens; 0: from all.')
    flags.DEFINE_float('top_p', 1.0, 'Draw from the fewest tokens with this probability.')
    flags.DEFINE_integer('seed', 0, 'Of the random choices.')


def continue_texts(
    transformer, params, tokens, prompts, key, *, new_tokens, temperature=0.0, top_k=0, top_p=1.0
):
    """Continues texts.

    Args:
        transformer, params: of a decoder.
        tokens: Tokenizer.
        prompts: list of str; an empty one begins a new document.
        key: of the random choices.
        new_tokens, temperature, top_k, top_p: see decoding.generate.

    Returns:
        List of str: what follows each prompt, up to the end of the document.

    Raises:
        UserError: prompt and new tokens are more than the model has positions.
    """
    vocabulary = tokens.vocabulary
    ids = [tokens.encode(p) if p else np.array([vocabulary.eos]) for p in prompts]
    width = max(map(len, ids))
    config = transformer.config
    if config.positions == 'learned' and width + new_tokens > config.max_positions:
        raise UserError(
            f'{width} tokens of prompt and {new_tokens} new ones are more than the '
            f"model's {config.max_positions} positions: shorten the prompt or --tokens"
        )
    padded = np.full((len(ids), width), vocabulary.pad, np.int32)
    for row, prompt in zip(padded, ids):
        row[width - len(prompt) :] = prompt
    made_BxN = decoding.generate(
        transformer, params, padded, np.array([len(p) for p in ids]), key,
        new_tokens=new_tokens, vocabulary_size=vocabulary.size, eos=vocabulary.eos,
        temperature=temperature, top_k=top_k, top_p=top_p,
    )  # fmt: skip
    texts = []
    for row in np.asarray(made_BxN):
        ends = np.flatnonzero(row == vocabulary.eos)
        texts.append(tokens.decode(row[: ends[0]] if len(ends) else row))
    return texts


def main(argv):
    """Prints each prompt with its continuation."""
    if len(argv) > 1:
        raise UserError(f'unknown argument {argv[1]!r}: texts go behind --prompt=')
    f = flags.FLAGS
    prompts = read_prompts(f.prompt, f.prompts_file)
    for name, ok in (
        ('tokens', f.tokens >= 1),
        ('temperature', f.temperature >= 0),
        ('top_k', f.top_k >= 0),
        ('top_p', 0 < f.top_p <= 1),
    ):
        if not ok:
            raise UserError(f'--{name}={f[name].value} is out of range')
    run = assembly.open_run(f.checkpoint, step=f.step)
    module = run.learner.transformers.get('model')
    if module is None or module.config.encoder_layers:
        raise UserError(f'{f.checkpoint!r} holds no decoder that stands alone')
    for first in range(0, len(prompts), BATCH):
        part = prompts[first : first + BATCH]
        texts = continue_texts(
            module, run.params['model'], run.tokenizer, part,
            jax.random.fold_in(jax.random.key(f.seed), first),
            new_tokens=f.tokens, temperature=f.temperature, top_k=f.top_k, top_p=f.top_p,
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
    define_flags()
    commandline.run(main)
