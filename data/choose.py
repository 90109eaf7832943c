"""Choose the images of each data set that a run uses for training and for testing."""
import zlib
from pathlib import Path
from typing import NamedTuple

from contract import Item
from data import benchmarks, paired
from data.sets import DATASETS
from data.source import View
from runtime import process
from runtime.arguments import is_whole
from runtime.errors import UserError, short

DEMO_NAMES = ("Demo", "Folder")             # with --dir_demo: a folder of images, usually without targets
LISTS = (".json", ".csv")
TEST_SIGMA = 25                           # noise level of a test if a range of levels is given
CLIPPED, FLOAT = "noise clipped and truncated to 8 bits", "float noise, neither clipped nor rounded"


class Chosen(NamedTuple):
    """The items of a data set that a run uses, the task of the set, and a description of the part of the set that they form."""
    items: list[Item]
    task: str = ""
    subset: str = "all"


def names(joined: str) -> list[str]:
    """Split `A+B` into data set names; UserError if there is none."""
    found = [name for name in joined.split("+") if name]
    if not found:
        raise UserError(f"'{joined}' names no data set; --list shows the known ones")
    return found


def sets_to_test(args) -> list[str]:
    """Return the names of the data sets that --data_test names; a benchmark stands for its sets, without missing ones, which are logged.

    Raises UserError if there is none.
    """
    names(args.data_test)
    absent = []
    for name in benchmarks.named(args.data_test, args.dir_data):
        lacking = benchmarks.missing(name, args.dir_data)
        if lacking:
            process.log().say(f"warning: {name} is tested without {', '.join(lacking)}, which {'is' if len(lacking) == 1 else 'are'} "
                              f"missing in {args.dir_data}")
        absent += lacking
    found = [name for name in benchmarks.members(args.data_test, args.dir_data) if name not in absent]
    if absent and not found:
        raise UserError(f"--data_test {args.data_test}: none of its data sets is in {args.dir_data}: {', '.join(dict.fromkeys(absent))}")
    return found


def choose(args, name: str, role: str, whole: bool = False) -> Chosen:
    """Return the items of a data set for the role 'train' or 'test', selected by --data_range or the default hold-out.

    `CBSD68@25` is a set of clean photos with Gaussian noise of sigma 25 in 8 bits, `CBSD68@25f` with float noise. `whole`: no
    image is held out, for methods that train without targets; --data_range then selects the images to restore. Raises UserError
    if the data set or the range is unknown, empty or invalid.
    """
    base, _, sigma = name.partition("@")
    exact = sigma.endswith("f")
    items, own_part, task = _open(args, base, role)
    if sigma:
        items = [item._replace(images={"image": item.images["image"]}) for item in items]
    if sigma or (args.sigma and base.lower().endswith(LISTS)):
        if exact and whole:
            raise UserError(f"'{name}': this method trains on the images themselves and reads 8 bits; use {name.removesuffix('f')}")
        levels = _noise_levels(name, sigma.removesuffix("f")) if sigma else args.sigma
        items = _with_noise(items, base, levels, role, args.seed, "float noise" if exact else "noise")
    if any("input" not in item.images for item in items):
        raise UserError(f"{base} has clean photos only; name a noise level, as in {base}@25, or for training a range, as in {base}@0-55")
    count, subset = len(items), _count_note(base, role, own_part, len(items))
    shared = not (own_part or whole) and name in args.data_train.split("+") and name in benchmarks.members(args.data_test, args.dir_data)
    if args.data_range and (whole or not (base in DEMO_NAMES and args.dir_demo)):
        chosen = _by_range(args, name, "train" if whole else role, items, shared)
    elif shared:
        chosen = _held_out(name, role, items)
    else:
        return Chosen(items, task, subset)
    part = f"{len(chosen)} of {count}: {chosen[0].name} … {chosen[-1].name}"
    return Chosen(chosen, task, part if subset == "all" else f"{part}; {subset}")


def _by_range(args, name: str, role: str, items: list[Item], shared: bool) -> list[Item]:
    count = len(items)
    first, last = args.data_range.get(role, args.data_range["train"])
    if first > count:
        raise UserError(f"--data_range starts at image {first}, but {name} has {count}")
    if role not in args.data_range:       # one range: for training; the other images are for testing
        if not shared:
            return items
        rest = items[:first - 1] + items[last:]
        if not rest:
            raise UserError(f"--data_range {first}-{last} leaves no image of {name} to test on; "
                            f"give both parts, as in --data_range 1-{max(count - 10, 1)}/{max(count - 9, 1)}-{count}")
        return rest
    if last > count:
        process.log().say(f"{name}: --data_range ends at {last}, but the set has {count} images; it is shortened to image {count}")
    return items[first - 1:last]


def _held_out(name: str, role: str, items: list[Item]) -> list[Item]:
    held = max(1, min(50, len(items) // 10))
    if len(items) <= held:
        raise UserError(f"{name} has {len(items)} image, which cannot be split into a training part and a test part")
    if role == "test":
        process.log().say(f"{name}: the last {held} of {len(items)} images are held out for testing (--data_range changes this)")
    return items[-held:] if role == "test" else items[:-held]


def _open(args, name: str, role: str) -> tuple[list[Item], bool, str]:
    """Return all items of a data set, whether they come from its own part for this role (train/, test/), and the task of the set."""
    if name in DEMO_NAMES and args.dir_demo and role == "test":
        return paired.pictures(Path(args.dir_demo)), True, ""
    if name == "Folder":
        raise UserError("the data set Folder is the folder of images that --dir_demo specifies; give --dir_demo")
    if name.lower().endswith(LISTS):
        photos = tuple(each for each, entry in DATASETS.items() if entry.task == "noise") if args.sigma else ()
        return paired.listed(Path(name), Path(args.train_dir or args.dir_data), photos), False, ""
    root, entry = Path(args.dir_data) / name, DATASETS.get(name)
    if entry and entry.embedded:
        return entry.embedded(root, role), True, entry.task
    if entry:
        return *paired.find(root, role, entry.layouts), entry.task
    if name in benchmarks.BENCHMARKS and not root.is_dir():
        raise UserError(f"{name} is a benchmark, which only --data_test can name; for training name data sets with --data_train")
    if "/" in name or not root.is_dir():
        raise UserError(f"unknown data set '{name}'; known: {', '.join(DATASETS)}, Folder with --dir_demo, a list (.json, .csv), "
                        f"or any folder under {args.dir_data} with input/ and target/; benchmarks: {', '.join(benchmarks.BENCHMARKS)}")
    return *paired.find(root, role), ""


def noise_kind(name: str) -> str:
    """Return in words how the noise of a data set was added: CLIPPED for `CBSD68@25`, FLOAT for `CBSD68@25f`, '' without noise level."""
    _, mark, level = name.partition("@")
    return "" if not mark else FLOAT if level.endswith("f") else CLIPPED


def _noise_levels(name: str, text: str) -> tuple[int, int]:
    """Return (lowest, highest) noise level of `25` or `0-55`, from the text after the @ of a data set name; UserError if it is invalid."""
    levels = text.split("-")
    if len(levels) > 2 or not all(is_whole(level, 0, 255) for level in levels) or int(levels[0]) > int(levels[-1]):
        raise UserError(f"'{short(name)}': a noise level is a whole number on the 0-255 scale, as in CBSD68@25, or for training a range, "
                        "as in BSD400@0-55; an f at its end keeps the noise as float, as in CBSD68@25f")
    return int(levels[0]), int(levels[-1])


def _with_noise(items: list[Item], name: str, levels: tuple[int, int], role: str, seed: int, kind: str) -> list[Item]:
    """Add inputs with a `kind` of noise (see data/source.py) to the clean photos; in training the level is drawn for each crop.

    A test uses one level: of a range, the level closest to 25. Its noise depends only on (seed, set, index).
    Raises UserError if a photo is not a separate file.
    """
    low, high = levels
    if not all("input" in item.images or isinstance(item.images["image"], Path) for item in items):
        raise UserError(f"noise can be added only to photos that are separate files; those of {name} are not")
    key, sigma = zlib.crc32(name.encode()), min(max(TEST_SIGMA, low), high)
    return [item if "input" in item.images else item._replace(images={**item.images, "input": (
                View(item.images["image"], f"drawn {kind}", levels) if role == "train" and low < high else
                View(item.images["image"], kind, (sigma, seed, key, index)))})
            for index, item in enumerate(items)]


def _count_note(name: str, role: str, own_part: bool, count: int) -> str:
    """Return 'all', or a text on how the number of images differs from the published number, which is also logged as a warning."""
    entry = DATASETS.get(name)
    published = entry.counts.get(role) if entry else None
    if published in (None, count) or (not own_part and count in entry.counts.values()):
        return "all"
    text = f"{count} images where {published} are published"
    process.log().say(f"warning: {name} ({role}) has {text}; results cannot be compared with published results")
    return text
