"""SentencePiece, in one layout of ids for all objectives.

0 pad, 1 eos, 2 unk, 3 [CLS], 4 [SEP], 5 [MASK], 6 [R], 7 [X], 8 [S], then 256 byte pieces, then the
pieces learned from the text; above the last piece 100 sentinels, the first of which has the
highest id, as in T5. Pieces 3 to 8 are control symbols and sentinels are no pieces at all, so raw
text, whatever it contains, can produce none of them. Published models (T5's spiece.model) load the
same way; what they lack is None in the vocabulary. Other published tokenizers: fast_tokenizer.py,
a class with the same interface; `load` reads either.
"""

import functools
import hashlib
import io
import re
import unicodedata

import numpy as np
import sentencepiece

from objectives import contract
from pretrain import storage
from pretrain.errors import UserError

SENTINELS = 100
TABLE_MULTIPLE = 128  # rows of the embedding table: even shards, whole tiles on accelerators
WHITE = ('<0x09>', '<0x0A>', '<0x0D>', '<0x20>')
CONTROL = ('[CLS]', '[SEP]', '[MASK]', '[R]', '[X]', '[S]')
FILES = ('tokenizer.model', 'tokenizer.json')  # its name in the folder of a run or a corpus
SPACES = ' \t\n\v\f\r\x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000' + ''.join(
    map(chr, range(0x2000, 0x200B))
)  # Unicode's White_Space; Python's \s holds four control characters more


class Tokenizer:
    """A SentencePiece model with the sentinels above it."""

    file = FILES[0]

    def __init__(self, model):
        """Args: model: the bytes of a SentencePiece model file."""
        self.model = model
        # One thread: the library begins new ones for every list of lines, and preparation has
        # processes enough.
        self._pieces = sentencepiece.SentencePieceProcessor(model_proto=model, num_threads=1)

    @functools.cached_property
    def digest(self):
        """sha256 of the model, by which shards and runs name their tokenizer."""
        return hashlib.sha256(self.model).hexdigest()

    @functools.cached_property
    def vocabulary(self):
        """contract.Vocabulary: the facts that objectives ask for."""
        sp = self._pieces
        pieces = sp.get_piece_size()
        size = pieces + SENTINELS
        table_size = -(-size // TABLE_MULTIPLE) * TABLE_MULTIPLE
        bytes_V = np.zeros(table_size, np.int32)
        word_start_V, punctuation_V = np.zeros(table_size, bool), np.zeros(table_size, bool)
        for i in range(pieces):
            piece = sp.id_to_piece(i)
            if sp.is_byte(i):
                bytes_V[i] = 1
                word_start_V[i] = piece in WHITE  # the word behind a line's end goes with it
            elif not (sp.is_control(i) or sp.is_unknown(i) or sp.is_unused(i)):
                bytes_V[i] = len(piece.replace('\u2581', ' ').encode())
                word_start_V[i] = piece.startswith('\u2581')
                punctuation_V[i] = all(map(is_punctuation, piece.lstrip('\u2581') or 'x'))
        found = {p: i for p in CONTROL if sp.is_control(i := sp.piece_to_id(p))}
        modes = {m: found[f'[{m}]'] for m in 'RXS' if f'[{m}]' in found}
        return contract.Vocabulary(
            size=size,
            table_size=table_size,
            pad=max(sp.pad_id(), 0),
            eos=sp.eos_id(),
            unk=sp.unk_id(),
            cls=found.get('[CLS]'),
            sep=found.get('[SEP]'),
            mask=found.get('[MASK]'),
            modes=modes or None,
            sentinels=tuple(range(size - 1, pieces - 1, -1)),
            word_start_V=word_start_V,
            bytes_V=bytes_V,
            punctuation_V=punctuation_V,
            log_frequency_V=self._log_frequencies(bytes_V),
        )

    def _log_frequencies(self, bytes_V):
        """Log-probabilities of the learned pieces, the least of them for all else; or None."""
        sp = self._pieces
        learned = [i for i in range(sp.get_piece_size()) if bytes_V[i] and not sp.is_byte(i)]
        scores = np.array([sp.get_score(i) for i in learned], np.float32)
        # A unigram model scores a piece by its log-probability, a BPE model by minus its rank.
        if not len(scores) or np.all(scores == np.round(scores)) or scores.max() > 0:
            return None
        log_frequency_V = np.full(len(bytes_V), scores.min(), np.float32)
        log_frequency_V[learned] = scores
        return log_frequency_V

    @functools.cached_property
    def specials(self):
        """{name: (id, takes the white space before it, and that behind it)}, of special tokens.

        Before a sentinel or [MASK] stands no space of its own: the piece behind it, or the one it
        replaces, holds the space. Where a model puts a space before every text (T5's does), the
        white space behind a sentinel goes too, as the text there begins anew.
        """
        sp, v = self._pieces, self.vocabulary
        prefix = bool(len(sp.encode('a')) and sp.id_to_piece(sp.encode('a')[0])[0] == '\u2581')
        found = {
            name: (i, name == '[MASK]', False)
            for i in range(sp.get_piece_size())
            if (sp.is_control(i) or sp.is_unknown(i)) and (name := sp.id_to_piece(i))
        }
        sentinels = {f'<extra_id_{n}>': (i, True, prefix) for n, i in enumerate(v.sentinels)}
        return found | sentinels

    @functools.cached_property
    def _names(self):
        return re.compile(f'({"|".join(map(re.escape, self.specials))})')

    def encode(self, text, specials=False):
        """Text -> int64 array of ids.

        Args:
            text: lone surrogates, which no UTF-8 can hold, become '?'.
            specials: names of special tokens in it ([MASK], <extra_id_0>) stand for those tokens;
                else they are text like any other.
        """
        text = encodable(text)
        if not specials:
            return np.asarray(self._ids(text), np.int64)
        ids, rest, takes_behind = [], '', False
        for part in self._names.split(text):
            if part in self.specials:
                i, takes_before, takes_behind = self.specials[part]
                ids += [*self._ids(rest.rstrip(SPACES) if takes_before else rest), i]
                rest = ''
            else:
                rest = part.lstrip(SPACES) if takes_behind else part
        return np.asarray(ids + self._ids(rest), np.int64)

    @functools.cached_property
    def _line_end(self):
        """The id of the piece that ends a line, where no other holds one; else None."""
        sp = self._pieces
        ids = sp.encode('\n')
        if len(ids) != 1 or not sp.is_byte(ids[0]):
            return None
        learned = (i for i in range(sp.get_piece_size()) if not sp.is_byte(i))
        return None if any('\n' in sp.id_to_piece(i) for i in learned) else ids[0]

    def _ids(self, text):
        """Text -> list of ids."""
        if self._line_end is None or '\n' not in text:
            return self._pieces.encode(text)
        return self._ids_of([text])[0]

    def _ids_of(self, texts):
        """Texts -> lists of ids, line by line where lines cannot touch each other.

        SentencePiece adds up the scores of a whole text in float32. In a long document that decides
        near ties one way or the other, and tokenizers that read what we export, in float64, differ.
        """
        if self._line_end is None:
            return self._pieces.encode(texts)
        lines = [text.split('\n') for text in texts]
        encoded = iter(self._pieces.encode([line for each in lines for line in each]))
        found = []
        for each in lines:
            ids = next(encoded)
            for _ in each[1:]:
                ids.append(self._line_end)
                ids += next(encoded)
            found.append(ids)
        return found

    def encode_with_starts(self, text, starts):
        """Tokenises text whole and says at which tokens given places of it begin.

        Args:
            text: a document.
            starts: ascending character offsets (of sentences).

        Returns:
            (ids, tokens): for each start the index of the token that holds its character;
            starts that fall into the same token are one.
        """
        return self.encode_all_with_starts([text], [starts])[0]

    def encode_all_with_starts(self, texts, starts):
        """As encode_with_starts, of a list of texts, with the starts of each.

        For many short texts it is faster: the library hands a list to a thread, which takes longer
        to wake than a short text to encode.
        """
        texts = list(map(encodable, texts))
        triples = zip(texts, self._ids_of(texts), starts, strict=True)
        return [self._with_starts(text, ids, places) for text, ids, places in triples]

    def _with_starts(self, text, ids, starts):
        ids = np.asarray(ids, np.int64)
        ends = np.cumsum(self.vocabulary.bytes_V[ids])
        places = np.asarray(starts, np.int64)
        encoded = text.encode()
        if len(ids) and ends[-1] == len(encoded):
            # Lossless: pieces cover the bytes one after the other, and places count in bytes.
            if len(encoded) != len(text):
                is_first = (np.frombuffer(encoded, np.uint8) & 0xC0) != 0x80
                places = np.flatnonzero(is_first)[places]
        else:  # a tokenizer that normalises; asking it for offsets takes five times as long
            mapping = self._pieces.encode(text, return_type='offset_mapping')
            ids = np.asarray(mapping['ids'], np.int64)
            ends = np.asarray([end for _, end in mapping['offsets']], np.int64)
        tokens = np.unique(np.searchsorted(ends, places, side='right'))
        return ids, tokens[tokens < len(ids)]

    def encode_with_offsets(self, text):
        """Tokenises text and says which of its characters each token stands for.

        Args:
            text: a passage; names of special tokens in it are text like any other.

        Returns:
            (ids, starts, ends), int64: ids as `encode` gives them; the characters of token i are
            text[starts[i] : ends[i]]. A token that the model adds, such as a space before the
            text, has none. Tokens that stand for one character together (its bytes, or the letters
            that a ligature is normalised to) all have that character.
        """
        # As in `_ids`: the ids are those of the lines, one by one.
        lines = [encodable(text)] if self._line_end is None else encodable(text).split('\n')
        ids, offsets, pieces, at = [], [], [], 0
        for line in lines:
            if at:  # the line's end before this line
                ids.append(self._line_end)
                offsets.append((at - 1, at))
                pieces.append('\n')
            mapping = self._pieces.encode(line, return_type='offset_mapping')
            ids += mapping['ids']
            offsets += [(at + start, at + end) for start, end in mapping['offsets']]
            pieces += mapping['pieces']
            at += len(line) + 1
        starts, ends = np.asarray(offsets, np.int64).reshape(-1, 2).T
        # The library gives such a character to the last of its tokens alone.
        added = np.array([not piece.strip('\u2581') for piece in pieces], bool)
        ends = np.where((ends == starts) & ~added, starts + 1, ends)
        return np.asarray(ids, np.int64), starts, ends

    def decode(self, ids):
        """Ids -> text; special ids, sentinels and padding of the table are shown as <name>."""
        parts, run = [], []
        vocabulary, pieces = self.vocabulary, self._pieces.get_piece_size()
        for i in map(int, ids):
            ordinary = i < pieces and not self._pieces.is_control(i)
            if ordinary:
                run.append(i)
                continue
            parts.append(self._pieces.decode(run))
            run = []
            if i < pieces:
                name = self._pieces.id_to_piece(i).strip('<>[]')
            elif i < vocabulary.size:
                name = f'extra_id_{vocabulary.size - 1 - i}'
            else:
                name = f'unused_{i}'
            parts.append(f'<{name}>')
        return ''.join([*parts, self._pieces.decode(run)])


def train(texts, pieces):
    """Trains a lossless unigram model (Kudo 2018) with byte fallback.

    The same texts give the same bytes: one thread, because with more the sums depend on the order
    in which threads finish.

    Args:
        texts: iterable of documents; each paragraph is one training sentence.
        pieces: number of pieces, special ones and bytes included, sentinels not.

    Returns:
        Tokenizer.

    Raises:
        UserError: the text is too small for so many pieces; the message says how many it can have.
    """
    model = io.BytesIO()
    try:
        if pieces < 1:
            raise RuntimeError('too small')
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=(p for t in texts for p in encodable(t).split('\n') if p),
            model_writer=model,
            vocab_size=pieces,
            model_type='unigram',
            byte_fallback=True,
            normalization_rule_name='identity',
            remove_extra_whitespaces=False,
            add_dummy_prefix=False,
            split_digits=True,
            allow_whitespace_only_pieces=True,
            pad_id=0,
            eos_id=1,
            unk_id=2,
            bos_id=-1,
            control_symbols=list(CONTROL),
            max_sentence_length=1_000_000,
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        most = re.search(r'<= (\d+)', str(error))
        if 'too high' in str(error) and most:
            raise UserError(
                f'a vocabulary of {pieces} pieces is too large for this text: '
                f'set data.vocabulary_size to {most[1]} or less'
            ) from None
        if 'too small' in str(error) or 'smaller than' in str(error):
            raise UserError(
                f'a vocabulary of {pieces} pieces is too small: the special pieces, 256 bytes and '
                "the text's characters must fit; raise data.vocabulary_size (default 8192)"
            ) from None
        raise UserError(f'the tokenizer could not be trained: {_last_line(error)}') from None
    return Tokenizer(model.getvalue())


def stand_in(pieces):
    """contract.Vocabulary of a tokenizer that is not trained yet: sizes and ids, no real pieces."""
    size = max(pieces, len(CONTROL) + 3 + 256) + SENTINELS
    table_size = -(-size // TABLE_MULTIPLE) * TABLE_MULTIPLE
    bytes_V = np.where(np.arange(table_size) < len(CONTROL) + 3, 0, 1).astype(np.int32)
    bytes_V[size - SENTINELS :] = 0
    return contract.Vocabulary(
        size=size, table_size=table_size, pad=0, eos=1, unk=2, cls=3, sep=4, mask=5,
        modes={'R': 6, 'X': 7, 'S': 8},
        sentinels=tuple(range(size - 1, size - SENTINELS - 1, -1)),
        word_start_V=bytes_V > 0, bytes_V=bytes_V,
        log_frequency_V=np.zeros(table_size, np.float32),
    )  # fmt: skip


def find(folder):
    """The tokenizer's file in the folder of a run or a corpus; None where there is none."""
    paths = (storage.place(folder) / name for name in FILES)
    return next((path for path in paths if path.exists()), None)


def load(path):
    """Reads a tokenizer of either kind.

    Args:
        path: a SentencePiece model, a tokenizer.json, a published list of pieces (vocab.txt, or
            vocab.json beside merges.txt), or a folder that holds one of them, ours or in the
            layout of Hugging Face.

    Returns:
        Tokenizer or fast_tokenizer.FastTokenizer.

    Raises:
        UserError: there is no such file, or it is no tokenizer.
    """
    from pretrain.huggingface import tokenizer_files  # which is built on this module

    path = storage.place(path)
    if path.is_dir():
        if tokenizer_files.is_in(path):
            return tokenizer_files.read(path)
        if not find(path):
            names = f'tokenizer.model, {tokenizer_files.ACCEPTED}'
            raise UserError(f'{str(path)!r} holds no tokenizer ({names})')
        path = find(path)
    try:
        if path.name in tokenizer_files.LISTS:
            return tokenizer_files.read_list(path)
        content = path.read_bytes()
        if content.lstrip()[:1] != b'{':
            return _whole(path, content)
    except OSError as error:
        raise UserError(f'cannot read the tokenizer {str(path)!r}: {error.strerror}') from None
    except RuntimeError:
        raise UserError(
            f'{str(path)!r} is no SentencePiece model (.model file) and no tokenizer.json'
        ) from None
    from pretrain.data.fast_tokenizer import FastTokenizer

    try:
        return FastTokenizer(content)
    except UserError as error:
        raise UserError(f'{str(path)!r} {error}') from None


def _whole(path, content):
    """The Tokenizer of a file, unless it is cut off, which the library does not notice."""
    from sentencepiece import sentencepiece_model_pb2

    made = Tokenizer(content)  # first: it raises where this is no such file at all
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(content)
    if not (proto.HasField('trainer_spec') and proto.HasField('normalizer_spec')):
        raise UserError(f'{str(path)!r} is cut off ({len(proto.pieces)} pieces): fetch it again')
    return made


def is_punctuation(character):
    """As BERT's tokenizer splits text: ASCII that is no letter or digit, and Unicode's P."""
    if character.isascii():
        return character.isprintable() and not character.isalnum() and character != ' '
    return unicodedata.category(character).startswith('P')


def encodable(text):
    """The text with '?' for lone surrogates, which no UTF-8 can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode('utf-8', 'replace').decode()
    return text


def _last_line(error):
    return str(error).strip().splitlines()[-1]
