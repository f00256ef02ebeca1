"""Draws a small town at the sea: an image, and the masks of what is in it.

Things have parts, as SA-1B's masks do: a house is a whole, its roof a part, a window a subpart. The
mask of a thing is what one sees of it and of its parts. All is drawn from a seed; no photograph is
behind it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

_FINE = 3  # outlines are drawn at so many times the size, so that their edges are smooth
_SMALLEST = 1e-4  # of the image; less of a thing is no mask
_LIGHT = np.array([1.06, 1.02, 0.94])
_SHADE = np.array([0.70, 0.74, 0.84])

Points = Sequence[tuple[float, float]]


@dataclasses.dataclass
class _Thing:
    """A thing or a part: its number in the map of owners, and the thing that it is a part of."""

    number: int
    whole: _Thing | None


def draw(seed: int, height: int, width: int, most: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """Draws the town.

    Args:
      seed: the same seed gives the same town.
      height, width: of the image, in pixels.
      most: of the masks.

    Returns:
      The image, uint8 [height, width, 3], and at most `most` masks, bool [height, width], from
      wholes to subparts; none is empty.
    """
    town = _Town(seed, height, width)
    town.draw(most)
    return town.picture(), town.masks()[:most]


class _Town:
    def __init__(self, seed: int, height: int, width: int):
        self._rng = np.random.default_rng(seed)
        self._size = height, width
        self._aspect = width / height
        self._rows = (np.arange(height)[:, None] + 0.5) / height
        self._columns = (np.arange(width)[None, :] + 0.5) / height
        self._image = np.zeros((height, width, 3))
        self._owner = np.zeros((height, width), int)
        self._things: list[_Thing] = []
        self._horizon = self._rng.uniform(0.34, 0.44)
        self._evening = self._rng.random()  # 0: noon, 1: the sun is low

    def picture(self) -> np.ndarray:
        grain = self._rng.normal(0, 0.008, self._image.shape)
        return np.uint8(np.round(255 * np.clip(self._image + grain, 0, 1)))

    def masks(self) -> list[np.ndarray]:
        """Of each thing with its parts, wholes first, those of one kind in the order of drawing."""
        depths = [_depth(thing) for thing in self._things]
        order = np.argsort(depths, kind="stable")
        parts: dict[int, list[int]] = {thing.number: [] for thing in self._things}
        for thing in self._things:
            number = thing.number
            above: _Thing | None = thing
            while above is not None:
                parts[above.number].append(number)
                above = above.whole
        masks = [np.isin(self._owner, parts[self._things[i].number]) for i in order]
        return [mask for mask in masks if mask.mean() > _SMALLEST]

    def draw(self, most: int) -> None:
        self._sky()
        self._hills()
        self._sea()
        self._boats(1 + most // 12)
        self._land()
        self._lighthouse()
        self._houses(max(1, min(9, most // 6)))
        self._trees(max(1, min(9, most // 8)))

    # The parts of the scene, from far to near.

    def _sky(self) -> None:
        top = _mix((0.30, 0.52, 0.82), (0.34, 0.40, 0.66), self._evening)
        low = _mix((0.80, 0.89, 0.95), (0.99, 0.78, 0.58), self._evening)
        down = np.clip(self._rows / self._horizon, 0, 1)[..., None] ** 1.3
        clouds = np.clip(self._noise(3, 7, 4) * 2.4 - 1.15, 0, 1)[..., None] * (1 - 0.5 * down)
        sky = _mix(top, low, down)
        self._fill(None, _mix(sky, _mix((1, 1, 1), (1, 0.90, 0.82), self._evening), 0.8 * clouds))
        sun = (
            self._rng.uniform(0.2, 0.8) * self._aspect,
            self._horizon * self._rng.uniform(0.3, 0.7),
        )
        far = np.hypot(self._columns - sun[0], self._rows - sun[1])[..., None]
        glow = np.exp(-((far / 0.16) ** 2)) * 0.45
        self._image = _mix(self._image, np.array([1.0, 0.93, 0.74]), glow)
        self._ellipse(None, sun, (0.035, 0.035), np.array([1.0, 0.97, 0.86]))

    def _hills(self) -> None:
        for distance in (0.8, 0.45):
            ridge = self._horizon - 0.02 - (1 - distance) * 0.05
            line = ridge - 0.09 * self._ridge(2.5) * (1.4 - distance)
            colour = _mix((0.30, 0.44, 0.34), (0.60, 0.68, 0.78), distance)
            texture = 0.85 + 0.3 * self._noise(14, 18, 4)[..., None]
            self._area(None, line, self._horizon + 0.01, colour * texture)

    def _sea(self) -> None:
        depth = np.clip((self._rows - self._horizon) / (0.75 - self._horizon), 0, 1)[..., None]
        far = _mix((0.42, 0.62, 0.76), (0.86, 0.66, 0.58), self._evening * 0.8)
        near = _mix((0.06, 0.34, 0.48), (0.12, 0.28, 0.44), self._evening)
        waves = self._noise(5, 45, 3)[..., None] - 0.5
        sea = _mix(far, near, depth**0.7) + waves * (0.06 + 0.16 * depth)
        line = np.full(self._size[1], self._horizon)
        self._area(None, line, 2.0, sea)

    def _land(self) -> None:
        self._shore = 0.80 - 0.30 * self._smooth_step() - 0.03 * self._ridge(3)
        sand = _mix((0.86, 0.77, 0.57), (0.80, 0.66, 0.52), self._evening)
        foam = 0.92 + 0.1 * self._noise(60, 60, 2)[..., None]
        self._area(None, self._shore - 0.012, 2.0, np.array([0.93, 0.96, 0.97]) * foam)
        beach = self._thing(None)
        self._area(beach, self._shore, 2.0, sand * (0.9 + 0.2 * self._noise(70, 110, 3)[..., None]))
        meadow = self._thing(None)
        grass = _mix((0.36, 0.52, 0.22), (0.42, 0.44, 0.20), self._evening)
        blades = 0.72 + 0.56 * self._noise(60, 90, 4)[..., None]
        lit = 1.15 - 0.35 * np.clip((self._rows - 0.5) * 1.6, 0, 1)[..., None]
        self._grass_line = self._shore + 0.045 + 0.015 * self._ridge(5)
        self._area(meadow, self._grass_line, 2.0, grass * blades * lit)

    def _boats(self, count: int) -> None:
        for i in range(min(count, 5)):
            y = self._horizon + 0.05 + 0.055 * i + self._rng.uniform(0, 0.02)
            x = self._rng.uniform(0.08, 0.92) * self._aspect
            self._boat(x, y, 0.5 + 1.6 * (y - self._horizon) / 0.3)

    def _boat(self, x: float, y: float, size: float) -> None:
        s = 0.055 * size
        below = [(x - s, y), (x + s, y), (x + 0.5 * s, y + 1.3 * s), (x - 0.5 * s, y + 1.3 * s)]
        self._polygon(None, below, np.array([0.10, 0.20, 0.28]), opacity=0.28)
        boat = self._thing(None)
        wood = self._colour([(0.86, 0.30, 0.22), (0.16, 0.30, 0.52), (0.93, 0.93, 0.90)])
        hull = [(x - s, y - 0.32 * s), (x + 1.1 * s, y - 0.36 * s), (x + 0.75 * s, y + 0.18 * s)]
        hull += [(x - 0.72 * s, y + 0.18 * s)]
        self._polygon(self._thing(boat), hull, self._down(wood, 0.55, y - 0.3 * s, y + 0.2 * s))
        self._polygon(boat, _box(x - 0.03 * s, y - 2.5 * s, 0.07 * s, 2.2 * s), (0.36, 0.26, 0.18))
        cloth = self._colour([(0.98, 0.96, 0.90), (0.98, 0.86, 0.62), (0.93, 0.55, 0.42)])
        main = [
            (x + 0.08 * s, y - 2.4 * s),
            (x + 0.95 * s, y - 0.5 * s),
            (x + 0.08 * s, y - 0.5 * s),
        ]
        self._polygon(self._thing(boat), main, self._across(cloth, x, x + s))
        fore = [
            (x - 0.06 * s, y - 2.1 * s),
            (x - 0.8 * s, y - 0.5 * s),
            (x - 0.06 * s, y - 0.5 * s),
        ]
        self._polygon(self._thing(boat), fore, self._across(cloth * 0.92, x - s, x))

    def _lighthouse(self) -> None:
        at = int(self._size[1] * self._rng.uniform(0.05, 0.14))
        x, y = (at + 0.5) / self._size[0], float(self._grass_line[at]) + 0.015
        s = 0.30
        tower = self._thing(None)
        body = [
            (x - 0.10 * s, y),
            (x + 0.10 * s, y),
            (x + 0.065 * s, y - s),
            (x - 0.065 * s, y - s),
        ]
        white = np.array([0.95, 0.94, 0.91])
        self._polygon(tower, body, self._across(white, x - 0.1 * s, x + 0.1 * s))
        for k in (0.18, 0.5):
            wide, narrow = 0.10 - 0.035 * k, 0.10 - 0.035 * (k + 0.17)
            band = [(x - wide * s, y - k * s), (x + wide * s, y - k * s)]
            band += [(x + narrow * s, y - (k + 0.17) * s), (x - narrow * s, y - (k + 0.17) * s)]
            red = self._across(np.array([0.80, 0.20, 0.16]), x - 0.1 * s, x + 0.1 * s)
            self._polygon(self._thing(tower), band, red)
        lamp = self._thing(tower)
        self._polygon(lamp, _box(x - 0.05 * s, y - 1.13 * s, 0.10 * s, 0.13 * s), (1.0, 0.93, 0.66))
        roof = [(x - 0.075 * s, y - 1.12 * s), (x + 0.075 * s, y - 1.12 * s), (x, y - 1.25 * s)]
        self._polygon(lamp, roof, (0.58, 0.14, 0.12))

    def _houses(self, count: int) -> None:
        spots = (np.arange(count) + self._rng.uniform(0.2, 0.8, count)) / count
        places = []
        for k, spot in enumerate(self._rng.permutation(spots)):
            x = (0.20 + 0.76 * spot) * self._aspect
            column = min(self._size[1] - 1, int(x * self._size[0]))
            top = float(self._grass_line[column])
            y = top + 0.03 + (0.94 - top) * (0.12 + 0.75 * ((k * 0.618) % 1))
            places.append((y, x))
        for y, x in sorted(places):
            self._house(x, y, 0.10 + 0.16 * (y - 0.5))

    def _house(self, x: float, y: float, s: float) -> None:
        wall = self._colour(
            [(0.96, 0.92, 0.82), (0.94, 0.80, 0.62), (0.80, 0.87, 0.90), (0.93, 0.72, 0.64)]
        )
        tiles = self._colour([(0.74, 0.34, 0.22), (0.62, 0.27, 0.20), (0.42, 0.44, 0.48)])
        wide, deep, high = (
            s * self._rng.uniform(0.95, 1.25),
            0.5 * s,
            s * self._rng.uniform(0.8, 1.1),
        )
        shadow = [(x, y), (x + wide + deep, y - 0.12 * s), (x + wide + 1.9 * deep, y + 0.10 * s)]
        self._polygon(
            None, [*shadow, (x + 0.6 * wide, y + 0.10 * s)], (0.08, 0.12, 0.10), opacity=0.35
        )
        house = self._thing(None)
        plaster = 0.93 + 0.14 * self._noise(50, 50, 3)[..., None]
        side = [(x + wide, y), (x + wide + deep, y - 0.12 * s)]
        side += [(x + wide + deep, y - high - 0.05 * s), (x + wide, y - high)]
        self._polygon(house, side, wall * _SHADE * plaster)
        gable = (x + wide / 2, y - high - 0.55 * s)
        front = [(x, y), (x + wide, y), (x + wide, y - high), gable, (x, y - high)]
        self._polygon(house, front, wall * _LIGHT * plaster)
        roof = self._thing(house)
        back = (gable[0] + deep * 1.02, gable[1] - 0.05 * s)
        eave = (x + wide + deep * 1.12, y - high + 0.02 * s)
        slope = [gable, back, eave, (x + wide + 0.08 * s, y - high + 0.08 * s)]
        rows = (
            0.86 + 0.16 * np.sin((self._rows + 0.3 * self._columns) * 2 * np.pi * 9 / s)[..., None]
        )
        chimney = self._thing(roof)
        stack = _box(x + wide * 0.5 + 0.35 * deep, gable[1] - 0.12 * s, 0.13 * s, 0.3 * s)
        self._polygon(
            chimney, stack, self._across(np.array([0.60, 0.36, 0.29]), stack[0][0], stack[1][0])
        )
        self._polygon(roof, slope, tiles * rows * plaster)
        rim = [gable, (x + wide + 0.08 * s, y - high + 0.08 * s), (x + wide, y - high + 0.10 * s)]
        rim += [
            (gable[0], gable[1] + 0.12 * s),
            (x, y - high + 0.10 * s),
            (x - 0.08 * s, y - high + 0.08 * s),
        ]
        self._polygon(roof, rim, tiles * 0.72)
        door = self._thing(house)
        wood = self._colour([(0.40, 0.25, 0.15), (0.18, 0.36, 0.33), (0.52, 0.16, 0.14)])
        frame = _box(x + 0.42 * wide, y - 0.46 * high, 0.2 * wide, 0.46 * high)
        self._polygon(door, frame, self._down(wood, 0.75, y - 0.46 * high, y))
        knob = (x + 0.58 * wide, y - 0.21 * high)
        self._ellipse(door, knob, (0.012 * s, 0.012 * s), np.array([0.95, 0.84, 0.46]))
        for column in (0.10, 0.70):
            self._window(house, x + column * wide, y - 0.52 * high, 0.2 * wide, 0.3 * high)
        self._window(house, x + 0.40 * wide, y - 0.98 * high, 0.2 * wide, 0.26 * high)

    def _window(self, house: _Thing, x: float, y: float, wide: float, high: float) -> None:
        window = self._thing(house)
        m = 0.16 * wide
        self._polygon(window, _box(x - m, y - m, wide + 2 * m, high + 2 * m), (0.97, 0.96, 0.93))
        glass = self._thing(window)
        lit = self._rng.random() < 0.35 * self._evening + 0.1
        colour = np.array([1.0, 0.84, 0.50]) if lit else np.array([0.30, 0.42, 0.54])
        shine = self._down(colour * 1.25, 0.7, y, y + high)
        self._polygon(glass, _box(x, y, wide, high), shine)
        bar = 0.10 * wide
        self._polygon(window, _box(x + wide / 2 - bar / 2, y, bar, high), (0.97, 0.96, 0.93))
        self._polygon(window, _box(x, y + high / 2 - bar / 2, wide, bar), (0.97, 0.96, 0.93))

    def _trees(self, count: int) -> None:
        places = []
        for k in range(count):
            x = ((k + self._rng.uniform(0.1, 0.9)) / count) * self._aspect
            column = min(self._size[1] - 1, int(x * self._size[0]))
            top = float(self._grass_line[column])
            places.append((top + 0.05 + (1.0 - top) * self._rng.uniform(0.3, 0.95), x))
        for y, x in sorted(places):
            self._tree(x, y, 0.09 + 0.16 * (y - 0.5))

    def _tree(self, x: float, y: float, s: float) -> None:
        self._ellipse(
            None, (x + 0.5 * s, y), (0.75 * s, 0.13 * s), (0.08, 0.12, 0.10), opacity=0.35
        )
        tree = self._thing(None)
        trunk = [
            (x - 0.07 * s, y),
            (x + 0.08 * s, y),
            (x + 0.05 * s, y - 0.8 * s),
            (x - 0.04 * s, y - 0.8 * s),
        ]
        self._polygon(
            tree, trunk, self._across(np.array([0.38, 0.27, 0.18]), x - 0.07 * s, x + 0.08 * s)
        )
        crown = self._thing(tree)
        green = self._colour([(0.24, 0.42, 0.16), (0.33, 0.46, 0.17), (0.16, 0.36, 0.22)])
        leaves = 0.62 + 0.76 * self._noise(70, 70, 3)[..., None]
        for dx, dy, r in (
            (-0.28, -1.0, 0.34),
            (0.30, -0.98, 0.36),
            (0.02, -1.32, 0.38),
            (0, -0.95, 0.4),
        ):
            at = x + dx * s, y + dy * s
            ball = (self._columns - at[0]) * 0.7 - (self._rows - at[1])
            light = np.clip(0.95 - 0.45 * -ball / (r * s), 0.6, 1.35)[..., None]
            self._ellipse(crown, at, (r * s, r * s), green * leaves * light)

    # Tools.

    def _thing(self, whole: _Thing | None) -> _Thing:
        self._things.append(_Thing(len(self._things) + 1, whole))
        return self._things[-1]

    def _polygon(
        self, thing: _Thing | None, points: Points, colour: object, opacity: float = 1
    ) -> None:
        x, y = zip(*points, strict=True)
        self._lay(thing, "polygon", (min(x), min(y), max(x), max(y)), points, colour, opacity)

    def _ellipse(
        self,
        thing: _Thing | None,
        at: tuple[float, float],
        radii: tuple[float, float],
        colour: object,
        opacity: float = 1,
    ) -> None:
        box = (at[0] - radii[0], at[1] - radii[1], at[0] + radii[0], at[1] + radii[1])
        self._lay(thing, "ellipse", box, [box[:2], box[2:]], colour, opacity)

    def _lay(
        self,
        thing: _Thing | None,
        shape: str,
        box: tuple[float, float, float, float],
        points: Points,
        colour: object,
        opacity: float,
    ) -> None:
        """Draws a shape of Pillow's finely, in the pixels that it touches, and lays it over."""
        height, width = self._size
        left, top = (max(0, int(side * height) - 1) for side in box[:2])
        right = min(width, int(box[2] * height) + 2)
        bottom = min(height, int(box[3] * height) + 2)
        if left >= right or top >= bottom:
            return
        fine = Image.new("L", ((right - left) * _FINE, (bottom - top) * _FINE))
        at = [((x * height - left) * _FINE, (y * height - top) * _FINE) for x, y in points]
        getattr(ImageDraw.Draw(fine), shape)(at, fill=255)
        cover = np.asarray(fine.reduce(_FINE), float) / 255
        self._cover(thing, cover, colour, opacity, (slice(top, bottom), slice(left, right)))

    def _area(self, thing: _Thing | None, top: np.ndarray, bottom: float, colour: object) -> None:
        """What is below a line over all columns, as far as `bottom`."""
        rows = self._rows * self._size[0]
        cover = np.clip(rows - top[None, :] * self._size[0] + 0.5, 0, 1) * (self._rows < bottom)
        self._cover(thing, cover, colour)

    def _fill(self, thing: _Thing | None, colour: object) -> None:
        self._cover(thing, np.ones(self._size), colour)

    def _cover(
        self,
        thing: _Thing | None,
        cover: np.ndarray,
        colour: object,
        opacity: float = 1,
        where: tuple[slice, slice] = (slice(None), slice(None)),
    ) -> None:
        """Lays a colour, one or one for each pixel of the image, over a part of the image."""
        colour = np.asarray(colour)
        here = colour if colour.ndim == 1 else colour[where]
        self._image[where] = _mix(self._image[where], here, opacity * cover[..., None])
        if opacity == 1:
            self._owner[where][cover >= 0.5] = 0 if thing is None else thing.number

    def _colour(self, choices: Sequence[tuple[float, float, float]]) -> np.ndarray:
        chosen = np.array(choices[self._rng.integers(len(choices))])
        warm = _mix(np.ones(3), np.array([1.05, 0.93, 0.84]), self._evening)
        return np.clip(chosen * warm * self._rng.uniform(0.93, 1.05), 0, 1)

    def _across(self, colour: np.ndarray, left: float, right: float) -> np.ndarray:
        """Bright on the left, where the light comes from, and darker to the right."""
        way = np.clip((self._columns - left) / (right - left), 0, 1)[..., None]
        return colour * (1.08 - 0.42 * way) * np.ones((*self._size, 1))

    def _down(self, colour: np.ndarray, dark: float, top: float, bottom: float) -> np.ndarray:
        way = np.clip((self._rows - top) / max(bottom - top, 1e-6), 0, 1)[..., None]
        return colour * (1 - (1 - dark) * way) * np.ones((*self._size, 1))

    def _noise(self, across: float, down: float, octaves: int) -> np.ndarray:
        """Smooth noise of 0 to 1: so many spots over the image's height, to the right and down."""
        height, width = self._size
        total = np.zeros(self._size)
        for octave in range(octaves):
            rows = min(height, max(2, round(down * 2**octave)))
            columns = min(width, max(2, round(across * self._aspect * 2**octave)))
            spots = Image.fromarray(self._rng.random((rows, columns)).astype(np.float32))
            smooth = spots.resize((width, height), Image.Resampling.BICUBIC)
            total += np.asarray(smooth) * 0.5**octave
        return np.clip(total / (2 - 0.5 ** (octaves - 1)), 0, 1)

    def _ridge(self, waves: float) -> np.ndarray:
        """A line of hills, 0 to 1, a value for each column."""
        x = np.linspace(0, waves * 2 * np.pi, self._size[1])
        line = sum(np.sin(x * f + self._rng.uniform(0, 6)) / f for f in (0.5, 1, 2.3))
        return 0.5 + 0.22 * line

    def _smooth_step(self) -> np.ndarray:
        x = np.clip((np.linspace(0, 1, self._size[1]) - 0.05) / 0.75, 0, 1)
        return x * x * (3 - 2 * x)


def _depth(thing: _Thing) -> int:
    return 0 if thing.whole is None else 1 + _depth(thing.whole)


def _box(x: float, y: float, wide: float, high: float) -> Points:
    return [(x, y), (x + wide, y), (x + wide, y + high), (x, y + high)]


def _mix(one: object, other: object, share: object) -> np.ndarray:
    return np.asarray(one) * (1 - np.asarray(share)) + np.asarray(other) * np.asarray(share)
