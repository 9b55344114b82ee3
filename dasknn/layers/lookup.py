"""Keras's layers that turn text into codes."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

import numpy as np

from dasknn.layers.adapting import Adaptable, numbers_in, summaries
from dasknn.layers.embedding import checked_codes
from dasknn.layers.preprocessing import Categorical

# In configurations: other libraries have layers of the same name.
_HASH = "blake2b"


def bin_of(text: str, n_bins: int, salt: bytes = b"") -> int:
    """Return the bin, in [0, n_bins), that the hash of a text falls in."""
    # Python's own hash of text differs from process to process.
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8, salt=salt).digest()
    return int.from_bytes(digest, "big") % n_bins


def is_missing(value: Any) -> bool:
    """Return whether a value of a column of text is a missing one: None, NaN, pandas's NA or NaT."""
    if value is None:
        return True
    try:
        return bool(value != value)
    except TypeError:
        # pandas's NA does not know whether it differs from itself.
        return True


def _text(layer: Categorical, value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    if isinstance(value, str):
        return str(value)
    raise ValueError(f"{type(layer).__name__} expects text, received {value!r:.60}.")


@dataclass(frozen=True)
class Hashing(Categorical):
    """Turn text, or integers, into codes by their hashes: without a vocabulary, and some share a code.

    Outside of a model it is called on text: `codes = Hashing(1000)(frame["city"])`. Inside, rows are numbers,
    and it takes integers.

    Parameters
    ----------
    num_bins : int
        Number of codes, with that of `mask_value`.
    mask_value : str, int or None, default=None
        A value whose code is 0, as is that of missing text; the other codes then begin at 1.
    salt : int, pair of int or None, default=None
        Another salt, another hash.
    output_mode : {'int', 'one_hot', 'multi_hot', 'count'}, default='int'
        'int': the codes. The others: as for `CategoryEncoding`.

    Notes
    -----
    The hash is BLAKE2b, where Keras has FarmHash and SipHash: codes differ from Keras's. So neither reads a
    model of the other that has this layer.

    Examples
    --------
    >>> from dasknn.layers import Hashing
    >>> Hashing(3, mask_value="")([["Rome"], ["Oslo"], [""]])[2]
    array([0])
    """

    num_bins: int
    mask_value: Any = None
    salt: Any = None
    output_mode: str = "int"

    def __post_init__(self):
        super().__post_init__()
        if self.num_bins < 1:
            raise ValueError(f"Hashing expects num_bins to be at least 1, received {self.num_bins!r}.")
        object.__setattr__(self, "num_bins", int(self.num_bins))
        if self.salt is not None:
            salt = tuple(self.salt) if isinstance(self.salt, list | tuple) else (self.salt, self.salt)
            if len(salt) != 2 or not all(isinstance(n, int | np.integer) and 0 <= n < 2**64 for n in salt):
                raise ValueError(
                    f"Hashing expects salt to be one or two integers from 0 on, received {self.salt!r}."
                )
            object.__setattr__(self, "salt", tuple(int(n) for n in salt))

    def get_config(self):
        return {**super().get_config(), "hash": _HASH}

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        if config.pop("hash", None) != _HASH:
            raise ValueError(
                "Expected a Hashing layer of dasknn, received one of Keras, whose hashes are others: a model "
                "that was trained on them would predict nonsense. Apply Keras's layer to the data instead."
            )
        return super().from_config(config)

    @property
    def n_codes(self):
        return self.num_bins

    def codes_of(self, values):
        if values.dtype.kind == "f":
            wrong = values[values != np.rint(values)]
            if wrong.size:
                raise ValueError(f"Hashing expects text or integers, received {wrong[0]!r}.")
            values = values.astype(np.int64)
        flat = values.reshape(-1)
        if flat.dtype.kind in "iub":
            # Each of the distinct numbers is hashed once.
            distinct, places = np.unique(flat, return_inverse=True)
            table = [self._code(value) for value in distinct.tolist()]
            return np.array(table, np.int64)[places].reshape(values.shape)
        known: dict[Any, int] = {}
        for value in flat:
            if value not in known:
                known[value] = self._code(value)
        return np.array([known[value] for value in flat], np.int64).reshape(values.shape)

    def _code(self, value: Any) -> int:
        n_bins, first = self.num_bins, 0
        if self.mask_value is not None and n_bins > 1:
            n_bins, first = n_bins - 1, 1
        if is_missing(value):
            if not first:
                raise ValueError(
                    "Hashing expects mask_value for columns with missing text. Set it, or fill them before."
                )
            return 0
        if first and value == self.mask_value:
            return 0
        text = str(int(value)) if isinstance(value, int | np.integer) else _text(self, value)
        salt = b"" if self.salt is None else b"".join(n.to_bytes(8, "big") for n in self.salt)
        return first + bin_of(text, n_bins, salt)


@dataclass(frozen=True)
class StringLookup(Categorical, Adaptable):
    """Turn text into codes of a vocabulary, which is given or learned by `adapt`; or codes into text.

    It is called on text, outside of a model: `codes = StringLookup().adapt(names)(names)`. Inside of a model,
    rows are numbers.

    Codes are, in their order: of `mask_token`, if there is one; of text that is not in the vocabulary; of the
    vocabulary. Missing text has the code of `mask_token`, if there is one, and else that of unknown text.
    `adapt` puts frequent text first, and of equally frequent text the last in the alphabet.

    Parameters
    ----------
    max_tokens : int or None, default=None
        Most codes that `adapt` makes, in all. None: as many as there are.
    num_oov_indices : int, default=1
        Codes for text that is not in the vocabulary, which it is given by its hash. 0: such text raises.
    mask_token : str or None, default=None
        Text that means that there is none. Its code is 0; encodings leave it out.
    oov_token : str, default="[UNK]"
        What codes of unknown text become, if `invert`.
    vocabulary : sequence of str or None, default=None
        The known text. None: `adapt` learns it.
    invert : bool, default=False
        Whether to turn codes into text.
    output_mode : {'int', 'one_hot', 'multi_hot', 'count'}, default='int'
        'int': the codes. The others: as for `CategoryEncoding`.

    Notes
    -----
    Codes are Keras's, but for unknown text with `num_oov_indices` above 1: the hash is another, as for
    `Hashing`.

    Examples
    --------
    >>> from dasknn.layers import StringLookup
    >>> layer = StringLookup()
    >>> _ = layer.adapt(["Rome", "Oslo", "Rome"])
    >>> layer.get_vocabulary()
    ['[UNK]', 'Rome', 'Oslo']
    >>> layer(["Oslo", "Bern", "Rome"])
    array([2, 0, 1])
    """

    max_tokens: int | None = None
    num_oov_indices: int = 1
    mask_token: Any = None
    oov_token: str = "[UNK]"
    vocabulary: Any = None
    invert: bool = False
    output_mode: str = "int"
    # Settings that Keras writes into configurations.
    _written_by_keras: ClassVar[dict[str, tuple]] = {
        "idf_weights": (None,),
        "pad_to_max_tokens": (False,),
        "encoding": ("utf-8",),
        "vocabulary_dtype": ("string",),
        "oov_method": ("floormod", "farmhash"),
    }

    def __post_init__(self):
        super().__post_init__()
        if self.max_tokens is not None and self.max_tokens < 2:
            raise ValueError(
                f"StringLookup expects max_tokens to be at least 2, received {self.max_tokens!r}."
            )
        if self.num_oov_indices < 0:
            raise ValueError(
                f"StringLookup expects num_oov_indices to be at least 0, received {self.num_oov_indices!r}."
            )
        if self.invert and self.output_mode != "int":
            raise ValueError(
                f"StringLookup expects output_mode='int' to turn codes into text, received "
                f"{self.output_mode!r}."
            )
        if self.vocabulary is not None:
            object.__setattr__(self, "vocabulary", self._checked_vocabulary())

    def _checked_vocabulary(self) -> tuple[str, ...]:
        if isinstance(self.vocabulary, str):
            raise ValueError(
                f"StringLookup expects a list of text as vocabulary, received {self.vocabulary!r}. Read the "
                "file before."
            )
        found = tuple(_text(self, word) for word in self.vocabulary)
        special = self._special
        if special and list(found[: len(special)]) == special:
            found = found[len(special) :]
        if not found:
            raise ValueError("StringLookup expects a vocabulary of at least one text, received none.")
        if twice := [word for word, n in Counter(found).items() if n > 1]:
            raise ValueError(f"StringLookup expects each text of a vocabulary once, received again: {twice}.")
        for name, word in (("mask_token", self.mask_token), ("oov_token", self.oov_token)):
            if word in found and (name == "mask_token" or self.invert):
                raise ValueError(
                    f"StringLookup expects a vocabulary without {name}, received {word!r} at place "
                    f"{found.index(word)}. Leave it out, or begin with {special}."
                )
        if self.max_tokens is not None and len(special) + len(found) > self.max_tokens:
            raise ValueError(
                f"StringLookup expects at most max_tokens={self.max_tokens} codes, received a vocabulary "
                f"that makes {len(special) + len(found)}."
            )
        return found

    # --- vocabulary --------------------------------------------------------------------------------

    def _learn(self, data):
        parts = summaries(data, self._count)
        counts: Counter[str] = Counter()
        for part in parts:
            counts.update(part)
        for special in (self.mask_token, self.oov_token):
            counts.pop(special, None)
        if not counts:
            raise ValueError("StringLookup expects text to adapt to, received none.")
        most = None if self.max_tokens is None else self.max_tokens - len(self._special)
        # By bytes, as Keras sorts.
        words = sorted(counts, key=lambda word: (counts[word], word.encode("utf-8", "surrogatepass")))[::-1]
        return {"vocabulary": words[:most]}

    def _count(self, block: np.ndarray) -> Counter[str]:
        return Counter(_text(self, value) for value in block.reshape(-1) if not is_missing(value))

    @property
    def _first_oov(self) -> int:
        """The first code of unknown text."""
        return int(self.mask_token is not None and self.output_mode == "int")

    @property
    def _special(self) -> list[Any]:
        """What the codes before those of the vocabulary stand for."""
        return [self.mask_token] * self._first_oov + [self.oov_token] * self.num_oov_indices

    @property
    def _words(self) -> tuple[str, ...]:
        if self.vocabulary is None:
            raise ValueError("StringLookup has no vocabulary yet. Call adapt with text before.")
        return self.vocabulary

    def get_vocabulary(self, include_special_tokens: bool = True) -> list[str]:
        """Return the vocabulary.

        Parameters
        ----------
        include_special_tokens : bool, default=True
            Whether it begins with the mask token and the tokens of unknown text, so that each place is a
            code.

        Returns
        -------
        list of str
        """
        special = self._special if include_special_tokens else []
        return [*special, *(self.vocabulary or ())]

    def vocabulary_size(self) -> int:
        """Return the number of codes, with those of the mask token and of unknown text."""
        return len(self._special) + len(self.vocabulary or ())

    @property
    def n_codes(self):
        return len(self._special) + len(self._words)

    # --- codes -------------------------------------------------------------------------------------

    def apply(self, values):
        if not self.invert:
            return super().apply(values)
        words = np.array([*self._special, *self._words], object)
        codes = numbers_in(values, self)
        rows = codes.reshape(len(codes), prod(codes.shape[1:]))
        whole = checked_codes(self, rows, np.iinfo(np.intp).max).reshape(codes.shape)
        found = np.full(codes.shape, self.oov_token, object)
        is_known = whole < len(words)
        found[is_known] = words[whole[is_known]]
        return found

    def codes_of(self, values):
        codes = {word: code for code, word in enumerate(self._words, len(self._special))}
        if self.mask_token is not None:
            codes[self.mask_token] = 0 if self.output_mode == "int" else -1
        flat = values.reshape(-1)
        found = np.empty(len(flat), np.int64)
        for place, value in enumerate(flat):
            code = codes.get(value) if isinstance(value, str) else None
            found[place] = self._other_code(value, codes) if code is None else code
        return found.reshape(values.shape)

    def _other_code(self, value: Any, codes: dict[Any, int]) -> int:
        """Return the code of a value that is missing, is no str, or is not in the vocabulary."""
        missing = is_missing(value)
        if missing and self.mask_token is not None:
            return codes[self.mask_token]
        text = "" if missing else _text(self, value)
        if not missing and text in codes:
            return codes[text]
        if not self.num_oov_indices:
            raise ValueError(
                f"StringLookup with num_oov_indices=0 expects text of its vocabulary, received "
                f"{value!r:.60}. Use num_oov_indices=1."
            )
        if self.num_oov_indices == 1:
            return self._first_oov
        return self._first_oov + bin_of(text, self.num_oov_indices)

    # --- inside of a model -------------------------------------------------------------------------

    def output_shape(self, shape):
        raise ValueError(
            "StringLookup turns text into codes, and rows inside of a model are numbers. Call it on the text "
            "before fit, layer(X), and pass the codes to the model."
        )

    def weights(self, n_inputs):
        return self.output_shape((n_inputs,))

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        config.pop("vocabulary_size", None)
        for name, accepted in cls._written_by_keras.items():
            if name in config and config.pop(name) not in accepted:
                raise ValueError(f"dasknn's StringLookup does not implement {name}. Omit it.")
        return super().from_config(config)
