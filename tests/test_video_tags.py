"""Films keep languages, default flags, titles, dates and chapters, and lose where they were taken."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
from films import copy_with_sound_twice, make_film, pictures, streams_with_sound_twice

from fsframework.media.video_io import probe, read, write
from fsframework.media.video_join import join

DEFAULT = av.stream.Disposition.default
PRIVATE = {
    "location": "+48.1375+011.5755/",
    "com.apple.quicktime.location.ISO6709": "+48.1375+011.5755/",
    "camera_serial_number": "BODY-77",
    "com.apple.quicktime.camera.owner": "Owner",
}
CHAPTERS = [("Beginning", 0, 300), ("End", 300, 800)]  # times in milliseconds


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A film with two sound tracks, the second of which is the default, with tags and chapters."""
    folder = tmp_path_factory.mktemp("tags")
    plain = make_film(folder / "plain.mp4", pictures())
    with av.open(str(plain)) as source, av.open(str(folder / "film.mkv"), "w") as output:
        streams = streams_with_sound_twice(source, output)
        streams[1].metadata["language"], streams[2].metadata["language"] = "eng", "deu"
        streams[2].metadata["title"] = "Kommentar"
        streams[1].disposition, streams[2].disposition = 0, DEFAULT
        output.metadata.update(title="My film", creation_time="2024-01-02T03:04:05.000000Z", **PRIVATE)
        output.set_chapters(
            [
                {
                    "id": number + 1,
                    "start": start,
                    "end": end,
                    "time_base": Fraction(1, 1000),
                    "metadata": {"title": title},
                }
                for number, (title, start, end) in enumerate(CHAPTERS)
            ]
        )
        copy_with_sound_twice(source, output, streams)
    return folder / "film.mkv"


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_tags_are_kept(film: Path, tmp_path: Path, suffix: str) -> None:
    video = probe(film)
    write(tmp_path / "segment.mp4", video, read(video))
    out = tmp_path / f"out{suffix}"
    join([tmp_path / "segment.mp4"], video, out)
    with av.open(str(out)) as container:
        sounds = container.streams.audio
        german = "ger" if suffix == ".mov" else "deu"  # QuickTime has numbers instead
        assert [stream.language for stream in sounds] == ["eng", german]
        assert [bool(stream.disposition & DEFAULT) for stream in sounds] == [False, True]
        tags = {key.lower(): value for key, value in container.metadata.items()}
        assert tags["title"] == "My film"
        assert tags["creation_time"].startswith("2024-01-02T03:04:05")
        assert not any(word in f"{key} {value}" for key, value in tags.items() for word in ("48.1", "77", "Owner"))
        found: list[Any] = [
            (
                chapter["metadata"]["title"],
                *(round(1000 * chapter[key] * (chapter["time_base"] or 1)) for key in ("start", "end")),
            )
            for chapter in container.chapters()
        ]
        shift = found[0][1]  # priming of AAC, by which Matroska moves everything else
        assert 0 <= shift < 30
        assert [title for title, _, _ in found] == [title for title, _, _ in CHAPTERS]
        assert all(abs(a[1] - b[1]) < 30 and abs(a[2] - b[2]) < 60 for a, b in zip(found, CHAPTERS, strict=True))


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_the_place_is_kept_on_demand(film: Path, tmp_path: Path, suffix: str) -> None:
    video = probe(film)
    write(tmp_path / "segment.mp4", video, read(video))
    out = tmp_path / f"out{suffix}"
    join([tmp_path / "segment.mp4"], video, out, private_metadata=True)
    with av.open(str(out)) as container:
        tags = {key.lower(): value for key, value in container.metadata.items()}
    assert tags["location"] == PRIVATE["location"]
    assert tags["title"] == "My film"
