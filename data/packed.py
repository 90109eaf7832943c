"""Items in the form in which worker processes share them."""
import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from contract import Item
from data.source import Source, View

VIEW = "="                                # ends the name of an image whose source is no path but JSON


class Packed(Sequence[Item]):
    """A list of items whose texts are one array of bytes; an item is made when it is used, with its paths as text.

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
            parts = [item.name]           # no file name contains the NUL that separates the parts
            for key, origin in item.images.items():
                text = plain(origin)
                parts += [key, text] if isinstance(text, str) else [key + VIEW, json.dumps(text)]
            rows.append(os.fsencode("\0".join(parts)))
            kinds.append(item.kind)
            self.counts.update(item.images.keys())
        self.kinds = np.array(kinds, np.int64)
        self.ends = np.cumsum([0, *map(len, rows)])
        self.texts = np.frombuffer(b"".join(rows), np.uint8)

    def __len__(self) -> int:
        return len(self.kinds)

    def __getitem__(self, index):
        if index < 0:
            index += len(self)
        name, *parts = os.fsdecode(self.texts[self.ends[index]:self.ends[index + 1]].tobytes()).split("\0")
        images = {key.removesuffix(VIEW): self._source(json.loads(text)) if key.endswith(VIEW) else text
                  for key, text in zip(parts[::2], parts[1::2])}
        return Item(name, images, int(self.kinds[index]))

    def _source(self, origin) -> Source:
        if isinstance(origin, list):
            return View(self._source(origin[0]), origin[1], tuple(origin[2]))
        return self.arrays[origin] if isinstance(origin, int) else origin
