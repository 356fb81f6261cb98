"""From a folder in the Hugging Face layout to a run's folder."""

import os
from pathlib import Path

import jax
import numpy as np

from pretrain import assembly, train_step
from pretrain.data import tokenizer as tokenizers
from pretrain.errors import UserError
from pretrain.huggingface import recipe, run, tokenizer_files
from pretrain.huggingface.reading import read_model, read_raw

ROOM = 1024  # rows of a table without an id; some publishers round up to so many


def import_run(source, workdir, generator='', tokenizer='', length=0, progress=lambda names: names):
    """Makes a run's folder of a checkpoint.

    Args:
        source: folder in the Hugging Face layout. workdir: the run's folder to make.
        generator: folder of ELECTRA's generator, where `source` is its discriminator: both
            together make a run that trains on.
        tokenizer: file or folder of the tokenizer; '': it lies in `source`.
        length: of the objective's rows; 0: what the model was made for.
        progress: wraps names of tensors as they are read (tqdm).

    Returns:
        What was read, as text: a line a model, one for each tensor that was left out, warnings.

    Raises:
        UserError: something is missing, damaged or not supported; no folder is left then.
    """
    with run.new_folder(workdir) as unfinished:
        raw = read_raw(source)
        tokens = _read_tokenizer(tokenizer or source, raw)
        _check_start(source, raw, tokens.vocabulary)
        model = read_model(source, progress)
        models = {'model': model}
        if generator:
            models = {'discriminator': model, 'generator': read_model(generator, progress)}
            _check_parts(source, generator, models)
        config = recipe.make(
            model.raw, model.config, workdir, tokens.file, length,
            models['generator'].config if generator else None,
        )  # fmt: skip
        try:
            learner = assembly.make_learner(config, tokens.vocabulary, frozen=False)
        except UserError as error:
            if 'tokenizer' not in str(error):
                raise
            reason = str(error).partition(': data.tokenizer')[0].partition(': set it to 0')[0]
            raise UserError(
                f'{str(source)!r} and the tokenizer in {str(tokenizer or source)!r} do not go '
                f'together: {reason}: give the one that belongs to it with --tokenizer=FILE'
            ) from None
        report = _summary(models, tokens, workdir)  # before what the parts share is dropped
        params = {name: part.params for name, part in models.items()}
        for name, (owner, shared) in learner.objective.shared.items():
            _drop_shared(generator, params, name, owner, shared)
        _check_tree(params, jax.eval_shape(lambda: train_step.draw_params(learner)))
        run.write(unfinished, config, tokens, params)
    return report


def _read_tokenizer(path, raw):
    """The tokenizer of a folder in the Hugging Face layout, of a run's, or of one file."""
    folder = Path(path)
    if folder.is_file() or (folder / 'tokenizer.model').is_file():
        return tokenizers.load(folder)
    return tokenizer_files.read(folder, raw)


def _check_start(source, raw, vocabulary):
    start = raw.get('decoder_start_token_id')
    if raw.get('model_type') == 't5' and start not in (None, vocabulary.pad):
        raise UserError(
            f'{str(source)!r}: its decoder starts with id {start!r} (decoder_start_token_id), and '
            f'only the pad id, {vocabulary.pad}, is supported'
        )


def _check_parts(source, generator, models):
    discriminator, other = models['discriminator'].config, models['generator'].config
    if not discriminator.token_scores:
        raise UserError(f'{source!r} is no discriminator of an ELECTRA: its head is not there')
    if not other.token_head or other.token_scores:
        raise UserError(f'--generator={generator!r} is no generator of an ELECTRA')


def _drop_shared(folder, params, name, owner, shared):
    """Takes away what one part has from the other, and proves that it was the same."""
    for part in shared:
        if part not in params[name]:
            continue
        same = jax.tree.map(np.array_equal, params[name].pop(part), params[owner][part])
        if not all(jax.tree.leaves(same)):
            raise UserError(
                f'--generator={folder!r}: its {part} is not that of the discriminator, and they '
                'share it: give two parts of one ELECTRA'
            )


def _check_tree(params, wanted):
    """The config that was made must make the very tree that was read."""
    shapes = jax.tree.map(np.shape, params)
    if shapes != jax.tree.map(np.shape, wanted):
        raise AssertionError(f'the recipe makes other parameters than were read: {shapes}')


def _warnings(models, tokens):
    """What a user should know, a line each."""
    lines = []
    for name, model in models.items():
        rows, ids = model.config.vocabulary, tokens.vocabulary.size
        if rows - ids > ROOM:
            lines.append(
                f'warning: the tokenizer has {ids:,} ids and the {name} a table of {rows:,} rows: '
                'is it the one that belongs to it?'
            )
        if model.pickled:
            lines.append('warning: read from pytorch_model.bin, a pickle, as weights alone')
        ends = model.raw.get('eos_token_id')
        if isinstance(ends, list) and len(ends) > 1:
            lines.append(
                f'warning: config.json ends texts at the ids {ends}, here {tokens.vocabulary.eos} '
                'alone does'
            )
        if not (model.config.token_head or model.config.token_scores):
            lines.append(
                'warning: it has no head for the vocabulary, so it neither predicts tokens nor is '
                'evaluated; it can be written, and trained on with --config.model.token_head=True, '
                'which draws a new head'
            )
    return lines


def _summary(models, tokens, workdir):
    lines = []
    for name, model in models.items():
        count = sum(x.size for x in jax.tree.leaves(model.params))
        lines.append(
            f'{name}: {model.family.model_type}, {model.used} tensors, {count:,} parameters'
        )
        lines += [f'  left out {tensor}: {why}' for tensor, why in model.left_out.items()]
    return '\n'.join([*_warnings(models, tokens), *lines, f'wrote {os.fspath(Path(workdir))}'])
