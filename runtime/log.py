"""The log of a run: log.txt for readers, log.jsonl for programs."""
import io
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

from tqdm import tqdm

from runtime.errors import UserError


class Log:
    """Writes log.txt for readers and log.jsonl for programs; interrupting and resuming a training does not change them.

    times.jsonl contains what differs between such runs: speeds, stops and resumptions. Only the first process writes. Lines
    that are logged before `open` sets the folder are written when it is set.
    """

    FILES = ("log.txt", "log.jsonl")

    def __init__(self, quiet: bool = False):
        self.quiet = quiet
        self.place: Path | None = None
        self.waiting: list[str] = []
        self.followers: list[Callable[[str, dict], None]] = []    # called with every event (see report/trackers.py)

    def open(self, place: Path, lengths: dict[str, int] | None = None) -> None:
        """Set the folder of the log files; a resumed training cuts them to the `lengths` in its state.

        Raises UserError if a log file is a link, since writing would change a file elsewhere.
        """
        self.place = place = place.resolve()
        for name in (*self.FILES, "times.jsonl"):
            if (place / name).is_symlink():
                raise UserError(f"{place / name} is a link; a log must be a file of its own, so remove the link")
        for name, length in (lengths or {}).items():
            if name in self.FILES and not self.quiet and (place / name).is_file():
                os.truncate(place / name, min(length, (place / name).stat().st_size))
        for text in self.waiting if not any((lengths or {}).values()) else ():
            self._write("log.txt", text)
        self.waiting = []

    def lengths(self) -> dict[str, int]:
        """Return the length of each log file in bytes."""
        assert self.place
        return {name: (self.place / name).stat().st_size if (self.place / name).is_file() else 0 for name in self.FILES}

    def say(self, text: str, aside: str = "", keep: bool = True) -> None:
        """Print `text` and `aside` without disturbing progress bars; add `text`, without `aside`, to log.txt if `keep` is true."""
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
        """Add one JSON object to log.jsonl and pass it to the followers."""
        if self.place and not self.quiet:
            self._write("log.jsonl", json.dumps({"event": event, **values}, ensure_ascii=False))
            self.tell(event, **values)

    def tell(self, event: str, **values: object) -> None:
        """Call the followers with an event."""
        for follower in self.followers:
            follower(event, values)

    def _write(self, name: str, line: str) -> None:
        assert self.place
        path = self.place / name
        with open(path, "ab+") as file:
            file.seek(max(file.seek(0, os.SEEK_END) - 1, 0))
            whole = file.read(1) in (b"", b"\n")          # a kill may have left an incomplete last line
            file.write(("" if whole else "\n").encode() + line.encode("utf-8", "backslashreplace") + b"\n")


def print_any_text() -> None:
    """Let stdout and stderr print any text: bytes of file names that are not UTF-8 appear as \\udc80 to \\udcff."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
