"""Tokenizers in the Hugging Face layout: read from a folder, written into one."""

import json
import re
from pathlib import Path

from pretrain.data import tokenizer
from pretrain.data.fast_tokenizer import ROLES, FastTokenizer, usual_roles, with_roles
from pretrain.data.shards import write_whole
from pretrain.errors import UserError
from pretrain.huggingface import unigram

ACCEPTED = 'tokenizer.json, vocab.txt, vocab.json with merges.txt, or spiece.model'
# A list of byte-level pieces and the file of its merges; the second pair as OpenAI published it.
BYTE_PAIRS = (('vocab.json', 'merges.txt'), ('encoder.json', 'vocab.bpe'))
LISTS = ('vocab.txt', *(name for pair in BYTE_PAIRS for name in pair))
OPTIONS = ('tokenizer_config.json', 'special_tokens_map.json', 'added_tokens.json')
FAMILIES = ('encoder', 'encoder_decoder', 'decoder')
MARKED = re.compile(r'[<\[].+[>\]]')  # looks like the name of a special token


def is_in(folder):
    """Whether a folder holds a tokenizer in the Hugging Face layout."""
    there = {path.name for path in folder.iterdir()}
    lists = {'vocab.txt'}, {'spiece.model'}, {'tokenizer.json', OPTIONS[0]}, *map(set, BYTE_PAIRS)
    return any(names <= there for names in lists)


def read(folder, config=None, only=()):
    """The tokenizer of a published checkpoint.

    A spiece.model that normalises nothing is one of ours and read as it is. Of another (T5's) we
    make what transformers makes of it, though SentencePiece itself is six times as fast: they
    differ in a few of a million tokens (benchmarks/real_tokenizers.py, and why: unigram.py). Who
    wants SentencePiece's own ids gives --tokenizer=spiece.model.

    Args:
        folder: of the checkpoint. config: dict of its config.json; None to read it there.
        only: names of the files that may be read, beside those of OPTIONS; () for all.

    Returns:
        FastTokenizer, or tokenizer.Tokenizer for a spiece.model of ours.

    Raises:
        UserError: there is no tokenizer, or a file is damaged.
    """
    folder = Path(folder)
    there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    there = {name for name in there if not only or name in (*only, *OPTIONS)}
    pair = next((pair for pair in BYTE_PAIRS if there.issuperset(pair)), None)
    if {'spiece.model', 'tokenizer.json'} <= there:
        pieces = tokenizer.load(folder / 'spiece.model')
        if _is_lossless(pieces):
            return pieces
    options = _read_json(folder / 'tokenizer_config.json', there)
    named = _read_json(folder / 'special_tokens_map.json', there)
    config = _read_json(folder / 'config.json', there) if config is None else config
    if 'tokenizer.json' in there:
        source, facts = 'tokenizer.json', _read_json(folder / 'tokenizer.json', there)
    elif 'vocab.txt' in there:
        source, facts = 'vocab.txt', _word_pieces(folder / 'vocab.txt', options)
    elif pair:
        source, facts = pair[0], _byte_pairs(folder, pair, options)
    elif 'spiece.model' in there:
        return _from_pieces(tokenizer.load(folder / 'spiece.model'))
    else:
        raise UserError(
            f'{str(folder)!r} holds no tokenizer ({ACCEPTED}): give one with --tokenizer=FILE'
        )
    try:
        if source != 'tokenizer.json':
            facts['added_tokens'] = _added(folder, there, facts, options, named)
        roles = _roles(facts, [named, options], config)
        if source != 'tokenizer.json':
            facts['post_processor'] = _own_template(source, facts, roles, options)
        return FastTokenizer(with_roles(facts, roles))
    except UserError as error:
        raise UserError(f'{str(folder / source)!r} {error}') from None
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(
            f'{str(folder / source)!r}, or a file of special tokens beside it, is damaged '
            f'({type(error).__name__}: {error})'
        ) from None


def read_list(path):
    """The tokenizer of a list of pieces, one of LISTS, and of what lies beside it.

    Args:
        path: of vocab.txt, or of either file of a pair of BYTE_PAIRS.

    Returns:
        FastTokenizer.

    Raises:
        UserError: the other file of the pair is not there, or one is damaged.
    """
    pair = next((pair for pair in BYTE_PAIRS if path.name in pair), (path.name,))
    missing = next((name for name in pair if not (path.parent / name).exists()), None)
    if missing:
        raise UserError(
            f'{str(path)!r} is one half of a tokenizer, {str(path.parent / missing)!r} is not there'
        )
    return read(path.parent, {}, pair)


def write(tokens, folder, family, length, types=True):
    """Writes tokenizer.json and tokenizer_config.json, which transformers' AutoTokenizer loads.

    Its ids are ours, with one difference that is the custom there: names of special tokens inside
    raw text ('</s>', '[MASK]') become those tokens, as with our encode(text, specials=True), unless
    it is called with split_special_tokens=True. A SentencePiece model is written as spiece.model
    beside them.

    Args:
        tokens: FastTokenizer or tokenizer.Tokenizer.
        folder: exists.
        family: 'encoder': [CLS] A [SEP] B [SEP]. 'encoder_decoder': A eos B eos. 'decoder': A, with
            bos before it where the vocabulary has one. A tokenizer that came with special tokens of
            its own around a text keeps them.
        length: tokens that the model takes at most.
        types: whether the encoder takes the numbers of the two texts (BERT yes, DistilBERT no).

    Raises:
        UserError: the SentencePiece model has no exact counterpart.
    """
    if family not in FAMILIES:
        raise ValueError(family)
    v = tokens.vocabulary
    if isinstance(tokens, FastTokenizer):
        facts, roles = tokens.library_file, tokens.roles
    else:
        facts, roles = unigram.convert(tokens), _roles_of_pieces(tokens)
    if facts.get('post_processor') is None:
        facts['post_processor'] = _template(facts, roles, family, v.bos is not None)
    numbers = ['token_type_ids'] if family == 'encoder' and types else []
    known = {a['content'] for a in facts['added_tokens'] if a['special']}
    options = {f'{role}_token': name for role, name in roles.items()} | {
        'additional_special_tokens': sorted(known - set(roles.values())),
        'clean_up_tokenization_spaces': False,
        'model_input_names': ['input_ids', *numbers, 'attention_mask'],
        'model_max_length': length,
        'tokenizer_class': 'PreTrainedTokenizerFast',
    }
    for name, content in (('tokenizer.json', facts), ('tokenizer_config.json', options)):
        with write_whole(Path(folder) / name) as file:
            file.write(json.dumps(content, ensure_ascii=False, indent=1).encode())
    if not isinstance(tokens, FastTokenizer):
        with write_whole(Path(folder) / 'spiece.model') as file:
            file.write(tokens.model)


def _roles_of_pieces(tokens):
    """{role: name} of a SentencePiece tokenizer."""
    names = {i: name for name, (i, *_) in tokens.specials.items()}
    ids = {role: getattr(tokens.vocabulary, role) for role in ROLES}
    return {role: names[i] for role, i in ids.items() if i in names}


def _from_pieces(tokens):
    """The tokenizer that transformers makes of a spiece.model; one of ours as it is."""
    if _is_lossless(tokens):
        return tokens
    facts, roles = unigram.convert(tokens), _roles_of_pieces(tokens)
    facts['post_processor'] = _template(facts, roles, 'encoder_decoder', False)
    return FastTokenizer(with_roles(facts, roles))


def _is_lossless(pieces):
    text = ' \u00a0e\u0301  ﬁ '
    return pieces.decode(pieces.encode(text)) == text


def _read_json(path, there):
    """The object in a file; {} where there is no file."""
    if path.name not in there:
        return {}
    try:
        value = json.loads(path.read_text(encoding='utf-8'))
    except (ValueError, OSError) as error:
        raise UserError(f'{str(path)!r} is damaged ({error}): fetch it again') from None
    if not isinstance(value, dict):
        raise UserError(f'{str(path)!r} is damaged (it holds no JSON object): fetch it again')
    return value


def _lines(path):
    try:
        with open(path, encoding='utf-8') as file:
            return [line.removesuffix('\n') for line in file]
    except (ValueError, OSError) as error:
        raise UserError(f'{str(path)!r} is damaged ({error}): fetch it again') from None


def _file(model, normalizer, pre_tokenizer, decoder):
    return {
        'version': '1.0', 'truncation': None, 'padding': None, 'added_tokens': [],
        'normalizer': normalizer, 'pre_tokenizer': pre_tokenizer, 'post_processor': None,
        'decoder': decoder, 'model': model,
    }  # fmt: skip


def _word_pieces(path, options):
    """BERT's tokenizer from its list of pieces."""
    vocab = {piece: i for i, piece in enumerate(_lines(path))}
    lowercase = options.get('do_lower_case')
    if lowercase is None:  # nothing says so: a list with capitals was made of text that has them
        lowercase = not any(p != p.lower() for p in vocab if not MARKED.fullmatch(p))
    unknown = _name(options.get('unk_token')) or '[UNK]'
    normalizer = {
        'type': 'BertNormalizer', 'clean_text': True,
        'handle_chinese_chars': options.get('tokenize_chinese_chars', True),
        'strip_accents': options.get('strip_accents'), 'lowercase': lowercase,
    }  # fmt: skip
    model = {
        'type': 'WordPiece', 'unk_token': unknown, 'continuing_subword_prefix': '##',
        'max_input_chars_per_word': 100, 'vocab': vocab,
    }  # fmt: skip
    decoder = {'type': 'WordPiece', 'prefix': '##', 'cleanup': True}
    return _file(model, normalizer, {'type': 'BertPreTokenizer'}, decoder)


def _byte_pairs(folder, pair, options):
    """GPT-2's tokenizer from its pieces and its merges, the files of `pair`."""
    vocab, merges = pair
    lines = _lines(folder / merges)
    pairs = [line.split(' ') for line in lines if line and not line.startswith('#version')]
    wrong = next((pair for pair in pairs if len(pair) != 2), None)
    if wrong:
        raise UserError(
            f'{str(folder / merges)!r} is damaged ({" ".join(wrong)!r} is no pair of '
            'pieces): fetch it again'
        )
    level = {
        'type': 'ByteLevel', 'add_prefix_space': bool(options.get('add_prefix_space')),
        'trim_offsets': True, 'use_regex': True,
    }  # fmt: skip
    model = {
        'type': 'BPE', 'dropout': None, 'unk_token': None, 'continuing_subword_prefix': None,
        'end_of_word_suffix': None, 'fuse_unk': False, 'byte_fallback': False,
        'vocab': _read_json(folder / vocab, pair), 'merges': pairs,
    }  # fmt: skip
    return _file(model, None, level, level)


def _name(token):
    """The name of a token that is given as such or with its options."""
    return token.get('content') if isinstance(token, dict) else token


def _added(folder, there, facts, options, named):
    """The list of added tokens of a tokenizer that is made of a list of pieces."""
    ids = facts['model']['vocab']
    found = {}

    def add(token, i, special):
        if i is not None:
            flags = token if isinstance(token, dict) else {}
            strips = {key: bool(flags.get(key)) for key in ('single_word', 'lstrip', 'rstrip')}
            normalized = bool(flags.get('normalized', not special))
            found[i] = {'id': i, 'content': _name(token), **strips, 'normalized': normalized}
            found[i]['special'] = special

    for name in usual_roles(ids).values():
        add(name, ids[name], True)
    for name, i in _read_json(folder / 'added_tokens.json', there).items():
        add(name, int(i), MARKED.fullmatch(name) is not None)
    for i, token in (options.get('added_tokens_decoder') or {}).items():
        add(token, int(i), bool(token.get('special')))
    ids = ids | {token['content']: i for i, token in found.items()}
    for table in (options, named):
        more = table.get('additional_special_tokens') or []
        for token in [*(table.get(f'{role}_token') for role in ROLES), *more]:
            if token is not None:
                add(token, ids.get(_name(token)), True)
    added = [found[i] for i in sorted(found)]
    size = len(facts['model']['vocab'])
    new = [t['id'] for t in added if t['content'] not in facts['model']['vocab']]
    if new != [*range(size, size + len(new))]:
        raise UserError(f'has {size} pieces, and the added tokens beside it do not follow: {new}')
    return added


def _ids(facts):
    """{name: id} of all pieces and added tokens."""
    vocab = facts['model']['vocab']
    names = vocab if isinstance(vocab, dict) else {n: i for i, (n, _) in enumerate(vocab)}
    return names | {token['content']: token['id'] for token in facts.get('added_tokens') or ()}


def _roles(facts, tables, config):
    """{role: name}: from the files that name them, then ids in config.json, then usual names."""
    names = _ids(facts)
    of_id = {i: name for name, i in names.items()}
    special = {t['content'] for t in facts.get('added_tokens') or () if t['special']}
    usual = usual_roles(names)
    roles = {}
    for role in ROLES:
        said = [_name(table.get(f'{role}_token')) for table in tables]
        i = config.get(f'{role}_token_id')
        by_id = of_id.get(i[0] if isinstance(i, list) and i else i if isinstance(i, int) else None)
        # An id that stands for an ordinary piece is a default that nobody set.
        said += [by_id] if by_id in special or MARKED.fullmatch(by_id or '') else []
        found = next((name for name in [*said, usual.get(role)] if name in names), None)
        if found is not None:
            roles[role] = found
    return roles


def _own_template(source, facts, roles, options):
    """What a tokenizer that is made of a list of pieces puts around a text."""
    if source == 'vocab.txt' and {'cls', 'sep'} <= roles.keys():
        return _template(facts, roles, 'encoder', False)
    if options.get('add_bos_token') and 'bos' in roles:
        return _template(facts, roles, 'decoder', True)
    return None


def _template(facts, roles, family, has_bos):
    """The post-processor of a family; None where it adds nothing."""
    text = lambda letter, kind: {'Sequence': {'id': letter, 'type_id': kind}}  # noqa: E731
    mark = lambda role, kind: {'SpecialToken': {'id': roles[role], 'type_id': kind}}  # noqa: E731
    if family == 'encoder' and {'cls', 'sep'} <= roles.keys():
        single = [mark('cls', 0), text('A', 0), mark('sep', 0)]
        pair = [*single, text('B', 1), mark('sep', 1)]
    elif family != 'decoder' and 'eos' in roles:
        single = [text('A', 0), mark('eos', 0)]
        pair = [*single, text('B', 0), mark('eos', 0)]
    elif family == 'decoder' and has_bos:
        single = [mark('bos', 0), text('A', 0)]
        pair = [*single, mark('bos', 1), text('B', 1)]
    else:
        return None
    names = _ids(facts)
    used = {part['SpecialToken']['id'] for part in pair if 'SpecialToken' in part}
    tokens = {name: {'id': name, 'ids': [names[name]], 'tokens': [name]} for name in sorted(used)}
    return {
        'type': 'TemplateProcessing', 'single': single, 'pair': pair, 'special_tokens': tokens,
    }  # fmt: skip
