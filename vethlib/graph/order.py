"""Find an order with few crossings, and places for things whose desired places overlap. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

__all__ = ["spread", "untangled"]


def spread(desired: Sequence[float], sizes: Sequence[float]) -> list[float]:
    """Place things of these sizes below each other, each as near as possible to its desired place.

    This is isotonic regression (pool adjacent violators) of the desired places less the sizes above.
    """
    above = [0.0]
    for size in sizes:
        above.append(above[-1] + size)
    pools: list[tuple[float, int]] = []  # each: the mean, and the number of things
    for want, offset in zip(desired, above, strict=False):
        mean, count = want - offset, 1
        while pools and pools[-1][0] > mean:
            other, more = pools.pop()
            mean, count = (mean * count + other * more) / (count + more), count + more
        pools.append((mean, count))
    means = [mean for mean, count in pools for _ in range(count)]
    return [mean + offset for mean, offset in zip(means, above, strict=False)]


def untangled(order: Sequence[Sequence[str]], near: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """Reduce the crossings of columns: a few times, move each box to the average place of its neighbours."""
    columns = [list(column) for column in order]
    for number in range(6):
        sweep = range(len(columns)) if number % 2 == 0 else range(len(columns) - 1, -1, -1)
        for column in sweep:
            rank: dict[str, float] = {}
            for other in (column - 1, column + 1):
                if 0 <= other < len(columns):
                    size = max(1, len(columns[other]))
                    rank.update({name: (place + 0.5) / size for place, name in enumerate(columns[other])})
            size = len(columns[column])

            def key(item: tuple[int, str], rank: Mapping[str, float] = rank, size: int = size) -> float:
                place, name = item
                places = [rank[neighbour] for neighbour in near[name] if neighbour in rank]
                return sum(places) / len(places) if places else (place + 0.5) / size

            columns[column] = [name for _, name in sorted(enumerate(columns[column]), key=key)]
    return columns
