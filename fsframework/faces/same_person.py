"""Decide by embeddings which parts of tracks, and which tracks of a video, show one person."""

from collections.abc import Sequence

import numpy as np

from fsframework.faces.track import Track

STRICTER = 1 / 3  # of the way from the match threshold to 1: parts of one track that match less are split
SHORT = 12  # frames: longest part between two of one person that may match less, as it may be blurred
BLURRED = 0.75  # of the match threshold, which such a part has to reach; 0.8 % of LFW's pairs of strangers do


def split(parts: Sequence[Track], embeddings: Sequence[np.ndarray], match_threshold: float) -> list[list[int]]:
    """Return groups of consecutive parts of one track, by index, such that the parts of a group show one person.

    Short parts between two of one person, which may be blurred, only need to reach a lower threshold.

    Parameters
    ----------
    parts:
        The parts, in order.
    embeddings:
        Those of each part (n, D).
    match_threshold:
        Minimum cosine of matching faces, a property of the encoder.
    """
    threshold = match_threshold + STRICTER * (1 - match_threshold)
    groups = [[0]] if parts else []
    for index in range(1, len(parts)):
        before = np.concatenate([embeddings[each] for each in groups[-1]])
        if _cosine(before, embeddings[index]) >= threshold:
            groups[-1].append(index)
        else:
            groups.append([index])

    def cosine(one: list[int], other: list[int]) -> float:
        return _cosine(*(np.concatenate([embeddings[each] for each in group]) for group in (one, other)))

    number = 1
    while number < len(groups) - 1:
        left, middle, right = groups[number - 1 : number + 2]
        is_short = sum(len(parts[each].boxes) for each in middle) <= SHORT
        enough = BLURRED * match_threshold
        if is_short and cosine(left, right) >= threshold and cosine(left + right, middle) >= enough:
            groups[number - 1 : number + 2] = [left + middle + right]
        else:
            number += 1
    return groups


def people_of(tracks: Sequence[Track], embeddings: Sequence[np.ndarray], match_threshold: float) -> list[int]:
    """Return the number of the person that each track shows.

    The most similar groups of tracks are joined first, as long as the mean cosine of their tracks reaches the
    threshold. Tracks that are visible at the same time never show one person.

    Parameters
    ----------
    tracks:
        The tracks.
    embeddings:
        Those of each track (n, D).
    match_threshold:
        Minimum cosine of matching faces, a property of the encoder.
    """
    count = len(tracks)
    means = np.stack([_unit(rows.mean(axis=0)) for rows in map(_units, embeddings)]) if count else np.zeros((0, 1))
    cosines = means @ means.T
    for one in range(count):
        for other in range(count):
            if one == other or overlap(tracks[one], tracks[other]):
                cosines[one, other] = -np.inf
    groups: dict[int, list[int]] = {index: [index] for index in range(count)}
    while len(groups) > 1:
        one, other = divmod(int(cosines.argmax()), count)
        if cosines[one, other] < match_threshold:
            break
        sizes = len(groups[one]), len(groups[other])
        merged = (sizes[0] * cosines[one] + sizes[1] * cosines[other]) / sum(sizes)  # average linkage
        cosines[one], cosines[:, one] = merged, merged
        cosines[one, one] = cosines[other, :] = cosines[:, other] = -np.inf
        groups[one] += groups.pop(other)
    people = [0] * count
    for number, members in enumerate(sorted(groups.values(), key=min)):
        for index in members:
            people[index] = number
    return people


def overlap(one: Track, other: Track) -> int:
    """Return the number of frames in both tracks."""
    return max(0, min(one.stop, other.stop) - max(one.start, other.start))


def _cosine(one: np.ndarray, other: np.ndarray) -> float:
    """Return the cosine of the mean directions of two sets of embeddings."""
    return float(_unit(_units(one).mean(axis=0)) @ _unit(_units(other).mean(axis=0)))


def _units(rows: np.ndarray) -> np.ndarray:
    units: np.ndarray = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return units


def _unit(row: np.ndarray) -> np.ndarray:
    unit: np.ndarray = row / max(float(np.linalg.norm(row)), 1e-12)
    return unit
