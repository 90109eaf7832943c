"""Choose the images of each data set that a run uses for training and for testing."""
from pathlib import Path
from typing import NamedTuple

from contract import Item
from data import benchmarks, paired, pictures
from data.added import Added, split, with_input
from data.sets import DATASETS
from runtime import process
from runtime.errors import UserError

DEMO_NAMES = ("Demo", "Folder", "video")    # with --dir_demo: an image, a video or a folder of images, usually without targets
LISTS = (".json", ".csv")


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

    A name with an @, as in `CBSD68@25`, stands for the clean images of the set and what is added to them (see data/added.py).
    `whole`: no image is held out, for methods that train without targets; --data_range then selects the images to restore. Raises
    UserError if the data set or the range is unknown, empty or invalid.
    """
    base, added = split(name)
    items, own_part, task = _open(args, base, role)
    if added:
        if added.how == "float noise" and whole:
            raise UserError(f"'{name}': this method trains on the images themselves and reads 8 bits; use {name.removesuffix('f')}")
        photos = [item._replace(images={key: each for key, each in item.images.items() if key == "image"}) for item in items]
        items, task = with_input(photos, base, added, role, args.seed), added.task
        if role == "train" and added.is_weather:
            process.log().say(f"{name}: {added.in_words()}, drawn anew for every crop")
    elif args.sigma and base.lower().endswith(LISTS):
        items = with_input(items, base, Added("noise", *args.sigma), role, args.seed)
    if any("input" not in item.images for item in items):
        raise UserError(f"{base} has clean photos only; name a noise level, as in {base}@25, or for training a range, as in {base}@0-55, "
                        f"or weather, as in {base}@rain")
    count, subset = len(items), _count_note(base, role, own_part, len(items))
    shared = not (own_part or whole) and _in_both(args, name)
    if args.data_range and (whole or not (base in DEMO_NAMES and args.dir_demo)):
        chosen = _by_range(args, name, "train" if whole else role, items, shared)
    elif shared:
        chosen = _held_out(name, role, items)
    else:
        return Chosen(items, task, subset)
    if len(chosen) == count:
        return Chosen(chosen, task, subset)
    part = f"{len(chosen)} of {count}: {chosen[0].name} … {chosen[-1].name}"
    return Chosen(chosen, task, part if subset == "all" else f"{part}; {subset}")


def _in_both(args, name: str) -> bool:
    """Return whether the images of a data set serve for training and for testing; with weather, whatever is added to them there."""
    train, test = ([each for each in joined.split("+") if each.partition("@")[0] == name.partition("@")[0]]
                   for joined in (args.data_train, "+".join(benchmarks.members(args.data_test, args.dir_data))))
    with_weather = any((added := split(each)[1]) and added.is_weather for each in train + test)
    return bool(train and test) if with_weather else name in train and name in test


def _by_range(args, name: str, role: str, items: list[Item], shared: bool) -> list[Item]:
    count = len(items)
    first, last = args.data_range.get(role, args.data_range["train"])
    if role not in args.data_range and not shared:
        return items
    if first > count:
        raise UserError(f"--data_range starts at image {first}, but {name} has {count}")
    if role not in args.data_range:       # one range: for training; the other images are for testing
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
        return pictures.find(Path(args.dir_demo)), True, ""
    if name == "Folder" or (name == "video" and not (Path(args.dir_data) / name).is_dir()):
        raise UserError(f"the data set {name} is what --dir_demo specifies; give --dir_demo")
    if name.lower().endswith(LISTS):
        photos = tuple(each for each, entry in DATASETS.items() if entry.task == "noise") if args.sigma else ()
        return paired.listed(Path(name), Path(args.train_dir or args.dir_data), photos), False, ""
    root, entry = Path(args.dir_data) / name, DATASETS.get(name)
    if entry and entry.embedded:
        return entry.embedded(root, role), True, entry.task
    if entry:
        return *paired.find(root, role, entry.layouts), entry.task
    if name in benchmarks.BENCHMARKS and not root.is_dir():
        raise UserError(f"{name} is a benchmark, which only --data_test can name, without an @; for training name data sets with "
                        "--data_train")
    if "/" in name or not root.is_dir():
        raise UserError(f"unknown data set '{name}'; known: {', '.join(DATASETS)}, Folder with --dir_demo, a list (.json, .csv), "
                        f"or any folder under {args.dir_data} with input/ and target/; benchmarks: {', '.join(benchmarks.BENCHMARKS)}")
    return *paired.find(root, role), ""


def _count_note(name: str, role: str, own_part: bool, count: int) -> str:
    """Return 'all', or a text on how the number of images differs from the published number, which is also logged as a warning."""
    entry = DATASETS.get(name)
    published = entry.counts.get(role) if entry else None
    if published in (None, count) or (not own_part and count in entry.counts.values()):
        return "all"
    text = f"{count} images where {published} are published"
    process.log().say(f"warning: {name} ({role}) has {text}; results cannot be compared with published results")
    return text
