"""From a run's folder to a folder in the Hugging Face layout.

Memory: one copy of the weights under their names, and one of our stacked parameters.
"""

import functools
import json
from pathlib import Path

import numpy as np

from pretrain import assembly, commandline, restoration, saved_run
from pretrain.errors import UserError
from pretrain.huggingface import card, families, family, run, tokenizer_files, weights


def export_run(source, folder, step=None, progress=lambda names: names):
    """Writes a run's model: config.json, safetensors, tokenizer and a model card.

    Of ELECTRA's two parts the discriminator goes into the folder, the generator into `generator`
    in it; of a distillation the student.

    Args:
        source: the run's folder. folder: to make. step: of the checkpoint; None: the newest
            whole one.
        progress: wraps the paths of parameters as they are read (tqdm).

    Returns:
        What was written, as text.

    Raises:
        UserError: no family computes this model, or something is missing or damaged; no folder is
            left then.
    """
    config = commandline.read_run_config(source)
    step = restoration.newest_whole(source) if step is None else step
    tokens, _ = saved_run.open_tokenizer(source, config, step)
    saved_run.refuse_task_head(source, config)
    learner = assembly.make_learner(config, tokens.vocabulary, frozen=False)
    first = 'electra' if 'discriminator' in learner.transformers else config.get('model_type', '')
    found = {
        name: families.find(module.config, first) for name, module in learner.transformers.items()
    }
    for name, module in learner.transformers.items():
        alone = module.config.decoder_layers and not module.config.encoder_layers
        if alone and learner.objective.prompt != 'causal':
            raise UserError(
                f'{str(source)!r}: its {name}, a decoder, trained on {config.objective.name!r}, '
                'which reads in both directions: no Hugging Face family of decoders does'
            )
    lines = []
    with run.new_folder(folder) as unfinished:
        for name, (kind, raw, head, _) in found.items():
            into = unfinished / 'generator' if name == 'generator' else unfinished
            into.mkdir(exist_ok=True)
            module = learner.transformers[name]
            length = _length(config, module.config)
            raw = _with_tokens(raw, module.config, tokens.vocabulary, length)
            (into / 'config.json').write_text(json.dumps(raw, indent=2) + '\n')
            if module.config.decoder_layers:
                said = _generation(raw, tokens.vocabulary)
                (into / 'generation_config.json').write_text(json.dumps(said, indent=2) + '\n')
            read = functools.partial(_read, source, step, name, learner.objective.shared.get(name))
            tensors, others = named_tensors(kind, module.config, head, read, progress)
            weights.write(into / weights.SAFETENSORS, tensors)
            types = module.config.segment_types > 0
            tokenizer_files.write(tokens, into, _stacks(module.config), length, types)
            (into / 'README.md').write_text(card.text(config, raw, head, source, step))
            count = sum(x.size for x in tensors.values())
            lines.append(
                f'{name}: {head.name}, {len(tensors)} tensors, {count:,} parameters'
                + (f', into {Path(folder) / "generator"}' if name == 'generator' else '')
            )
            del tensors
            lines += [f'  left out {path}: {head.name} has no place for it' for path in others]
    return '\n'.join([*lines, f'wrote {folder}'])


def _length(config, fields):
    """Tokens that the exported model says it takes."""
    if fields.positions == 'learned':
        return fields.max_positions
    length = config.objective.get('length', 0) or config.objective.get('inputs_length', 0)
    return max(length, fields.max_positions if fields.positions == 'rotary' else 512)


def _stacks(fields):
    names = [name for name in ('encoder', 'decoder') if getattr(fields, f'{name}_layers')]
    return '_'.join(names)


def _with_tokens(raw, fields, vocabulary, length):
    """config.json with the special ids, and the length where no table of positions says it."""
    raw = raw | {'pad_token_id': vocabulary.pad, 'dtype': 'float32'}
    if fields.decoder_layers:
        raw |= {'eos_token_id': vocabulary.eos}
        bos = vocabulary.eos if vocabulary.bos is None else vocabulary.bos
        raw |= {'bos_token_id': bos} if not fields.encoder_layers else {}
    if fields.decoder_layers and fields.encoder_layers:
        raw |= {'decoder_start_token_id': vocabulary.pad, 'is_encoder_decoder': True}
    if fields.positions == 'rotary':
        raw |= {'max_position_embeddings': length}
    return raw


def _generation(raw, vocabulary):
    """generation_config.json: special ids, and the rows of the table that no piece has."""
    names = ('bos_token_id', 'eos_token_id', 'pad_token_id', 'decoder_start_token_id')
    said = {name: raw[name] for name in names if name in raw}
    unused = list(range(vocabulary.size, raw['vocab_size']))
    return said | ({'suppress_tokens': unused} if unused else {})


def _read(source, step, name, shared, path):
    """A parameter of the model `name`, which may be lent by another."""
    owner, parts = shared or (name, ())
    name = owner if path.split('/')[0] in parts else name
    return run.read_array(source, f'{name}/{path}', step)


def named_tensors(kind, config, head, read, progress=lambda groups: groups):
    """A model's tensors under the names of a family.

    Args:
        kind: family.Family. config: TransformerConfig. head: family.Head.
        read: path of a parameter -> numpy array; it is let go before the next one is read.
        progress: wraps what is gone through (tqdm).

    Returns:
        ({name: contiguous float32 array}, paths of parameters that have no place there).
    """
    wanted = family.tensors(kind, config, head)
    by_paths = {}
    for tensor in wanted:
        by_paths.setdefault(tensor.paths, []).append(tensor)
    found = {}
    for paths, group in progress(list(by_paths.items())):
        arrays = [read(path) for path in paths]
        for tensor in group:
            parts = arrays if tensor.layer is None else [a[tensor.layer] for a in arrays]
            whole = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)
            whole = whole.T if tensor.turned else whole
            if whole.shape != tensor.shape:
                raise UserError(
                    f'{tensor.name} would be {whole.shape} and should be {tensor.shape}: the parts '
                    'of this model do not fit each other'
                )
            found[tensor.name] = np.array(whole, np.float32, order='C')  # lets the parameter go
    read_paths = {path for paths in by_paths for path in paths}
    others = [path for path in family.parameter_shapes(config) if path not in read_paths]
    return {tensor.name: found[tensor.name] for tensor in wanted}, others
