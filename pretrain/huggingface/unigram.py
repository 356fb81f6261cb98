"""A SentencePiece unigram model as the dict of a tokenizer.json, with the same ids.

What differs between the two libraries, and how the ids come out the same:

- SentencePiece never finds special and byte pieces by their names in a text; `tokenizers` does, and
  their score of 0 beats all others. Here they score less than any other way to write the name.
  Where a character of the name is not in the vocabulary that does not help, as unknown characters
  score less still: the text is cut at that character, which no piece holds, so the cut changes
  nothing.
- Spaces are written U+2581 by a normaliser, so a U+2581 of the text is a space, as in
  SentencePiece.
- Sentinels are added tokens above the pieces, in the order of their ids.
- SentencePiece adds up scores in float32 along the whole text, `tokenizers` in float64: where two
  ways to split a word score nearly the same the ids may differ, late in long texts. So ours are
  encoded line by line (data/tokenizer.py), after which none of 236 articles of Wikipedia differs
  (benchmarks/real_tokenizers.py).
- The tables of NFKC (T5's model; ours normalises nothing) are looked up by `tokenizers` for a
  character with its combining marks as a whole, so that marks on characters that the tables change
  (a no-break space) may come out otherwise.
"""

import base64
import itertools
import re

from pretrain.errors import UserError

UNIGRAM = 1  # of TrainerSpec.model_type
NORMAL, UNKNOWN, CONTROL, BYTE = 1, 2, 3, 6  # of the types of pieces
BLOCK = '\u2581'


def convert(tokens):
    """The dict of a tokenizer.json, without a post-processor.

    Args:
        tokens: tokenizer.Tokenizer.

    Raises:
        UserError: the model is of a kind that has no exact counterpart.
    """
    from sentencepiece import sentencepiece_model_pb2

    proto = sentencepiece_model_pb2.ModelProto.FromString(tokens.model)
    trainer, normalizer = proto.trainer_spec, proto.normalizer_spec
    if (
        trainer.model_type != UNIGRAM
        or trainer.treat_whitespace_as_suffix
        or not normalizer.escape_whitespaces
        or {piece.type for piece in proto.pieces} - {NORMAL, UNKNOWN, CONTROL, BYTE}
    ):
        raise UserError(
            'a SentencePiece model can be written as a tokenizer.json only if it is a unigram '
            'model with ordinary, control and byte pieces alone'
        )
    normal = [piece for piece in proto.pieces if piece.type == NORMAL]
    names = [piece.piece for piece in proto.pieces if piece.type != NORMAL]
    low = min(piece.score for piece in normal) * (2 + max(map(len, names))) - 1
    vocab = [[p.piece, p.score if p.type == NORMAL else low] for p in proto.pieces]
    prefix = normalizer.add_dummy_prefix
    splits = prefix and not any(BLOCK in piece.piece[1:] for piece in normal)
    steps = [_metaspace(splits)] if prefix else []
    steps += _cuts(names, {piece.piece for piece in normal if len(piece.piece) == 1})
    return {
        'version': '1.0',
        'truncation': None,
        'padding': None,
        'added_tokens': [
            {
                'id': i, 'content': name, 'single_word': False, 'lstrip': before,
                'rstrip': behind, 'normalized': False, 'special': True,
            }
            for name, (i, before, behind) in sorted(tokens.specials.items(), key=lambda x: x[1])
        ],
        'normalizer': {'type': 'Sequence', 'normalizers': _normalizers(normalizer)},
        'pre_tokenizer': {'type': 'Sequence', 'pretokenizers': steps} if steps else None,
        'post_processor': None,
        'decoder': {'type': 'Sequence', 'decoders': _decoders(prefix, trainer.byte_fallback)},
        'model': {
            'type': 'Unigram',
            'unk_id': tokens.vocabulary.unk,
            'vocab': vocab,
            'byte_fallback': trainer.byte_fallback,
        },
    }  # fmt: skip


def _normalizers(spec):
    steps = []
    if spec.precompiled_charsmap:
        table = base64.b64encode(spec.precompiled_charsmap).decode()
        steps.append({'type': 'Precompiled', 'precompiled_charsmap': table})
    if spec.remove_extra_whitespaces:
        # With a space before every text those at its start are the one.
        left = not spec.add_dummy_prefix
        steps.append({'type': 'Strip', 'strip_left': left, 'strip_right': True})
        steps.append({'type': 'Replace', 'pattern': {'Regex': ' {2,}'}, 'content': BLOCK})
    return [*steps, {'type': 'Replace', 'pattern': {'String': ' '}, 'content': BLOCK}]


def _metaspace(splits):
    return {
        'type': 'Metaspace', 'replacement': BLOCK, 'prepend_scheme': 'always', 'split': splits,
    }  # fmt: skip


def _cuts(names, known):
    """Pre-tokenizers that cut the names with a character that is not in the vocabulary."""
    cuts = {}
    for name in names:
        inside = [character in known for character in name]
        if not all(inside):
            # Two unknown characters are one token: they are not parted where that can be helped.
            borders = [i for i, (a, b) in enumerate(itertools.pairwise(inside), 1) if a != b]
            cut = borders[0] if borders else 1
            cuts.setdefault(name[:cut], []).append(re.escape(name[cut:]))
    pattern = '|'.join(f'{re.escape(a)}(?={"|".join(b)})' for a, b in cuts.items())
    split = {
        'type': 'Split', 'pattern': {'Regex': pattern}, 'behavior': 'MergedWithPrevious',
        'invert': False,
    }  # fmt: skip
    return [split] if cuts else []


def _decoders(prefix, byte_fallback):
    steps = [{'type': 'Replace', 'pattern': {'String': BLOCK}, 'content': ' '}]
    steps += [{'type': 'ByteFallback'}] * byte_fallback + [{'type': 'Fuse'}]
    return steps + [{'type': 'Strip', 'content': ' ', 'start': 1, 'stop': 0}] * prefix
