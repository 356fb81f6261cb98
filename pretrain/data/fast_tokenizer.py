"""Tokenizers of published models, in the file format of the `tokenizers` library.

The interface is that of tokenizer.Tokenizer. A run keeps such a tokenizer as one file,
tokenizer.json: the library's own, with one key more, `roles`, which says which token ends a text,
masks, pads ({"eos": "</s>", ...}). The library refuses keys that it does not know, so it is we who
read the file back, and `library_file` is what others can read. In a file without roles they follow
from the usual names.

The library also finds names of special tokens in raw text, in two ways: as added tokens, which it
can be told not to do, and as pieces of the model, which it cannot (T5's list holds '</s>', with a
score that beats all others). Raw text is therefore read with a second copy of the tokenizer, whose
special pieces have names that no text makes.
"""

import copy
import functools
import hashlib
import json
import re

import numpy as np

from objectives import contract
from pretrain.data.tokenizer import TABLE_MULTIPLE, WHITE, encodable, is_punctuation
from pretrain.errors import UserError

ROLES = {
    'pad': ('<pad>', '[PAD]', '<|pad|>'),
    'eos': ('</s>', '<|endoftext|>', '<|end_of_text|>', '<|im_end|>', '<eos>', '[EOS]'),
    'bos': ('<s>', '<|begin_of_text|>', '<|startoftext|>', '<bos>', '[BOS]', '<|endoftext|>'),
    'unk': ('<unk>', '[UNK]', '<|unk|>'),
    'cls': ('[CLS]', '<cls>'),
    'sep': ('[SEP]', '<sep>'),
    'mask': ('[MASK]', '<mask>'),
}  # the usual names, the likeliest first
MODES = 'RXS'
UNKNOWN = '\ufdd0 a'  # not a character
SENTINEL = re.compile(r'<extra_id_(\d+)>')


class FastTokenizer:
    """A tokenizer.json; the interface is that of tokenizer.Tokenizer."""

    file = 'tokenizer.json'

    def __init__(self, model):
        """Reads the file.

        Args:
            model: its bytes.

        Raises:
            UserError: the library cannot read it, or it has no token that can end a text.
        """
        from tokenizers import Tokenizer

        self.model = model
        try:
            self._facts = json.loads(model)
            roles = self._facts.pop('roles', None)
            self._facts.update(truncation=None, padding=None)
            self._facts.setdefault('added_tokens', [])
            library = Tokenizer.from_str(json.dumps(self._facts))
            self._ids = library.get_vocab(with_added_tokens=True)
            if roles is None:
                roles = usual_roles(self._ids)
            self.roles = {role: name for role, name in roles.items() if name in self._ids}
            self._added = {a['content']: a for a in self._facts['added_tokens']}
            library.encode(UNKNOWN)  # without a token for what it does not know, it says so now
        except Exception as error:  # the library has no class of its own for what it refuses
            raise UserError(
                f'is no tokenizer.json that the tokenizers library reads ({_first_line(error)})'
            ) from None
        if not ('eos' in self.roles or 'sep' in self.roles):
            raise UserError(
                f'has no token that ends a text ({", ".join(ROLES["eos"])} or [SEP]): name one in '
                'its key "roles", {"eos": "name"}'
            )
        names = {*self.roles.values(), *filter(SENTINEL.fullmatch, self._ids)}
        names |= {name for name, added in self._added.items() if added['special']}
        self._special = {self._ids[name]: name for name in names}
        # As transformers does: a token with a role is found in a prompt, listed or not.
        library.add_special_tokens(sorted(names - self._added.keys(), key=self._ids.get))
        self._library = library

    @functools.cached_property
    def digest(self):
        """sha256 of the file, by which shards and runs name their tokenizer."""
        return hashlib.sha256(self.model).hexdigest()

    @property
    def library_file(self):
        """The dict of a tokenizer.json without our `roles`, to write for others."""
        return copy.deepcopy(self._facts)

    @functools.cached_property
    def _raw(self):
        """The library's tokenizer in which no text makes a special token."""
        from tokenizers import Tokenizer

        facts = self.library_file
        # No space of a text is left when words are looked up, and U+FFFF is no character.
        new = {name: f'\uffff {i}' for i, name in self._special.items()}
        for added in facts['added_tokens']:
            if added['content'] in new:
                added.update(content=new[added['content']], special=True)
        model = facts['model']
        if isinstance(model['vocab'], dict):
            model['vocab'] = {new.get(name, name): i for name, i in model['vocab'].items()}
            if model.get('unk_token') in new:
                model['unk_token'] = new[model['unk_token']]
        else:
            model['vocab'] = [[new.get(name, name), score] for name, score in model['vocab']]
        if 'merges' in model:
            pairs = (m.split(' ') if isinstance(m, str) else m for m in model['merges'])
            model['merges'] = [p for p in pairs if not new.keys() & {*p, ''.join(p)}]
        library = Tokenizer.from_str(json.dumps(facts | {'post_processor': None}))
        library.encode_special_tokens = True
        return library

    @functools.cached_property
    def vocabulary(self):
        """contract.Vocabulary: the facts that objectives ask for."""
        ids = {role: self._ids[name] for role, name in self.roles.items()}
        size = max(self._ids.values()) + 1
        table_size = -(-size // TABLE_MULTIPLE) * TABLE_MULTIPLE
        bytes_V = np.zeros(table_size, np.int32)
        word_start_V, punctuation_V = np.zeros(table_size, bool), np.zeros(table_size, bool)
        for name, i in self._ids.items():
            if i not in self._special:
                bytes_V[i], word_start_V[i], text = self._read_piece(name)
                punctuation_V[i] = bool(text) and all(map(is_punctuation, text))
        eos = ids['eos'] if 'eos' in ids else ids['sep']
        first = self._library.encode('a', add_special_tokens=True).ids[:1]
        special = set(self._special.values())
        modes = {m: self._ids[f'[{m}]'] for m in MODES if f'[{m}]' in special}
        numbers = {int(m[1]): i for i, n in self._special.items() if (m := SENTINEL.fullmatch(n))}
        count = next(n for n in range(len(numbers) + 1) if n not in numbers)
        return contract.Vocabulary(
            size=size,
            table_size=table_size,
            pad=ids.get('pad', eos),
            eos=eos,
            unk=ids.get('unk'),
            cls=ids.get('cls'),
            sep=ids.get('sep'),
            mask=ids.get('mask'),
            modes=modes or None,
            sentinels=tuple(numbers[n] for n in range(count)) or None,
            word_start_V=word_start_V,
            bytes_V=bytes_V,
            punctuation_V=punctuation_V,
            log_frequency_V=self._log_frequencies(bytes_V),
            bos=ids['bos'] if first == [ids.get('bos')] else None,
        )

    @functools.cached_property
    def _is_byte_level(self):
        """Whether each character of a piece stands for a byte (GPT-2)."""
        steps = [self._facts.get(key) or {} for key in ('normalizer', 'pre_tokenizer')]
        for step in steps:
            steps += step.get('normalizers') or step.get('pretokenizers') or ()
        return any(step.get('type') == 'ByteLevel' for step in steps)

    def _read_piece(self, name):
        """Of a piece that is not special: (bytes, does it begin a word, its text without space)."""
        model = self._facts['model']
        prefix = model.get('continuing_subword_prefix')
        if self._is_byte_level and name not in self._added:
            raw = bytes(map(BYTES.get, name)) if all(c in BYTES for c in name) else name.encode()
            text = raw.decode('utf-8', 'replace')
            return len(raw), raw[:1].isspace(), text.strip()
        if re.fullmatch('<0x[0-9A-F]{2}>', name) and model.get('byte_fallback'):
            return 1, name in WHITE, ''
        if prefix:
            inner = len(name) > len(prefix) and name.startswith(prefix)
            text = name[len(prefix) :] if inner else name
            return len(text.encode()), not inner, text
        text = name.replace('\u2581', ' ')
        starts = text[:1].isspace() or model.get('type') == 'WordLevel'
        return len(text.encode()), starts, text.strip()

    def _log_frequencies(self, bytes_V):
        """Log-probabilities of a unigram model's pieces, the least for all else; or None."""
        model = self._facts['model']
        if isinstance(model['vocab'], dict):
            return None
        scores_V = np.array([score for _, score in model['vocab']], np.float32)
        fallback = [re.fullmatch('<0x[0-9A-F]{2}>', name) is not None for name, _ in model['vocab']]
        learned = np.flatnonzero((bytes_V[: len(scores_V)] > 0) & ~np.array(fallback, bool))
        if not len(learned) or scores_V[learned].max() > 0:
            return None
        log_frequency_V = np.full(len(bytes_V), scores_V[learned].min(), np.float32)
        log_frequency_V[learned] = scores_V[learned]
        return log_frequency_V

    def encode(self, text, specials=False):
        """Text -> int64 array of ids, without those that models want around a text.

        Args:
            text: lone surrogates, which no UTF-8 can hold, become '?'.
            specials: names of special tokens in it ([MASK], <extra_id_0>) stand for those tokens;
                else they are text like any other.
        """
        library = self._library if specials else self._raw
        return np.asarray(library.encode(encodable(text), add_special_tokens=False).ids, np.int64)

    def encode_all_with_starts(self, texts, starts):
        """As encode_with_starts, of a list of texts, with the starts of each."""
        return list(map(self.encode_with_starts, texts, starts))

    def encode_with_starts(self, text, starts):
        """Tokenises text whole and says at which tokens given places of it begin.

        Args:
            text: a document.
            starts: ascending character offsets (of sentences).

        Returns:
            (ids, tokens): for each start the index of the first token that ends behind it (bytes
            of one character all end with it); starts that fall into the same token are one.
        """
        encoding = self._raw.encode(encodable(text), add_special_tokens=False)
        ids = np.asarray(encoding.ids, np.int64)
        ends = np.asarray([end for _, end in encoding.offsets], np.int64)
        # A token of no characters (a space put before the text) ends where the last one did.
        ends = np.maximum.accumulate(ends) if len(ends) else ends
        tokens = np.unique(np.searchsorted(ends, np.asarray(starts, np.int64), side='right'))
        return ids, tokens[tokens < len(ids)]

    def encode_with_offsets(self, text):
        """Tokenises text and says which of its characters each token stands for.

        Args:
            text: a passage; names of special tokens in it are text like any other.

        Returns:
            (ids, starts, ends), int64: ids as `encode` gives them; the characters of token i are
            text[starts[i] : ends[i]], as the library has it: a space that it puts before the text
            shares the first character.
        """
        encoding = self._raw.encode(encodable(text), add_special_tokens=False)
        starts, ends = np.asarray(encoding.offsets, np.int64).reshape(-1, 2).T
        return np.asarray(encoding.ids, np.int64), starts, ends

    def decode(self, ids):
        """Ids -> text, special tokens by their names; padding of the table as <unused_N>.

        As few calls as can be: many decoders drop a space at the beginning of what they are given.
        """
        parts, run = [], []
        for i in map(int, ids):
            if i in self._pieces:
                run.append(i)
            else:
                parts += [self._text(run), f'<unused_{i}>']
                run = []
        return ''.join([*parts, self._text(run)])

    def _text(self, ids):
        return self._library.decode(ids, skip_special_tokens=False)

    @functools.cached_property
    def _pieces(self):
        return frozenset(self._ids.values())


def usual_roles(names):
    """{role: name} by the usual names.

    Args:
        names: all that a tokenizer has.
    """
    found = {role: next(filter(names.__contains__, usual), None) for role, usual in ROLES.items()}
    return {role: name for role, name in found.items() if name}


def with_roles(facts, roles):
    """The bytes of our tokenizer.json.

    Args:
        facts: dict of the library's. roles: {role: name of a token}.
    """
    facts = facts | {'truncation': None, 'padding': None, 'roles': roles}
    return json.dumps(facts, ensure_ascii=False, separators=(',', ':')).encode()


def _byte_alphabet():
    """{character: byte} of byte-level BPE: printable bytes stand for themselves, in Latin-1."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in kept]
    return {chr(b): b for b in kept} | {chr(256 + n): b for n, b in enumerate(others)}


BYTES = _byte_alphabet()


def _first_line(error):
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
