"""Materials for synthetic occluders: smooth noise, object colours, and patterns. Colours are sRGB, 0..1."""

import cv2
import numpy as np


def noise(rng: np.random.Generator, height: int, width: int, cells: int = 4, octaves: int = 4) -> np.ndarray:
    """Return smooth noise (height, width) float32 in -1..1, around 0, with `cells` bumps along the longer side."""
    total = np.zeros((height, width), np.float32)
    longest = max(height, width)
    for octave in range(octaves):
        count = cells * 2**octave
        rows, columns = (max(2, round(count * side / longest) + 1) for side in (height, width))
        grid = rng.uniform(-1, 1, (rows, columns)).astype(np.float32)
        total += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC) * 0.5 ** (octave + 1)
    return total


def random_colour(rng: np.random.Generator) -> np.ndarray:
    """Return a random object colour (3,): rarely saturated, of any lightness."""
    hue, saturation, value = rng.uniform(0, 6), rng.beta(1.0, 2.2), rng.beta(1.6, 1.3)
    wheel = np.clip(np.abs((hue + np.array([0.0, 4.0, 2.0])) % 6 - 3) - 1, 0, 1)
    return (value * (1 - saturation * (1 - wheel))).astype(np.float32)


def texture(rng: np.random.Generator, side: int) -> np.ndarray:
    """Return a random texture (side, side, 3): plain, gradient, stripes, checks, dots, patches or print."""
    first, second = random_colour(rng), random_colour(rng)
    y, x = np.mgrid[:side, :side].astype(np.float32) / side
    angle, count = rng.uniform(0, np.pi), rng.integers(2, 12)
    wobble = rng.choice([0.0, 0.0, 0.08, 0.2]) * noise(rng, side, side)
    u = x * np.cos(angle) + y * np.sin(angle) + wobble
    v = y * np.cos(angle) - x * np.sin(angle) + wobble
    match rng.choice(["plain", "gradient", "stripes", "checks", "dots", "patches", "print"]):
        case "plain":
            share = np.zeros_like(u)
        case "gradient":
            share = np.clip(u, 0, 1)
        case "stripes":
            share = (u * count % 1 < rng.uniform(0.2, 0.8)).astype(np.float32)
        case "checks":
            share = ((u * count % 1 < 0.5).astype(np.float32) + (v * count % 1 < 0.5)) / 2
        case "dots":
            share = (np.hypot(u * count % 1 - 0.5, v * count % 1 - 0.5) < rng.uniform(0.15, 0.45)).astype(np.float32)
        case "patches":
            share = (noise(rng, side, side, int(count)) > 0).astype(np.float32)
        case _:
            share = _print(rng, side)
    colour = first + (second - first) * share[..., None]
    grain = noise(rng, side, side, 6, 5) * rng.uniform(0.02, 0.25)
    return np.clip(colour * (1 + grain[..., None]), 0, 1).astype(np.float32)


def _print(rng: np.random.Generator, side: int) -> np.ndarray:
    """Return a pattern of illegible lines of text and a block, (side, side) float32, 0 or 1."""
    page = np.zeros((side, side), np.float32)
    line = max(side // int(rng.integers(8, 24)), 3)
    for top in range(line, side - line, line):
        left = line
        while left < side - line:
            word = int(rng.integers(line // 2 + 1, 3 * line))
            page[top : top + max(line // 2, 1), left : min(left + word, side - line)] = rng.random() < 0.85
            left += word + max(line // 3, 1)
    top, left, extent = rng.integers(0, side // 2, 3)
    page[top : top + extent, left : left + extent] = rng.random() < 0.5
    return page
