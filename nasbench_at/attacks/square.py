"""Square, AutoAttack's random search, with each image at its own pace through the queries."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Generator, Tensor

from .norms import lengths
from .objectives import lead
from .protocol import Network

_TINY = 1e-12
_FIRST_SHARE = 0.8
"""Share of the image that the first squares cover."""
_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Queries after which the share is halved."""
_LOOKAHEAD = 128
_WASTE = 0.25
"""Queries that a batch may expect to compute in vain, of one image."""
_SHORT, _LONG = 8, 256


@dataclass(frozen=True)
class Square:
    """Random search by squares: a change is kept if it lowers the margin.

    An image's next query changes what its last accepted one left. Queries that are rejected change
    nothing; therefore several of an image's next queries go through the model at the same time,
    and what follows the first accepted one is computed anew. A query that would give an image that
    was rejected since the last accepted one, or the same image again, is rejected without the
    model: in small images that are nearly all.

    Random numbers are those of the library. Under L-infinity all images share them; under L2 they
    depend on how many images are left, so that an image that is fooled ends the queries drawn
    ahead.

    Attributes:
        eps: Radius of the ball.
        norm: `Linf` or `L2`.
        queries: Number of queries after the first.

    Reference:
        Andriushchenko et al. 2020; the code follows pyautoattack's.
    """

    eps: float
    norm: str
    queries: int

    def attack(
        self, model: Network, x: Tensor, y: Tensor, generator: Generator, *, max_rows: int
    ) -> Tensor:
        """Returns images that are no longer classified as `y`, or else clean ones.

        Args:
            model: Maps images to logits.
            x: Images in [0, 1], all classified correctly.
            y: True classes.
            generator: Source of randomness, on the CPU.
            max_rows: How many images may go through the model at a time, if `x` has fewer.

        Shapes:
            x and the result: (N, C, H, W). y: (N,).
        """
        with torch.no_grad():
            search = self._search_linf if self.norm == "Linf" else self._search_l2
            found = search(model, x, y, generator, max_rows)
        return torch.where((found.margin <= 0).view(-1, 1, 1, 1), found.best, x)

    def _search_linf(
        self, model: Network, x: Tensor, y: Tensor, generator: Generator, max_rows: int
    ) -> _Search:
        channels, height, width = x.shape[1:]
        stripes = _random_signs((len(x), channels, 1, width), generator).to(x)
        search = _Search(model, x, y, (x + self.eps * stripes).clamp(0, 1), max_rows)
        sizes = torch.tensor(_square_sizes(self.queries, height, width))
        draws = torch.rand(self.queries, 2 + channels, generator=generator)
        squares = _LinfSquares(x, self.eps, sizes, draws)
        search.run(squares, torch.arange(len(x), device=x.device), 0, self.queries)
        return search

    def _search_l2(
        self, model: Network, x: Tensor, y: Tensor, generator: Generator, max_rows: int
    ) -> _Search:
        search = _Search(model, x, y, self._start_l2(x, generator), max_rows)
        sizes = [_odd_size(size, x.shape) for size in _square_sizes(self.queries, *x.shape[2:])]
        rows = (search.margin > 0).nonzero().squeeze(1)
        first, length, codes = 0, _SHORT, None
        while first < self.queries and len(rows):
            size = sizes[first]
            stop = min(first + length, self.queries)
            while sizes[stop - 1] != size:
                stop -= 1
            state, saved = generator.get_state(), search.save(rows)
            draws = torch.rand(stop - first, 5 + len(rows) * x.shape[1], generator=generator)
            squares = _L2Squares(x, self.eps, size, draws, rows, first, codes)
            length = min(2 * length, _LONG)
            while True:
                search.run(squares, rows, first, stop)
                fooled = rows[search.margin[rows] <= 0]
                end = int(search.accepted[fooled].min()) + 1 if len(fooled) else stop
                if end == stop:
                    break
                # Later queries were drawn for too many images.
                search.restore(rows, saved)
                stop, length = end, _SHORT
            generator.set_state(state)
            torch.rand(stop - first, draws.shape[1], generator=generator)
            stays = search.margin[rows] > 0
            is_same = stop < self.queries and sizes[stop] == size
            codes = squares.codes[stays, : squares.codes.shape[1] - (first + len(draws) - stop)]
            codes = codes if is_same else None
            rows, first = rows[stays], stop
        return search

    def _start_l2(self, x: Tensor, generator: Generator) -> Tensor:
        """Covers the image with tiles."""
        channels, height, width = x.shape[1:]
        size = height // 5
        top = (height - 5 * size) // 2
        delta = torch.zeros_like(x)
        for row in range(top, top + height // size * size, size):
            for column in range(top, top + width // size * size, size):
                is_turned = torch.rand(1, generator=generator) > 0.5
                signs = _random_signs((len(x), channels, 1, 1), generator).to(x)
                tile = _tile(size).to(x)
                tile = tile.t() if is_turned else tile
                covered = delta[:, :, row : row + size, column : column + size]
                # The last tiles may reach beyond the image.
                covered += tile[: covered.shape[2], : covered.shape[3]] * signs
        return _onto_sphere(x, delta, self.eps)


class _Squares(Protocol):
    """The queries of a search.

    Attributes:
        codes: Equal for queries that would change one image in the same way, (rows or 1, queries).
    """

    codes: Tensor
    first: int

    def apply(self, best: Tensor, rows: Tensor, queries: Tensor) -> Tensor:
        """Returns the samples' images `best`, (P, C, H, W), changed by one query each."""


class _LinfSquares:
    """Squares whose pixels go to the upper or the lower end of the budget, channel by channel."""

    def __init__(self, x: Tensor, eps: float, sizes: Tensor, draws: Tensor) -> None:
        height, width = x.shape[2:]
        top = ((height - sizes) * draws[:, 0]).long()
        left = ((width - sizes) * draws[:, 1]).long()
        signs = (2 * draws[:, 2:] - 1).sign()
        self.first = 0
        corners = (sizes, max(height, width) + 1), (top, height), (left, width)
        codes = _encode(corners, signs, torch.arange(len(draws)))
        self.codes = codes.unsqueeze(0).to(x.device)
        self._x, self._eps = x, eps
        self._rows = _between(top, sizes, height).to(x.device)
        self._columns = _between(left, sizes, width).to(x.device)
        self._values = (2.0 * eps * signs).to(x)

    def apply(self, best: Tensor, rows: Tensor, queries: Tensor) -> Tensor:
        """Returns changed images."""
        inside = self._rows[queries].unsqueeze(2) & self._columns[queries].unsqueeze(1)
        delta = inside.unsqueeze(1) * self._values[queries, :, None, None]
        x = self._x[rows]
        changed = torch.min(torch.max(best + delta, x - self._eps), x + self._eps)
        return changed.clamp(0, 1)


class _L2Squares:
    """Pairs of windows: what the second one changed goes into the first, as a tile of two signs."""

    def __init__(
        self,
        x: Tensor,
        eps: float,
        size: int,
        draws: Tensor,
        rows: Tensor,
        first: int,
        codes: Tensor | None,
    ) -> None:
        channels, height, width = x.shape[1:]
        room = torch.tensor([height - size, width - size, height - size, width - size])
        corners = (room * draws[:, :4]).long()
        is_turned = draws[:, 4] > 0.5
        signs = (2 * draws[:, 5:] - 1).sign().view(len(draws), len(rows), channels)
        windows = zip(corners.unbind(1), (height, width, height, width), strict=True)
        parts = [(place.unsqueeze(1), bound) for place, bound in windows]
        parts.append((is_turned.long().unsqueeze(1), 2))
        numbers = torch.arange(first, first + len(draws)).unsqueeze(1)
        new = _encode(parts, signs, numbers).t().to(x.device)
        self.first = first if codes is None else first - codes.shape[1]
        self.codes = new if codes is None else torch.cat((codes, new), dim=1)
        self._start = first
        self._x, self._eps, self._size = x, eps, size
        self._corners, self._signs = corners.to(x.device), signs.to(x)
        self._place = torch.zeros(len(x), dtype=torch.long, device=x.device)
        self._place[rows] = torch.arange(len(rows), device=x.device)
        tile = _tile(size).to(x)
        self._tiles = torch.stack((tile, tile.t()))[is_turned.long().to(x.device)]

    def apply(self, best: Tensor, rows: Tensor, queries: Tensor) -> Tensor:
        """Returns changed images."""
        x, number = self._x[rows], queries - self._start
        channels, height, width = x.shape[1:]
        delta = best - x
        top, left, top2, left2 = self._corners[number].unbind(1)
        mask = _window(top, left, self._size, height, width)
        mask2 = _window(top2, left2, self._size, height, width)
        budget = (
            torch.full_like(delta[:1, :1, :1, :1], self._eps) ** 2 - lengths(delta) ** 2
        ).clamp(min=0)
        freed = (delta * (mask | mask2)).square().sum(dim=(-2, -1), keepdim=True).sqrt()
        here = self._window_index(top, left, channels)
        old = delta[here]
        old = old / (_TINY + old.square().sum(dim=(-2, -1), keepdim=True).sqrt())
        signs = self._signs[number, self._place[rows]][..., None, None]
        new = self._tiles[number].unsqueeze(1) * signs + old
        new = new / (_TINY + new.square().sum(dim=(-2, -1), keepdim=True).sqrt())
        new = new * (budget / channels + freed**2).sqrt()
        delta = delta.masked_fill(mask2, 0)
        delta[here] = new
        return _onto_sphere(x, delta, self._eps)

    def _window_index(self, top: Tensor, left: Tensor, channels: int) -> tuple[Tensor, ...]:
        along = torch.arange(self._size, device=top.device)
        pairs = torch.arange(len(top), device=top.device).view(-1, 1, 1, 1)
        planes = torch.arange(channels, device=top.device).view(1, -1, 1, 1)
        lines = (top.view(-1, 1) + along).view(len(top), 1, -1, 1)
        columns = (left.view(-1, 1) + along).view(len(left), 1, 1, -1)
        return pairs, planes, lines, columns


class _Search:
    """The best image of each sample so far, and how it fares.

    Attributes:
        best: The images.
        margin: How far the true class leads, (N,); the sample is fooled at 0 or below.
        accepted: The last accepted query, (N,); -1 before the first.
    """

    def __init__(self, model: Network, x: Tensor, y: Tensor, best: Tensor, max_rows: int) -> None:
        self._model, self._y, self._max_rows = model, y, max_rows
        self.best = best
        self.margin = self._measure(best, y)
        self.accepted = torch.full_like(y, -1)
        self._num_tried, self._num_accepted = 2.0, 1.0

    def save(self, rows: Tensor) -> tuple[Tensor, ...]:
        """Returns the state of some samples."""
        return self.best[rows], self.margin[rows], self.accepted[rows]

    def restore(self, rows: Tensor, state: Sequence[Tensor]) -> None:
        """Takes some samples back to a state."""
        self.best[rows], self.margin[rows], self.accepted[rows] = state

    def run(self, squares: _Squares, rows: Tensor, first: int, stop: int) -> None:
        """Takes samples through queries `first` to `stop`, each at its own pace."""
        previous = _previous_equal(squares.codes, squares.first)
        place = torch.zeros_like(self._y)
        if len(previous) > 1:
            place[rows] = torch.arange(len(rows), device=rows.device)
        ahead = torch.arange(_LOOKAHEAD, device=rows.device)
        position = torch.full_like(self._y, first)
        while True:
            rows = rows[(position[rows] < stop) & (self.margin[rows] > 0)]
            if len(rows) == 0:
                return
            queries = position[rows].unsqueeze(1) + ahead
            before = previous[place[rows].unsqueeze(1), queries.clamp(max=stop - 1) - squares.first]
            # What was rejected since the last accepted query would be rejected again.
            is_open = (queries < stop) & (before <= self.accepted[rows].unsqueeze(1))
            rank = is_open.cumsum(dim=1)
            taken = is_open & (rank <= self._num_at_once(len(rows)))
            last_taken = (queries * taken).amax(dim=1)
            goes_through = (is_open & ~taken).sum(dim=1) == 0
            position[rows] = torch.where(goes_through, queries[:, -1], last_taken) + 1
            pairs, queries = rows.unsqueeze(1).expand_as(taken)[taken], queries[taken]
            self._try(squares, pairs, queries, position)

    def _try(self, squares: _Squares, rows: Tensor, queries: Tensor, position: Tensor) -> None:
        """Accepts each sample's first query that lowers its margin, and goes on behind it."""
        best = self.best[rows]
        images = squares.apply(best, rows, queries)
        differs = (images != best).flatten(1).any(dim=1)
        rows, queries, images = rows[differs], queries[differs], images[differs]
        if len(rows) == 0:
            return
        margin = self._measure(images, self._y[rows])
        improves = margin < self.margin[rows]
        first = torch.full_like(self._y, torch.iinfo(torch.int64).max)
        first.scatter_reduce_(0, rows[improves], queries[improves], "amin")
        wins = improves & (queries == first[rows])
        winners = rows[wins]
        self.best[winners], self.margin[winners] = images[wins], margin[wins]
        self.accepted[winners] = queries[wins]
        position[winners] = queries[wins] + 1
        self._num_tried = 0.9 * self._num_tried + len(rows)
        self._num_accepted = 0.9 * self._num_accepted + len(winners)

    def _num_at_once(self, num_rows: int) -> int:
        """How many of a sample's next queries fit into a batch and are probably not in vain."""
        num_worthwhile = int(_WASTE * self._num_tried / max(self._num_accepted, 1e-3))
        return max(1, min(self._max_rows // num_rows, num_worthwhile))

    def _measure(self, images: Tensor, labels: Tensor) -> Tensor:
        """Returns how far the true class leads, (N,)."""
        return lead(self._model(images), labels)


def _square_sizes(queries: int, height: int, width: int) -> list[int]:
    """Returns the side of the square in each query."""
    sizes = []
    for query in range(queries):
        share = _FIRST_SHARE / 2 ** sum(query > halving for halving in _HALVINGS)
        size = max(round(math.sqrt(share * height * width)), 1)
        sizes.append(min(size, height, width))
    return sizes


def _odd_size(size: int, shape: Sequence[int]) -> int:
    """Returns the side of L2's windows: odd, and at least 3."""
    size = max(size, 3)
    return min(size + 1 - size % 2, *shape[2:])


def _random_signs(shape: Sequence[int], generator: Generator) -> Tensor:
    return (2 * torch.rand(shape, generator=generator) - 1).sign()


def _tile(size: int) -> Tensor:
    """Returns two nested pyramids of opposite signs, of Euclidean length 1, (size, size)."""
    tile = torch.zeros(size, size)
    tile[: size // 2] = _pyramid(size // 2, size)
    tile[size // 2 :] = -_pyramid(size - size // 2, size)
    return tile / tile.square().sum(dim=(0, 1), keepdim=True).sqrt()


def _pyramid(height: int, width: int) -> Tensor:
    """Returns rectangles within each other, the inner ones higher, of Euclidean length 1."""
    pyramid = torch.zeros(height, width)
    top, left = height // 2, width // 2
    for number in range(max(height // 2, width // 2) + 1):
        rows = slice(max(top, 0), min(top + 2 * number + 1, height))
        columns = slice(max(left, 0), min(left + 2 * number + 1, width))
        pyramid[rows, columns] += 1.0 / torch.tensor(number + 1.0).square()
        top, left = top - 1, left - 1
    return pyramid / pyramid.square().sum(dim=(0, 1), keepdim=True).sqrt()


def _onto_sphere(x: Tensor, delta: Tensor, eps: float) -> Tensor:
    return (x + delta / (lengths(delta) + _TINY) * eps).clamp(0, 1)


def _between(start: Tensor, size: Tensor | int, length: int) -> Tensor:
    """Returns masks (P, length) of the places from `start` on."""
    places = torch.arange(length, device=start.device)
    begins = start.unsqueeze(1)
    ends = (start + size).unsqueeze(1)
    return (places >= begins) & (places < ends)


def _window(top: Tensor, left: Tensor, size: int, height: int, width: int) -> Tensor:
    """Returns masks of windows, (P, 1, height, width)."""
    rows, columns = _between(top, size, height), _between(left, size, width)
    return (rows.unsqueeze(2) & columns.unsqueeze(1)).unsqueeze(1)


def _encode(parts: Sequence[tuple[Tensor, int]], signs: Tensor, queries: Tensor) -> Tensor:
    """Returns whole numbers that are equal only where parts, below their bounds, and signs are.

    Args:
        parts: Tensors that broadcast to the result, and their bounds.
        signs: (..., channels).
        queries: Numbers of the queries, instead where there are too many channels for a code.
    """
    parts = [*parts, *((sign.long() + 1, 3) for sign in signs.unbind(-1))]
    if math.prod(bound for _, bound in parts) > torch.iinfo(torch.int64).max:
        return queries.expand(signs.shape[:-1])
    code = torch.zeros((), dtype=torch.int64)
    for part, bound in parts:
        code = code * bound + part
    return code


def _previous_equal(codes: Tensor, first: int) -> Tensor:
    """Returns for queries from `first` on which earlier one has the same code, -1 for none.

    Shapes:
        codes, result: (rows, queries).
    """
    ordered, order = codes.sort(dim=1, stable=True)
    earlier = torch.where(ordered[:, 1:] == ordered[:, :-1], order[:, :-1] + first, -1)
    return torch.full_like(order, -1).scatter(1, order[:, 1:], earlier)
