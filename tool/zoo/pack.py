"""python -m tool.zoo pack: a copy of UNWEATHER_DATA of at most 30 MiB, with which a machine without it trains networks of the zoo."""
import os
import shutil
from pathlib import Path

from data.source import path_of
from runtime import files
from runtime.errors import UserError
from tool.zoo import prepare

PACKED = Path("dataset/packed")
LIMIT = 30 * 2**20                        # bytes of all images
TESTED = 4                                # images of each test set


def run() -> Path:
    """Write and return the folder: all clean photos, a few test images, and as many pairs as fit; raises UserError without data.

    Released weights that the user has put into weights/ there stay.
    """
    found = prepare.source()
    if not found:
        raise UserError("UNWEATHER_DATA is not set; it names the folder whose images are packed (docs/zoo.md)")
    parts = prepare.trained(found, prepare.prepare(found))
    pairs = parts.pop("Rain800/train")
    chosen = [path for part in parts.values() for path in part]
    for name in (*prepare.TESTS, "Rain800"):
        few = prepare.items(found, name, "test")[:TESTED]
        chosen += dict.fromkeys(Path(path_of(source)) for item in few for source in item.images.values())
    room = LIMIT - sum(path.stat().st_size for path in chosen)
    if room < 0:
        raise UserError(f"the clean photos and {TESTED} images of each test set have {-room / 2**20:.1f} MiB more than the "
                        f"{LIMIT / 2**20:.1f} MiB of a packed folder")
    for path in pairs:
        room -= path.stat().st_size
        if room < 0:
            break
        chosen.append(path)
    fresh, old = PACKED.with_name(".packed"), PACKED.with_name(".packed_old")
    for each in (fresh, old):
        shutil.rmtree(each, ignore_errors=True)
    for name in prepare.NEEDED:
        files.make_folder(fresh / name)
    for path in chosen:
        shutil.copyfile(path, files.make_folder((fresh / path.relative_to(found)).parent) / path.name)
    if (PACKED / "weights").exists():
        os.rename(PACKED / "weights", fresh / "weights")
    if PACKED.exists():
        os.rename(PACKED, old)
    os.rename(fresh, PACKED)
    shutil.rmtree(old, ignore_errors=True)
    size = sum(path.stat().st_size for path in chosen)
    print(f"{PACKED}: {len(chosen)} images, {size / 2**20:.1f} MiB; on the other machine: UNWEATHER_DATA={PACKED} make zoo NAME=smgarn "
          "HOURS=0.1")
    return PACKED
