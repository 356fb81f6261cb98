"""The model card (README.md) of an exported run: what it is, how it was made, how good it is."""

import json

from pretrain import run_log

_AUTO = {
    'GPT2LMHeadModel': 'AutoModelForCausalLM',
    'LlamaForCausalLM': 'AutoModelForCausalLM',
    'Qwen3ForCausalLM': 'AutoModelForCausalLM',
    'BertForPreTraining': 'AutoModelForPreTraining',
    'BertForMaskedLM': 'AutoModelForMaskedLM',
    'BertForNextSentencePrediction': 'AutoModelForNextSentencePrediction',
    'DistilBertForMaskedLM': 'AutoModelForMaskedLM',
    'ElectraForMaskedLM': 'AutoModelForMaskedLM',
    'ElectraForPreTraining': 'AutoModelForPreTraining',
    'T5ForConditionalGeneration': 'AutoModelForSeq2SeqLM',
}


def auto_class(name):
    """The Auto class of transformers that loads a class of it with its heads."""
    return _AUTO.get(name, 'AutoModel')


def text(config, raw, head, source, step):
    """The card.

    Args:
        config: of the run. raw: the config.json that goes with the card. head: family.Head.
        source: the run's folder. step: of the checkpoint.
    """
    auto = auto_class(head.name)
    lines = [
        '---',
        'library_name: transformers',
        'tags:',
        '- pretraining-objectives',
        f'- {raw["model_type"]}',
        '---',
        '',
        f'# {head.name} trained on {config.objective.name}',
        '',
        f'Step {step:,} of {config.steps:,}, {config.batch_size} windows a step, text from '
        f'`{config.data.source}`, optimizer {config.optimizer.name}, seed {config.seed}. Written '
        'by Pretraining objectives (JAX, Flax).',
        '',
        '```python',
        f'from transformers import {auto}, AutoTokenizer',
        '',
        "tokenizer = AutoTokenizer.from_pretrained('FOLDER')",
        f"model = {auto}.from_pretrained('FOLDER')",
        '```',
        '',
    ]
    figures = _figures(source, step)
    if figures:
        lines += ['## Figures', '', f'At step {figures.pop("step"):,}:', '', '| | |', '|---|---|']
        lines += [f'| {name.replace("_", " ")} | {value:.4f} |' for name, value in figures.items()]
        lines += ['']
    lines += ['## Config of the run', '', '```json']
    lines += [json.dumps(config.to_dict(), indent=1), '```', '']
    return '\n'.join(lines)


def _figures(source, step):
    """The last validation up to the step, {'step': ..., name: number}; {} where there was none."""
    rows = run_log.read_rows(source)
    rows = [r for r in rows if r['step'] <= step and any('validation' in name for name in r)]
    if not rows:
        return {}
    shown = {n: v for n, v in rows[-1].items() if n == 'step' or n.startswith('validation_')}
    return {n: v for n, v in shown.items() if isinstance(v, (int, float))}
