"""Films and pictures of several people: the right one is swapped, once a frame, in the whole film."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from films import make_film
from PIL import Image

from file_kinds.case import Bench, Case, Maker
from file_kinds.look import film_check, picture_check
from file_kinds.people import Person, Scene, at, portrait_of, scene
from fsframework.faces.select import area

FRAMES = 20
LEFT, RIGHT = at(30, 20), at(260, 20)
BEHIND, FRONT = (0.8, 18.0), (0.95, 12.0)  # scale and height of two people that cross


def two(left: Person, right: Person) -> Scene:
    """Return two people side by side."""
    return scene([(left, LEFT), (right, RIGHT)])


def written(bench: Bench, name: str, scenes: Sequence[Scene]) -> Path:
    """Write a film of scenes without sound; return its path."""
    return make_film(bench.place() / name, [each.frame for each in scenes], audio=None, group=12)


def reference(bench: Bench, person: Person) -> Path:
    """Write a reference picture of a person; return its path."""
    file = bench.place() / "reference.png"
    Image.fromarray(portrait_of(person).frame).save(file)
    return file


def film_case(
    bench: Bench,
    name: str,
    scenes: Sequence[Scene],
    who: int | str,
    swapped: Callable[[int], Sequence[int]],
    looked: Sequence[int],
) -> Case:
    """Return a film's case; `who` is the value of `--face`, or the index of the person of `--map`."""
    target = written(bench, "film.mp4", scenes)
    check = film_check(bench.cast, scenes, swapped, target, looked)
    if isinstance(who, int):
        return bench.mapped(name, [reference(bench, bench.cast.again[who])], target, check, "result")
    return bench.swap(name, target, check, face=who)


def jump_cuts(bench: Bench) -> Iterator[Case]:
    """Yield cases: two people in one room exchange their seats from one frame to the next."""
    people = bench.cast.people
    for one, other, cut in ((0, 1, 16), (2, 3, 10), (4, 5, 4), (1, 4, 13)):
        before, after = two(people[one], people[other]), two(people[other], people[one])
        scenes = [before] * cut + [after] * (FRAMES - cut)
        looked = (0, cut - 1, cut, FRAMES - 1)

        def seat(index: int, cut: int = cut) -> list[int]:
            return [0 if index < cut else 1]

        def other_seat(index: int, cut: int = cut) -> list[int]:
            return [1 if index < cut else 0]

        yield film_case(bench, f"cut at frame {cut}, --map the left one", scenes, one, seat, looked)
        yield film_case(bench, f"cut at frame {cut}, --map the right one", scenes, other, other_seat, looked)
    scenes = [two(people[0], people[1])] * 14 + [two(people[1], people[0])] * 6
    yield film_case(bench, "cut at frame 14, --face 1", scenes, "1", lambda n: [0 if n < 14 else 1], (0, 13, 14, 19))
    yield film_case(bench, "cut at frame 14, --face all", scenes, "all", lambda n: [0, 1], (0, 13, 14, 19))
    larger = [scene([(people[0], at(20, 5, 1.1)), (people[1], at(280, 30, 0.8))])] * 12
    larger += [scene([(people[1], at(30, 30, 0.8)), (people[0], at(230, 5, 1.1))])] * 8
    yield film_case(bench, "cut, --face largest", larger, "largest", lambda n: [0 if n < 12 else 1], (0, 11, 12, 19))


def crossings(bench: Bench) -> Iterator[Case]:
    """Yield cases: two people walk past each other."""
    people = bench.cast.people
    for one, other in ((0, 2), (3, 5)):
        scenes = []
        for share in np.linspace(0, 1, 30):
            behind = (people[other], at(310 - 300 * share, BEHIND[1], BEHIND[0]))
            scenes.append(scene([behind, (people[one], at(10 + 290 * share, FRONT[1], FRONT[0]))]))
        ends = (0, 1, 28, 29)
        yield film_case(bench, f"{one} crosses {other}, --map the front one", scenes, one, lambda n: [1], ends)
        yield film_case(bench, f"{one} crosses {other}, --map the back one", scenes, other, lambda n: [0], ends)
        yield film_case(bench, f"{one} crosses {other}, --face largest", scenes, "largest", lambda n: [1], ends)


def comings(bench: Bench) -> Iterator[Case]:
    """Yield cases: somebody leaves and comes back, or is blurred for some frames; other shots show somebody else."""
    people = bench.cast.people
    here, alone = two(people[0], people[3]), scene([(people[3], RIGHT)])
    for gap in (8, 24):
        scenes = [here] * 10 + [alone] * gap + [here] * 10

        def first(index: int, gap: int = gap) -> list[int]:
            return [] if 10 <= index < 10 + gap else [0]

        looked = (0, 9, 10 + gap // 2, 10 + gap, 19 + gap)
        yield film_case(bench, f"leaves for {gap} frames, --map", scenes, 0, first, looked)
    width = people[0].picture.shape[1]
    for share in (0.15, 0.3):
        blurred = Person(cv2.blur(people[0].picture, (round(share * width), 1)), people[0].face)
        scenes = [here] * 10 + [two(blurred, people[3])] * 6 + [here] * 10
        looked = (0, 9, 12, 16, 25)
        yield film_case(bench, f"blurred by {share:.0%} for 6 frames, --map", scenes, 0, lambda n: [0], looked)
    large, small = at(120, 10, 1.05), at(150, 60, 0.7)
    scenes = [scene([(people[1], large)])] * 12 + [scene([(people[4], small)], elsewhere=True)] * 10
    yield film_case(bench, "two shots, largest", scenes, "largest", lambda n: [0] if n < 12 else [], (0, 11, 12, 21))
    yield film_case(bench, "two shots, --map the second", scenes, 4, lambda n: [] if n < 12 else [0], (0, 11, 12, 21))
    back = [*scenes, *[scene([(people[1], at(60, 20))])] * 8]
    yield film_case(
        bench, "three shots, largest", back, "largest", lambda n: [] if 12 <= n < 22 else [0], (0, 11, 12, 21, 22, 29)
    )


def both(bench: Bench) -> Iterator[Case]:
    """Yield cases: each of two people of `--map` is swapped, a third one is not."""
    cast = bench.cast
    scenes = [two(cast.people[2], cast.people[4])] * 8 + [two(cast.people[4], cast.people[2])] * 8
    target = written(bench, "film.mp4", scenes)
    files = [reference(bench, cast.again[index]) for index in (2, 4)]
    check = film_check(cast, scenes, lambda n: [0, 1], target, (0, 7, 8, 15))
    yield bench.mapped("two people of --map and a cut", files, target, check, "result")
    third = [scene([(cast.people[n], at(x, 60, 0.8)) for n, x in ((0, 5), (2, 165), (4, 325))])] * 8
    target = written(bench, "film.mp4", third)
    check = film_check(cast, third, lambda n: [1, 2], target)
    yield bench.mapped("two of three people of --map", files, target, check, "result")


def strangers_in_films(bench: Bench) -> Iterator[Case]:
    """Yield cases: a film shows none of the people of `--map`."""
    people = bench.cast.people
    for one, other, who in ((0, 1, 2), (3, 4, 5)):
        scenes = [two(people[one], people[other])] * 6
        target = written(bench, "film.mp4", scenes)
        check = film_check(bench.cast, scenes, lambda n: [], target)
        files = [reference(bench, bench.cast.again[who])]
        yield bench.mapped(f"{one} and {other}, --map {who}", files, target, check, "refusal")


def groups(bench: Bench) -> Iterator[Case]:
    """Yield cases: a picture of several people: one of them by `--map`, by number, the largest, or all."""
    cast = bench.cast
    rng = np.random.default_rng(0)
    for count in (2, 3, 3, 4, 4):
        chosen = rng.choice(len(cast.people), count, replace=False)
        scales = rng.permutation(np.linspace(0.65, 1.05, count))
        placed = [(cast.people[n], at(10 + 200 * place, 20, scales[place])) for place, n in enumerate(chosen)]
        group = scene(placed, (20 + 200 * count, 280))
        target = bench.place() / "group.png"
        Image.fromarray(group.frame).save(target)
        place = int(rng.integers(count))
        files = [reference(bench, cast.again[chosen[place]])]
        yield bench.mapped(f"{count} people, --map one", files, target, picture_check(cast, group, [place]), "result")
        largest = int(np.argmax([area(face) for face in group.faces]))
        for face, swapped in (("largest", [largest]), (str(place + 1), [place]), ("all", [*range(count)])):
            copy = bench.place() / "group.png"
            Image.fromarray(group.frame).save(copy)
            check = picture_check(cast, group, swapped)
            yield bench.swap(f"{count} people, --face {face}", copy, check, face=face, portable=True)


def strangers(bench: Bench) -> Iterator[Case]:
    """Yield cases: a picture shows two people, neither of whom is that of `--map`."""
    cast = bench.cast
    others = cast.strangers[: len(cast.strangers) // 2 * 2]
    for number, (one, other) in enumerate(zip(others[::2], others[1::2], strict=True)):
        placed = [(person, at(10 + 300 * place, 10)) for place, person in enumerate((one, other))]
        group = scene(placed, (620, 280))
        target = bench.place() / "strangers.png"
        Image.fromarray(group.frame).save(target)
        files = [reference(bench, cast.again[number % len(cast.again)])]
        yield bench.mapped(f"strangers {number + 1}", files, target, picture_check(cast, group, []), "refusal")


KINDS: dict[str, list[Maker]] = {
    "jump cut: two people exchange seats": [jump_cuts],
    "people cross": [crossings],
    "leaving, coming back, other shots": [comings],
    "several people of --map in films, and strangers": [both, strangers_in_films],
    "one of several people in a picture": [groups],
    "strangers in a picture": [strangers],
}
