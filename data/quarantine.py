"""Training images that can no longer be read while a training runs: logged once, listed in quarantine.txt, replaced by others."""
from collections.abc import Iterable, Iterator
from pathlib import Path

from torch.utils.data import DataLoader

from contract import Batch, Item
from data.source import path_of
from runtime import experiment, process
from runtime.errors import Failure

FILE = "quarantine.txt"                   # in the folder of the experiment: path and reason, separated by a tab
MOST = 0.05                               # share of the training images; a training with more unreadable ones stops


def read(folder: Path) -> dict[str, str]:
    """Return the reasons by path that an experiment lists, {} without a list."""
    path = folder / FILE
    lines = path.read_text(encoding="utf-8", errors="surrogateescape").splitlines() if path.is_file() else []
    return {name: why for name, mark, why in (line.partition("\t") for line in lines) if mark}


def known(args) -> dict[str, str]:
    """Return what the experiment of these flags lists, if it is continued; these images are not checked at the start."""
    return {} if args.reset and not process.restarted() else read(experiment.folder_of(args.save))


def sound(items: list[Item], known: dict[str, str]) -> list[Item]:
    """Return the items that are not listed."""
    return [item for item in items if name_of(item) not in known] if known else items


def name_of(item: Item) -> str:
    """Return the text by which the list names an item: the path of its input."""
    return str(path_of(item.images["input"]))


def watched(loader: DataLoader, folder: Path) -> Iterator[Batch]:
    """Yield the batches of an epoch; log and list the images that were replaced in them. Only the first process writes.

    Raises Failure if more than MOST of the images are listed. With several processes, each counts the images that it has read;
    after the epoch these are joined.
    """
    known, count = read(folder), len(loader.dataset)
    for batch in loader:
        _add(batch.trouble, known, folder, count)
        yield batch
    _add(process.gather([*known.items()]), known, folder, count)


def _add(trouble: Iterable[tuple[str, str]], known: dict[str, str], folder: Path, count: int) -> None:
    for name, why in trouble:
        if name in known:
            continue
        known[name] = " ".join(why.split())
        process.log().say(f"in quarantine: {why}; in this training other images replace it")
        if process.rank() == 0:
            with open(folder / FILE, "a", encoding="utf-8", errors="surrogateescape") as file:
                file.write(f"{name}\t{known[name]}\n")
        if len(known) > MOST * count:
            raise Failure(f"{len(known)} of {count} training images can no longer be read, more than {MOST:.0%}; they are listed in "
                          f"{folder / FILE}; replace them and continue with --resume -1. The last one: {why}")
