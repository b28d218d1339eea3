#!/usr/bin/env bash
# Guess: `exif = image.getexif()`, a change such as a reset orientation, and `image.save(file, exif=exif)` keep the other
# tags of a photograph as they are. So does `ImageOps.exif_transpose`, the usual way to turn photographs upright.
# Seen with Pillow 13.0.0: texts are read as Latin-1 and written as ASCII with question marks, without an error or a
# warning. An artist's or copyright holder's name "Zoë Müller" becomes "Zo?? M??ller" if it is stored as UTF-8, as phones
# and editors do, and "Zo? M?ller" if it is stored as Latin-1. What Pillow has not changed (`image.info["exif"]`) is
# written to the byte. Bytes instead of text are written as they are: `value.encode("latin-1")` undoes the reading.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet pillow==13.0.0
"$folder/venv/bin/python" -W error - <<'PYTHON'
import io

import PIL
from PIL import Image, ImageOps
from PIL.ExifTags import Base

print("Pillow", PIL.__version__)
NAME = "Zoë Müller"


def jpeg(**options) -> io.BytesIO:
    file = io.BytesIO()
    Image.new("RGB", (32, 16), "grey").save(file, "JPEG", **options)
    return io.BytesIO(file.getvalue())


for encoding, lost in (("utf-8", b"Zo?? M??ller\0"), ("latin-1", b"Zo? M?ller\0")):
    stored = Image.Exif()
    stored[Base.Artist], stored[Base.Orientation] = NAME.encode(encoding), 6
    photograph = jpeg(exif=stored)
    assert NAME.encode(encoding) + b"\0" in photograph.getvalue(), "the photograph holds the name"
    with Image.open(photograph) as image:
        exif = image.getexif()
        exif[Base.Orientation] = 1
        again = jpeg(exif=exif).getvalue()
        transposed = jpeg(exif=ImageOps.exif_transpose(image).getexif()).getvalue()
        raw = jpeg(exif=image.info["exif"]).getvalue()
        exif[Base.Artist] = exif[Base.Artist].encode("latin-1")
        mended = jpeg(exif=exif).getvalue()
    print(f"{encoding}: written again as {lost!r}: {lost in again}; after exif_transpose: {lost in transposed}")
    assert lost in again and lost in transposed, "names are kept now"
    assert NAME.encode(encoding) + b"\0" in raw and NAME.encode(encoding) + b"\0" in mended
PYTHON
