"""zoo/numbers.json: the numbers of earlier tests, so that the tables are made again without a test of what has not changed."""
from runtime import files, zoo

FILE = "numbers.json"


def known(name: str, data_set: str, test: str) -> dict:
    """Return the numbers of a network (or of 'classical' methods) on a set, {} if there are none of exactly this `test`.

    test: a text that differs for other weights and for other images.
    """
    entry = _all().get(name, {}).get(data_set, {})
    return entry.get("numbers", {}) if entry.get("test") == test else {}


def keep(name: str, data_set: str, test: str, numbers: dict) -> None:
    """Store the numbers of a test in place of those of an earlier one."""
    stored = _all()
    stored.setdefault(name, {})[data_set] = {"test": test, "numbers": numbers}
    files.write_json(zoo.ROOT / FILE, stored)


def _all() -> dict:
    path = zoo.ROOT / FILE
    return files.read_json(path) if path.is_file() else {}
