"""Items in the form in which worker processes share them."""
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from contract import Item
from data.source import Source, View


class Packed(Sequence[Item]):
    """A list of items whose texts are one array of bytes; an item is made when it is used.

    A worker process begins with the memory of the main process and copies what is written. Using a Python object writes to it, so every
    worker would come to own a copy of all items; the bytes stay shared (docs/scaling.md).

    kinds: the kind of each item, (n,) int64. counts: how many items have an image of each name, as in {'input': 9, 'image': 9}.
    """

    def __init__(self, items: Iterable[Item]):
        self.counts: Counter[str] = Counter()
        self.arrays: list[np.ndarray] = []
        places: dict[int, int] = {}       # by the id of an array, which several items may have
        rows, kinds = [], []

        def plain(origin: Source) -> object:
            if isinstance(origin, View):
                return [plain(origin.of), origin.how, origin.value]
            if not isinstance(origin, np.ndarray):
                return str(origin)
            if id(origin) not in places:
                places[id(origin)] = len(self.arrays)
                self.arrays.append(origin)
            return places[id(origin)]
        for item in items:
            rows.append(json.dumps([item.name, {key: plain(origin) for key, origin in item.images.items()}]).encode())
            kinds.append(item.kind)
            self.counts.update(item.images.keys())
        self.kinds = np.array(kinds, np.int64)
        self.ends = np.cumsum([0, *map(len, rows)])
        self.texts = np.frombuffer(b"".join(rows), np.uint8)

    def __len__(self) -> int:
        return len(self.kinds)

    def __getitem__(self, index):
        index = range(len(self))[index]   # counts from the end, too
        name, images = json.loads(self.texts[self.ends[index]:self.ends[index + 1]].tobytes())
        return Item(name, {key: self._source(origin) for key, origin in images.items()}, int(self.kinds[index]))

    def _source(self, origin) -> Source:
        if isinstance(origin, list):
            return View(self._source(origin[0]), origin[1], tuple(origin[2]))
        return self.arrays[origin] if isinstance(origin, int) else Path(origin)
