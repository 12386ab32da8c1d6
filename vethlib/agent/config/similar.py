"""Names that differ from another by one letter, which may be typing errors. Pure.

Numbered names are families, not typing errors: veth1 and veth2, n1 and n10. So names are compared by their *shape*, in
which each number is one character, and names that differ only in a number are never similar. Two shapes are similar if
one letter is missing, added or different, or if two neighbours are swapped, except that

- a word of fewer than four letters (three for a swap) is too short to decide: rx and tx, red and rod;
- a single letter is a name of its own (leaf-a, leaf-b), and so is the next letter at the end (nodea, nodeb);
- three or more names that differ in the same place are a family.

A lookup takes time proportional to the length of the name, however many names there are: shapes are indexed by their
rests, with one character left out. Names made by programs cost little: their words are short (a UUID), or they are too
long.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Final

__all__ = ["SimilarNames", "are_similar", "shape_of"]

_NUMBER: Final = re.compile("[0-9]+")
_DIGIT: Final = "0"  # stands for a number in a shape
_LONGEST: Final = 32  # characters; longer names are made by programs
_FAMILY: Final = 3  # names that differ in the same place
_WORD, _SWAPPED_WORD = 4, 3  # letters
_WORDS: Final = re.compile(r"[^\W\d_]{3,}")
_SEPARATOR: Final = re.compile(r"[\W_]")


def shape_of(name: str) -> str:
    """Return the name with each number replaced by one digit; "" if it is too long to be a typing error."""
    return _NUMBER.sub(_DIGIT, name) if len(name) <= _LONGEST else ""


class SimilarNames:
    """A multiset of names, by their shapes."""

    def __init__(self) -> None:
        self._uses: dict[str, dict[str, int]] = {}  # by shape: names, and how often each was added
        self._total: Counter[str] = Counter()  # total number of names, by shape
        self._shapes: dict[str, set[str]] = {}  # shapes, by what remains of them without one character

    def add(self, name: str) -> bool:
        """Add a name; return whether its shape is new."""
        shape = shape_of(name)
        names = self._uses.setdefault(shape, {})
        names[name] = names.get(name, 0) + 1
        self._total[shape] += 1
        if len(names) > 1 or names[name] > 1 or not shape:
            return False
        for rest in _rests(shape):
            self._shapes.setdefault(rest, set()).add(shape)
        return True

    def discard(self, name: str) -> bool:
        """Take back one addition of a name; return whether its shape is gone."""
        shape = shape_of(name)
        names = self._uses.get(shape, {})
        left = names.get(name, 0) - 1
        self._total[shape] -= left >= 0
        if left > 0:
            names[name] = left
        elif left == 0:
            del names[name]
            if not names:
                self._forget(shape)
                return bool(shape)
        return False

    def _forget(self, shape: str) -> None:
        del self._uses[shape], self._total[shape]
        for rest in _rests(shape):
            self._shapes[rest].discard(shape)
            if not self._shapes[rest]:
                del self._shapes[rest]

    def uses(self, name: str) -> int:
        """Return how often names of the same shape were added."""
        return self._total[shape_of(name)]

    def like(self, name: str) -> list[str]:
        """Return the names that differ from this one by one letter, one of each shape, in order.

        For each shape, that is the name with the same numbers, if there is one.
        """
        shape = shape_of(name)
        numbers = _NUMBER.findall(name)
        similar = []
        for other in sorted(self._shapes_like(shape)):
            same = _filled(other, numbers)
            names = self._uses[other]
            similar.append(same if same in names else next(iter(names)))
        return similar

    def _shapes_like(self, shape: str) -> set[str]:
        candidates: set[str] = set()
        for rest in _rests(shape):
            near = self._shapes.get(rest, ())
            if len(near) + (shape not in near) < _FAMILY:
                candidates.update(near)
        return {other for other in candidates if other != shape and are_similar(shape, other)}


def _filled(shape: str, numbers: list[str]) -> str:
    """Return the name with this shape and these numbers; "" if the shape has another count of numbers."""
    if shape.count(_DIGIT) != len(numbers):
        return ""
    left = iter(numbers)
    return _NUMBER.sub(lambda _: next(left), shape)


def _rests(shape: str) -> set[str]:
    """Return the shape itself, and its rests without one of the characters that may be a typing error."""
    if not shape:
        return set()
    spans = [word.span() for word in _WORDS.finditer(shape)]
    if _letters(shape) >= _WORD:
        spans += [other.span() for other in _SEPARATOR.finditer(shape)]
    return {shape, *(shape[:at] + shape[at + 1 :] for span in spans for at in range(*span))}


def are_similar(one: str, other: str) -> bool:
    """Return whether two different shapes differ by one letter, so that one may be the other with a typing error."""
    if len(one) < len(other):
        one, other = other, one
    if len(one) - len(other) > 1:
        return False
    at = _first_difference(one, other)
    if len(one) > len(other):
        return one[at + 1 :] == other[at:] and _is_slip(one, at)
    if one[at + 1 :] == other[at + 1 :]:
        return _is_wrong_letter(one, other, at)
    swapped = one[at : at + 2] == other[at : at + 2][::-1] and one[at + 2 :] == other[at + 2 :]
    return swapped and _DIGIT not in one[at : at + 2] and len(_word_at(one, at)) >= _SWAPPED_WORD


def _first_difference(one: str, other: str) -> int:
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), len(other))


def _is_wrong_letter(one: str, other: str, at: int) -> bool:
    a, b = one[at], other[at]
    if _DIGIT in (a, b):
        return False
    if not a.isalpha() and not b.isalpha():
        return _letters(one) >= _WORD  # '-' for '_'
    if at == len(one) - 1 and abs(ord(a) - ord(b)) == 1:
        return False
    return max(len(_word_at(one, at)), len(_word_at(other, at))) >= _WORD


def _is_slip(longer: str, at: int) -> bool:
    """Return whether that character is superfluous in the longer name, or missing in the other one."""
    if longer[at] == _DIGIT:
        return False
    return len(_word_at(longer, at)) >= _WORD if longer[at].isalpha() else _letters(longer) >= _WORD


def _word_at(shape: str, at: int) -> str:
    """Return the word around a position; "" if there is none."""
    begin = end = at
    while begin > 0 and shape[begin - 1].isalpha():
        begin -= 1
    while end < len(shape) and shape[end].isalpha():
        end += 1
    return shape[begin:end] if shape[at].isalpha() else ""


def _letters(shape: str) -> int:
    return sum(map(str.isalpha, shape))
