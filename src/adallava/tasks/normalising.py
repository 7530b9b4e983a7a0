"""When two answers are the same text: one normalizing, on Unicode's own terms (UAX 15, UAX 44)."""

import re
import string
import unicodedata
from functools import cache, lru_cache

_MEANT = ("<super>", "<sub>", "<fraction>")
"""Compatibility forms that say something other than what they fold to: 5² is not 52, 1½ is neither 11/2 nor 1/2."""

_FOLDED = {
    **dict.fromkeys("‘’‚‛ʼ‹›\u00b4\u0384", "'"),
    **dict.fromkeys("“”„‟«»〝〞〟", '"'),
    **dict.fromkeys("\u2044\u2215", "/"),
    **dict.fromkeys("\u301c\u223c", "~"),
    "−": "-",
}
"""What typography sets for ASCII's marks, and twins of one mark: acute accents are typed for apostrophes, and encodings
of Japanese disagree whether their wave is U+301C or U+FF5E, which is ~. Dashes are known by their category."""

_SPACED_ACUTE = re.compile(r"\s\u0301")
"""What compatibility forms make of the acute accent that is in `_FOLDED`."""

_IGNORABLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2065\u3164\ufe00-\ufe0f\uffa0\ufff0-\ufff8\U000e0000-\U000e0fff]"
)
"""`Default_Ignorable_Code_Point` (DerivedCoreProperties, Unicode 16) beyond category Cf: fillers, joiners of graphemes,
variation selectors."""


@lru_cache(maxsize=4096)  # A run's cells repeat each other's answers.
def normalise_answer(text: str) -> str:
    """Return what of an answer is compared: equal for two texts that differ in case, form, spaces or outer punctuation.

    1. Encodings of one text are one (NFD), and compatibility forms are folded (NFKC: full-width and half-width letters,
       ligatures, Roman numerals …), but not superscripts, subscripts and fractions, which are other values.
    2. Invisible characters vanish: categories Cf and Cc (but for white space), and the default-ignorable ones.
    3. Case is folded (ß is ss), composed and decomposed letters are one (NFC).
    4. Dashes, typographic quotes, slashes and tildes become ASCII's; white space of every kind becomes one space.
    5. Outer punctuation vanishes: categories P*, and ASCII's `string.punctuation`.

    Articles and inner punctuation stay: `"The 3.5"` and `"3.5"` are different answers. Of ASCII it folds case and
    spaces and strips `string.punctuation`, nothing else. Twice is once; NFC and NFD of a text are equal, and so are
    NFKC and NFKD of one without superscripts, subscripts, fractions and marks on no letter. Of punctuation alone
    nothing is left.
    """
    if not text.isascii():
        text = "".join(map(_folded, unicodedata.normalize("NFD", text)))
    visible = "".join(letter for letter in text if letter.isspace() or not _is_invisible(letter))
    visible = _SPACED_ACUTE.sub("'", visible)
    # Canonical caseless matching (The Unicode Standard, D145); NFC once more, as folding may take forms apart.
    cased = unicodedata.normalize("NFC", unicodedata.normalize("NFD", visible).casefold())
    return _without_outer_punctuation(" ".join(cased.split()))


@cache
def _folded(letter: str) -> str:
    """Return a character's compatibility form, without those that are `_MEANT`, and with ASCII's quotes and dashes."""
    if letter in _FOLDED:
        return _FOLDED[letter]
    tag, *points = unicodedata.decomposition(letter).split() or [""]
    if tag.startswith("<") and tag not in _MEANT:
        return "".join(_folded(chr(int(point, 16))) for point in points)
    return "-" if unicodedata.category(letter) == "Pd" else letter


@cache
def _is_invisible(letter: str) -> bool:
    return unicodedata.category(letter) in ("Cf", "Cc") or _IGNORABLE.fullmatch(letter) is not None


def _without_outer_punctuation(text: str) -> str:
    start, end = 0, len(text)
    while start < end and _is_outer(text[start]):
        start += 1
    while start < end and _is_outer(text[end - 1]):
        end -= 1
    return text[start:end]


@cache
def _is_outer(letter: str) -> bool:
    return letter == " " or letter in string.punctuation or unicodedata.category(letter).startswith("P")
