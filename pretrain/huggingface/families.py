"""The families of the Hugging Face layout that convert, by their model_type."""

from pretrain.errors import UserError
from pretrain.huggingface.bert import BERT, DISTILBERT, ELECTRA
from pretrain.huggingface.family import Unfit, write_config
from pretrain.huggingface.gpt2 import GPT2
from pretrain.huggingface.llama import LLAMA, QWEN3
from pretrain.huggingface.t5 import T5

FAMILIES = {
    family.model_type: family for family in (GPT2, BERT, DISTILBERT, ELECTRA, T5, LLAMA, QWEN3)
}


def find(config, first=''):
    """The family that computes what a model of ours computes.

    Args:
        config: TransformerConfig. first: a model_type to try before the others.

    Returns:
        (Family, its config.json as a dict, Head, fields that the head leaves out).

    Raises:
        UserError: there is none; for each of the nearest it says what is in the way.
    """
    reasons = {}
    for name in sorted(FAMILIES, key=lambda name: name != first):
        try:
            return FAMILIES[name], *write_config(FAMILIES[name], config)
        except Unfit as unfit:
            reasons[name] = str(unfit)
    # Families of other stacks are no help.
    near = {n: r for n, r in reasons.items() if 'er_layers' not in r and 'has an encoder' not in r}
    said = '; '.join(f'{name}: {reason}' for name, reason in (near or reasons).items())
    raise UserError(f'no Hugging Face family computes this model ({said})')
