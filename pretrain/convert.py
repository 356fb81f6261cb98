"""Published weights in, results out: the Hugging Face layout of GPT-2, BERT, DistilBERT, ELECTRA,
T5 and Llama.

    python -m pretrain.convert --from_huggingface=DIR --workdir=runs/bert
    python -m pretrain.convert --to_huggingface=DIR --checkpoint=runs/bert
"""

import signal
import sys

from absl import flags
from tqdm import tqdm

from pretrain import commandline
from pretrain.errors import UserError

FROM = flags.DEFINE_string(
    'from_huggingface', '', 'Folder with config.json, weights and tokenizer.'
)
WORKDIR = flags.DEFINE_string('workdir', '', 'Folder of the run to make of it.')
GENERATOR = flags.DEFINE_string(
    'generator', '', "Folder of ELECTRA's generator, beside its discriminator."
)
TOKENIZER = flags.DEFINE_string(
    'tokenizer', '', "File or folder of the tokenizer; default: the checkpoint's own folder."
)
LENGTH = flags.DEFINE_integer(
    'length', 0, 'Tokens of a row in the run; default: what the model was made for, at most 1024.'
)
TO = flags.DEFINE_string('to_huggingface', '', 'Folder to make of a run.')
CHECKPOINT = flags.DEFINE_string('checkpoint', '', 'Folder of the run.')
STEP = flags.DEFINE_integer('step', None, 'Of the checkpoint; default: the newest whole one.')


def main(argv):
    """Converts in the direction that the flags say."""
    if len(argv) > 1:
        raise UserError(f'unknown argument {argv[1]!r}')
    if bool(FROM.value) == bool(TO.value):
        raise UserError(
            'give either --from_huggingface=DIR --workdir=RUN or --to_huggingface=DIR '
            '--checkpoint=RUN'
        )
    if FROM.value:
        way, folder, others = FROM, WORKDIR, (CHECKPOINT, STEP)
    else:
        way, folder, others = TO, CHECKPOINT, (WORKDIR, GENERATOR, TOKENIZER, LENGTH)
    if not folder.value:
        raise UserError(f'--{folder.name} is missing: name the folder of the run')
    for flag in others:
        if flag.present:
            raise UserError(f'--{flag.name} does not go with --{way.name}: leave it out')

    # A kill takes the way of an error, which leaves no half-made folder.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
    # Here and not above: jax and the tokenizers' libraries take seconds, --help should not.
    if FROM.value:
        from pretrain.huggingface import importing

        if LENGTH.value < 0:
            raise UserError(f'--length={LENGTH.value} must be at least 1')
        print(
            importing.import_run(
                FROM.value, WORKDIR.value, GENERATOR.value, TOKENIZER.value, LENGTH.value, _bar
            )
        )
    else:
        from pretrain.huggingface import exporting

        print(exporting.export_run(CHECKPOINT.value, TO.value, STEP.value, _bar))


def end(number, frame):
    """Ends the program as an error does."""
    print(f'\n{signal.Signals(number).name}: nothing is kept', file=sys.stderr)
    sys.exit(128 + number)


def _bar(names):
    return tqdm(names, desc='tensors', unit='tensor', mininterval=0.5)


if __name__ == '__main__':
    commandline.run(main)
