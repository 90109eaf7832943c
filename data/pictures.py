"""Find the images that --dir_demo names: one image or video, or all images in a folder and its subfolders."""
from pathlib import Path

from contract import Item
from data import image
from runtime import experiment, process
from runtime.errors import UserError
from runtime.files import natural

VIDEOS = {".mp4", ".m4v", ".mov", ".3gp", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts"}


def is_video(path: str | Path) -> bool:
    """Return whether a path names a file that is treated as a video, by its ending."""
    return Path(path).suffix.lower() in VIDEOS


def find(place: Path) -> list[Item]:
    """Return one Item for each image of a folder or of its input/, with subfolders, or one for a file, an image or a video.

    An item is named by its path in the folder, without ending. The items have targets if target/ has all of them. A link that leads
    nowhere, and a folder that is not read, has an item too, which then cannot be restored. Raises UserError if the path does not exist
    or holds no image.
    """
    if place.is_file():
        return [Item(place.stem, {"input": _known(place)})]
    if not place.is_dir():
        raise UserError(f"there is no file or folder {place}; --dir_demo specifies an image, a video, or the folder of images to restore")
    inner = not image.listing(place) and (place / "input").is_dir()
    base, others = place / "input" if inner else place, [experiment.ROOT, place / "target"]
    paths, converted, videos = _below(base, others)
    clean = {_name(path, place / "target"): path for path in _below(place / "target", [])[0]} if (place / "target").is_dir() else {}
    if clean and any(_name(path, base) not in clean for path in paths):
        process.log().say(f"{place / 'target'} lacks the targets of some images in {place}; no image is measured")
        clean = {}
    say = process.log().say
    if converted:
        say(f"{place}: {len(converted)} HEIC or AVIF images are not read, as {converted[0].name}; convert them to PNG or JPEG")
    if videos:
        say(f"{place}: {len(videos)} videos are not restored, as {videos[0].name}; restore each by a command of its own")
    if not paths:
        but = " but HEIC or AVIF ones, which have to be converted" if converted else ""
        raise UserError(f"{place} holds no image{but}; known file types: {', '.join(sorted(image.EXTENSIONS))}")
    found: dict[str, Item] = {}
    for path in paths:
        stem = name = _name(path, base)
        number = 1
        while name.lower() in found:                      # some file systems ignore upper and lower case
            number += 1
            name = f"{stem}_{number}"
        found[name.lower()] = Item(name, {"input": path} | ({"image": clean[stem]} if clean else {}))
    return [*found.values()]


def _known(path: Path) -> Path:
    """Return the path of a file that is an image or a video by its ending; UserError if it is neither."""
    ending = path.suffix.lower()
    if ending in image.CONVERTED:
        raise UserError(f"{path} is a HEIC or AVIF image, which is not read; convert it to PNG or JPEG")
    if ending not in image.EXTENSIONS and not is_video(path):
        raise UserError(f"{path} is not an image or a video by its name; known file types: "
                        f"{', '.join([*sorted(image.EXTENSIONS), *sorted(VIDEOS)])}")
    return path


def _name(path: Path, base: Path) -> str:
    return path.relative_to(base).with_suffix("").as_posix()


def _below(base: Path, left_out: list[Path]) -> tuple[list[Path], list[Path], list[Path]]:
    """Return the images, the images that have to be converted, and the videos in a folder and its subfolders, each in natural order.

    The images include links that lead nowhere, folders that this user may not read, and links to folders that are read already.
    """
    seen = {path.resolve() for path in left_out} - {base.resolve()}
    skipped, found, folders, links = set(seen), [], [base], []
    while folders or links:
        folder = folders.pop() if folders else links.pop()               # a link comes after all folders that are none
        if folder.resolve() in seen:
            found += [folder] if folder.resolve() not in skipped else []
            continue
        seen.add(folder.resolve())
        try:
            entries = [path for path in folder.iterdir() if not path.name.startswith(".")]
        except PermissionError:
            if folder == base:
                raise
            found.append(folder)
            continue
        for path in entries:
            if path.is_dir():
                (links if path.is_symlink() else folders).append(path)
            elif path.is_file() or path.is_symlink():
                found.append(path)
    found.sort(key=natural)
    images = [path for path in found if path.suffix.lower() in image.EXTENSIONS or path.is_dir()]
    return images, [path for path in found if path.suffix.lower() in image.CONVERTED], [path for path in found if is_video(path)]
