"""What the name of a data set adds to clean photos: noise (`CBSD68@25`, `BSD400@0-55f`) or weather (`BSDS500@rain0.5-1.5`)."""
import re
import zlib
from typing import NamedTuple

from contract import Item
from data import source, weather
from data.source import View
from runtime.errors import UserError, short

TEST_SIGMA, TEST_STRENGTH = 25, 1.0       # what a test uses of a range that contains it
STRENGTHS, MOST = (0.5, 1.5), 5.0         # range of the strength if the name states none, and the largest strength
CLIPPED, FLOAT = "noise clipped and truncated to 8 bits", "float noise, neither clipped nor rounded"
KINDS = (*weather.KINDS, "any")           # names after the @


class Added(NamedTuple):
    """What is added: a kind of source.degrade or 'any', and the range of the noise level (0-255 scale) or of the strength."""
    how: str
    low: float
    high: float

    @property
    def is_weather(self) -> bool:
        """Whether weather is added, not noise alone."""
        return self.how not in source.NOISES

    @property
    def task(self) -> str:
        """The task of a set with this addition; '' for 'any'."""
        return "noise" if not self.is_weather else "" if self.how == "any" else self.how

    def in_words(self, test: bool = False) -> str:
        """Return the weather and its strength in a training or a test as text, as in `rain of strength 0.5-1.5`."""
        sigma = f"{TEST_SIGMA}" if test else f"{source.ANY_NOISE[0]}-{source.ANY_NOISE[1]}"
        what = f"noise of sigma {sigma}, or {', '.join(weather.KINDS)}" if self.how == "any" else self.how
        low, high = (_nearest(self),) * 2 if test else (self.low, self.high)
        return f"{what} of strength {low:g}" + (f"-{high:g}" if low < high else "")


def parsed(text: str) -> Added | None:
    """Return the meaning of the text after the @ of a data set name, None if it has none."""
    number = r"\d+(?:\.\d+)?"
    if found := re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?(f?)", text, re.ASCII):
        added, most = Added("float noise" if found[3] else "noise", int(found[1]), int(found[2] or found[1])), 255.0
    elif found := re.fullmatch(rf"({'|'.join(KINDS)})(?:({number})(?:-({number}))?)?", text, re.ASCII):
        low, high = (float(found[2]), float(found[3] or found[2])) if found[2] else STRENGTHS
        added, most = Added(found[1], low, high), MOST
    return added if found and added.low <= added.high <= most else None


def split(name: str) -> tuple[str, Added | None]:
    """Return the data set and what the text after the @ adds to it, None without an @; UserError if one is missing or invalid."""
    base, mark, text = name.partition("@")
    added = parsed(text)
    if mark and not added:
        raise UserError(f"'{short(name)}': after the @ stands what is added to clean photos: a noise level, which is a whole number on the "
                        "0-255 scale, as in CBSD68@25, or for training a range, as in BSD400@0-55 (an f at its end keeps the noise as "
                        f"float, as in CBSD68@25f); or one of {', '.join(KINDS)}, also with a strength or a range of strengths from 0 to "
                        f"{MOST:g}, as in BSDS500@rain or BSDS500@rain0.5-1.5")
    if mark and not base:
        raise UserError(f"'{short(name)}' names no data set; before the @ stands a set of clean photos, as in BSDS500{short(name)}")
    return base, added


def stated(name: str) -> dict[str, str]:
    """Return what a test set's name adds, in words, for its results: {'noise': …} or {'degradation': …}; {} without an addition."""
    added = parsed(name.partition("@")[2])
    if not added:
        return {}
    if added.is_weather:
        return {"degradation": f"{added.in_words(test=True)}, drawn for each image"}
    return {"noise": FLOAT if added.how == "float noise" else CLIPPED}


def with_input(items: list[Item], base: str, added: Added, role: str, seed: int) -> list[Item]:
    """Return the clean photos with inputs, and for snow masks, to which `added` is added when they are read.

    Items that have an input stay as they are. In training noise and weather are drawn anew for each crop. Otherwise what is added
    depends only on (seed, set, index): of a range, the level closest to 25 or the strength closest to 1; 'any' takes the kinds in
    turn. Raises UserError if an item has no clean photo.
    """
    key, turns, found = zlib.crc32(base.encode()), ("noise", *weather.KINDS), []
    for index, item in enumerate(items):
        if "input" in item.images:
            found.append(item)
            continue
        if "image" not in item.images:
            raise UserError(f"{base} has no clean images, and noise and weather can be added only to clean images; name it without the @")
        photo, how = item.images["image"], added.how
        if role == "train":
            how, value = f"drawn {how}", (added.low, added.high)
        else:
            how = turns[index % len(turns)] if how == "any" else how
            level = TEST_SIGMA if added.how == "any" and how == "noise" else _nearest(added)
            value = (level, seed, key, index)
        images = {**item.images, "input": View(photo, how, value)}
        found.append(item._replace(images=images | ({"mask": View(photo, f"{how} mask", value)} if added.how == "snow" else {})))
    return found


def _nearest(added: Added) -> float:
    """Return the noise level or the strength of a test."""
    return min(max(TEST_STRENGTH if added.is_weather else TEST_SIGMA, added.low), added.high)
