"""The weights of the images trained last, from which the next image begins with --warm_start; a stopped run continues equally."""
from collections.abc import Collection
from pathlib import Path

from torch import Tensor

from runtime import files, process
from runtime.errors import UserError


class Warm:
    """The weights of the two images of a set that were trained last, in a file.

    The file is written before an image is recorded as finished. So after a stop between the two, when this image is trained again, the
    weights before it are still there.
    """

    def __init__(self, path: Path, fresh: bool):
        self.path = path
        self.kept: dict[str, dict[str, Tensor]] = {} if fresh else _read(path)

    def last(self, finished: Collection[str]) -> dict[str, Tensor]:
        """Return the weights of the image that was trained last and is among the finished ones, {} if there are none."""
        return next((self.kept[name] for name in reversed(self.kept) if name in finished), {})

    def keep(self, name: str, weights: dict[str, Tensor]) -> None:
        """Store the weights of an image and those of the image before it; raises OSError if the file cannot be written."""
        before = [item for item in self.kept.items() if item[0] != name][-1:]
        self.kept = dict([*before, (name, {key: value.detach().cpu().clone() for key, value in weights.items()})])
        files.write_tensors(self.path, self.kept)


def _read(path: Path) -> dict[str, dict[str, Tensor]]:
    try:
        return files.read_tensors(path) if path.is_file() else {}
    except UserError as error:
        process.log().say(f"warning: {error}; the next image starts from a new network")
        return {}
