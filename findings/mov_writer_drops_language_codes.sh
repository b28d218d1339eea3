#!/usr/bin/env bash
# Guess: the language of a track, given as a three-letter code of ISO 639-2, survives FFmpeg's writer of .mov as it
# survives that of .mp4, which is the same writer.
# Seen with PyAV 18.1.0 (FFmpeg 8.1.2): MP4 and Matroska keep each of these codes, .mov has one spelling a language,
# by no rule: `ger` and not `deu`, but `fra` and not `fre`; `dut`, `chi`, `gre` and `ice`, but `ces`; Swedish only as
# `sve`, which ISO 639-2 does not have. With another spelling the track has no language afterwards, and nothing
# warns. So copying an MP4 with its metadata to .mov loses the languages of German, Dutch, Chinese or Swedish tracks,
# and players choose the wrong one. Map the code to the spelling that .mov has, before writing.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet av==18.1.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import io

import av


def kept(form, language):
    file = io.BytesIO()
    with av.open(file, "w", format=form) as container:
        stream = container.add_stream("aac", rate=48000, layout="mono")
        stream.metadata["language"] = language
        frame = av.AudioFrame(format="fltp", layout="mono", samples=1024)
        frame.planes[0].update(bytes(4096))
        frame.sample_rate, frame.pts = 48000, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    file.seek(0)
    with av.open(file) as container:
        return container.streams.audio[0].metadata.get("language")


print("PyAV", av.__version__, "FFmpeg", av.ffmpeg_version_info)
found = {}
for language in "eng spa jpn ger deu fra fre dut nld chi zho ces cze sve swe gre ell ice isl".split():
    found[language] = kept("mov", language)
    assert kept("mp4", language) == kept("matroska", language) == language
print("kept by MP4 and Matroska:", *found)
print("kept by .mov:            ", *(language for language, read in found.items() if read == language))
print("without a language there:", *(language for language, read in found.items() if read is None))
assert all(read in (language, None) for language, read in found.items())
assert {language for language, read in found.items() if read is None} == set("deu fre nld zho cze swe ell isl".split())
PYTHON
