"""Puts the pictures of capture.mjs together to an animated WebP."""

import json
import sys

from PIL import Image

QUALITY = 70
# Most frames after which one is complete, so that no trace of an earlier scene stays.
COMPLETE_EVERY = 13

directory, file = sys.argv[1:]
with open(f"{directory}/frames.json") as listed:
    shown = json.load(listed)
first, *others = [Image.open(one["file"]).convert("RGB") for one in shown]
first.save(
    file,
    save_all=True,
    append_images=others,
    duration=[one["ms"] for one in shown],
    loop=0,
    quality=QUALITY,
    kmin=1,
    kmax=COMPLETE_EVERY,
    method=6,
)
