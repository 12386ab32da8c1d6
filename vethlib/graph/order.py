"""Which order leaves few crossings, and where things stand that are wanted in places without room for all: pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

__all__ = ["spread", "untangled"]


def spread(wanted: Sequence[float], sizes: Sequence[float]) -> list[float]:
    """Where to put things of these sizes, one below the other, each as near as can be to where it is wanted.

    That is isotonic regression (pool adjacent violators) of what is wanted less what lies above.
    """
    above = [0.0]
    for size in sizes:
        above.append(above[-1] + size)
    pools: list[tuple[float, int]] = []  # the mean, and of how many
    for want, offset in zip(wanted, above, strict=False):
        mean, count = want - offset, 1
        while pools and pools[-1][0] > mean:
            other, more = pools.pop()
            mean, count = (mean * count + other * more) / (count + more), count + more
        pools.append((mean, count))
    means = [mean for mean, count in pools for _ in range(count)]
    return [mean + offset for mean, offset in zip(means, above, strict=False)]


def untangled(order: Sequence[Sequence[str]], near: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """The columns with fewer crossings: each box goes where the middle of its neighbours is, a few times over."""
    found = [list(column) for column in order]
    for number in range(6):
        sweep = range(len(found)) if number % 2 == 0 else range(len(found) - 1, -1, -1)
        for column in sweep:
            rank: dict[str, float] = {}
            for other in (column - 1, column + 1):
                if 0 <= other < len(found):
                    size = max(1, len(found[other]))
                    rank.update({name: (place + 0.5) / size for place, name in enumerate(found[other])})
            size = len(found[column])

            def key(item: tuple[int, str], rank: Mapping[str, float] = rank, size: int = size) -> float:
                place, name = item
                places = [rank[one] for one in near[name] if one in rank]
                return sum(places) / len(places) if places else (place + 0.5) / size

            found[column] = [name for _, name in sorted(enumerate(found[column]), key=key)]
    return found
