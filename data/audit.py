"""Leak audit before training: find training images that show a scene of a test set."""
from collections.abc import Callable
from pathlib import Path

from contract import Item
from data import leaks
from data.source import Source, path_of
from runtime import process
from runtime.errors import UserError
from runtime.files import UNWRITABLE

NAMES_SHOWN = 10                          # leaked images that the log names
SEARCH_LIMIT = 5000                       # training images searched without --exclude_leaks: about ten minutes on one core


def audited(items: list[Item], tests: dict[str, list[Item]], read: Callable, folder: Path, exclude: bool) -> list[Item]:
    """Return the training items; with `exclude`, without those that show a test scene. The log names the leaked items.

    Fingerprints are cached in `folder` if it is writable. Embedded data sets and images without a target are not searched.
    Raises UserError if `exclude` leaves no training item.
    """
    known = [(name, item) for name, part in tests.items() for item in part if _is_file(item)]
    mine = [(place, item) for place, item in enumerate(items) if _is_file(item)][process.rank()::process.world()]
    if not known or not any(_is_file(item) for item in items):
        return items
    count = len({item.images["image"] for item in items if _is_file(item)})
    if count > SEARCH_LIMIT and not exclude:
        process.log().say(f"{count} training images are not searched for scenes of the test sets, because this takes "
                          f"about {count / 30_000:.1f} hours; --exclude_leaks runs the search")
        return items
    by_item = {id(item): name for name, item in known}
    places: dict[Source, list[int]] = {}          # of each clean image, which several sets or degraded images may share
    for place, item in mine:
        places.setdefault(item.images["image"], []).append(place)
    found = leaks.find([items[first] for first, *_ in places.values()], [item for _, item in known], _writable(folder), read)
    rows = process.gather([(place, by_item[id(leak.test)], leak.test.name)
                           for leak in found for place in places[leak.train.images["image"]]])
    leaked = {place: f"{items[place].name} ({name} {test})" for place, name, test in sorted(rows)}
    if leaked:
        text = list(leaked.values())
        process.log().say(f"warning: {len(leaked)} of {len(items)} training images show a scene of a test set: "
                          f"{', '.join(text[:NAMES_SHOWN])}{f' and {len(text) - NAMES_SHOWN} more' if len(text) > NAMES_SHOWN else ''}; "
                          + ("they are left out" if exclude else "--exclude_leaks leaves them out"))
    kept = [item for place, item in enumerate(items) if place not in leaked] if exclude else items
    if not kept:
        raise UserError("every training image shows a scene of a test set; use other training images, or run without --exclude_leaks")
    return kept


def _is_file(item: Item) -> bool:
    return "image" in item.images and path_of(item.images["image"]) is not None


def _writable(folder: Path) -> Path | None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".writable").touch()
        (folder / ".writable").unlink(missing_ok=True)
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        return None
    return folder
