"""The config of a run that is made from a checkpoint in the Hugging Face layout."""

import dataclasses

from configs import objectives
from configs.recipe import recipe
from pretrain.errors import UserError

LENGTH = 512  # of rows, where the model sets none and the user asks for none


def make(raw, fields, workdir, tokenizer_file, length=0, generator=None):
    """A ConfigDict that generate, evaluate, distillation and training take.

    Args:
        raw: the parsed config.json. fields: TransformerConfig of the model (of ELECTRA's
            discriminator where there are both parts).
        workdir: of the run, which a new run starts from. tokenizer_file: its name in there.
        length: of the objective's rows; 0: what the model was made for.
        generator: TransformerConfig of ELECTRA's generator, or None.

    Raises:
        UserError: the two parts do not go together.
    """
    config = recipe()
    own = dataclasses.asdict(fields)
    config.model.update({name: own[name] for name in config.model})
    made_for = fields.max_positions if fields.positions == 'learned' else 0
    said = raw.get('max_position_embeddings')
    said = said if isinstance(said, int) and said > 1 else LENGTH
    if fields.positions == 'rotary':
        config.model.max_positions = said  # nothing reads it but an export
    length = length or min(made_for or said, 1024)
    pairs = fields.classes == 2
    if generator is not None:
        config.objective = objectives.replaced_token(length)
        config.model.update(token_head=True, token_scores=False)  # the objective says whose
        config.generator = _generator(fields, generator)
    elif fields.decoder_layers and fields.encoder_layers:
        config.objective = objectives.span_corruption(length)
    elif fields.decoder_layers:
        config.objective = objectives.causal_lm(length)
    else:
        section = objectives.next_sentence if pairs else objectives.masked_lm
        config.objective = section(length)
    if fields.encoder_layers:
        config.data.separator = False
    if pairs:
        config.data.cut = 'document'
    # A run on this config trains on from these weights.
    config.init_from = str(workdir)
    config.data.tokenizer = f'{workdir}/{tokenizer_file}'
    config.optimizer.update(learning_rate=1e-4, weight_decay=0.01)
    config.optimizer.schedule.warmup = 100.0
    config.name = f'from {raw["model_type"]}'
    config.model_type = raw['model_type']  # the family that it is written as, if it still fits
    return config


def _generator(discriminator, generator):
    """What the generator's config has of its own."""
    ours, theirs = dataclasses.asdict(generator), dataclasses.asdict(discriminator)
    heads = ('token_head', 'token_scores', 'tied', 'logit_transform', 'logit_bias', 'pooler')
    changed = {k: v for k, v in ours.items() if v != theirs[k] and k not in heads}
    for name in ('vocabulary', 'embedding_width', 'max_positions', 'segment_types'):
        if name in changed:
            raise UserError(
                f'the generator has {name}={ours[name]} and the discriminator {theirs[name]}: '
                'they share their tables, give two parts of one ELECTRA'
            )
    return changed
