"""The log of a run: log.txt for people, log.jsonl for programs."""
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

from tqdm import tqdm


class Log:
    """log.txt for people, log.jsonl for programs: the same for the same training, however often it was interrupted.

    times.jsonl has what differs: speeds, stops and resumptions. Quiet in all processes but the first. What is said
    before `open` names the folder is written there afterwards.
    """

    FILES = ("log.txt", "log.jsonl")

    def __init__(self, quiet: bool = False):
        self.quiet = quiet
        self.place: Path | None = None
        self.waiting: list[str] = []
        self.followers: list[Callable[[str, dict], None]] = []    # told of every event (see logger.py)

    def open(self, place: Path, lengths: dict[str, int] | None = None) -> None:
        """Write to a folder from now on; a training that goes on cuts the files to the `lengths` of its state."""
        self.place = place = place.resolve()
        for name, length in (lengths or {}).items():
            if not self.quiet and (place / name).is_file():
                os.truncate(place / name, min(length, (place / name).stat().st_size))
        for text in self.waiting if not any((lengths or {}).values()) else ():
            self._write("log.txt", text)
        self.waiting = []

    def lengths(self) -> dict[str, int]:
        """Return how long the files are, in bytes."""
        assert self.place
        return {name: (self.place / name).stat().st_size if (self.place / name).is_file() else 0 for name in self.FILES}

    def say(self, text: str, aside: str = "", keep: bool = True) -> None:
        """Print a line and what is said aside, clear of progress bars, and add the line to log.txt if it is to be kept."""
        if not self.quiet:
            tqdm.write(text + aside, file=sys.stdout)
            sys.stdout.flush()
            if self.place and keep:
                self._write("log.txt", text)
            elif keep:
                self.waiting.append(text)

    def time(self, event: str, **values: object) -> None:
        """Add one JSON object to times.jsonl."""
        if self.place and not self.quiet:
            self._write("times.jsonl", json.dumps({"event": event, **values}, ensure_ascii=False))

    def record(self, event: str, **values: object) -> None:
        """Add one JSON object to log.jsonl."""
        if self.place and not self.quiet:
            self._write("log.jsonl", json.dumps({"event": event, **values}, ensure_ascii=False))
            self.tell(event, **values)

    def tell(self, event: str, **values: object) -> None:
        """Tell the followers of an event."""
        for follower in self.followers:
            follower(event, values)

    def _write(self, name: str, line: str) -> None:
        assert self.place
        path = self.place / name
        with open(path, "ab+") as file:
            file.seek(max(file.seek(0, os.SEEK_END) - 1, 0))
            whole = file.read(1) in (b"", b"\n")          # a kill may have cut the last line short
            file.write(("" if whole else "\n").encode() + line.encode("utf-8", "backslashreplace") + b"\n")
