"""Photos that wait to be restored and those that are: each has a folder; their number, size and age are bounded."""
import contextlib
import queue
import secrets
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from restore.worker import Worker
from runtime.errors import UserError
from runtime.files import make_folder

WAITING = 8                               # photos that may arrive or wait at one time
KEPT, KEPT_BYTES = 16, 2**30              # restored photos that are kept, by number and by size on the disk
HOUR = 3600.0                             # seconds after which a restored photo is deleted


class Full(Exception):
    """WAITING photos are waiting."""


class Job:
    """A photo: its state (arriving, waiting, running, done, failed), its tiles, and a sentence when it has ended."""

    def __init__(self, folder: Path):
        self.folder, self.photo = folder, folder / "photo"
        self.name, self.state, self.text, self.done, self.tiles, self.ended = "", "arriving", "", 0, 0, 0.0

    def size(self) -> int:
        """Return the bytes that the job occupies on the disk."""
        with contextlib.suppress(OSError):                # another thread deletes the folder
            return sum(path.stat().st_size for path in self.folder.glob("*"))
        return 0


class Jobs:
    """Restores photos one after another by a Worker, in a thread; the files are in subfolders of `place`."""

    def __init__(self, worker: Worker, place: Path):
        self.worker, self.place = worker, place
        self.jobs: dict[str, Job] = {}                    # by key, in order of arrival
        self.queue: queue.Queue[Job] = queue.Queue()
        self.lock = threading.Lock()
        threading.Thread(target=self._run, daemon=True).start()

    @contextlib.contextmanager
    def arriving(self) -> Iterator[tuple[str, Job]]:
        """Yield a new job and its secret key; the caller writes job.photo and sets job.name, then the job waits for its turn.

        Raises Full if too many photos wait. If the block raises, the job is dropped.
        """
        key = secrets.token_urlsafe(16)
        with self.lock:
            if sum(job.state in ("arriving", "waiting") for job in self.jobs.values()) >= WAITING:
                raise Full
            job = self.jobs[key] = Job(self.place / key)
        try:
            make_folder(job.folder)
            yield key, job
            job.state = "waiting"
            self.queue.put(job)
        except BaseException:
            self._drop(key)
            raise

    def state(self, key: str) -> dict | None:
        """Return what the page shows of a job, or None if it does not exist (any more)."""
        with self.lock:
            job = self.jobs.get(key)
            if not job:
                return None
            jobs = list(self.jobs.values())
            ahead = sum(other.state in ("waiting", "running") for other in jobs[:jobs.index(job)])
        return {"state": job.state, "ahead": ahead, "done": job.done, "tiles": job.tiles, "text": job.text}

    def tidy(self) -> None:
        """Delete the oldest ended jobs while there are too many, and those that are older than an hour."""
        with self.lock:
            ended = sorted((job.ended, key, job.size()) for key, job in self.jobs.items() if job.state in ("done", "failed"))
        total, count, now = sum(size for *_, size in ended), len(ended), time.monotonic()
        for number, (when, key, size) in enumerate(ended):
            newest = number == count - 1
            if now - when > HOUR or (not newest and (count - number > KEPT or total > KEPT_BYTES)):
                self._drop(key)
                total -= size

    def _drop(self, key: str) -> None:
        with self.lock:
            job = self.jobs.pop(key, None)
        if job:
            shutil.rmtree(job.folder, ignore_errors=True)

    def _run(self) -> None:
        while True:
            job = self.queue.get()
            job.state = "running"
            try:
                found = self.worker.restore(job.photo, job.name, job.folder, lambda *tiles, job=job: self._progress(job, *tiles))
                how = f", in {found.tiles} tiles" if found.tiles > 1 else ""
                job.text = f"{found.width} × {found.height} pixels restored with {job.name}{how} in {found.seconds:.1f} s."
                state = "done"
            except UserError as error:
                job.text, state = str(error), "failed"
            except Exception as error:                    # the thread goes on, whatever a photo does
                job.text, state = f"This photo could not be restored: {type(error).__name__}.", "failed"
            job.photo.unlink(missing_ok=True)
            job.ended, job.state = time.monotonic(), state
            self.tidy()

    def _progress(self, job: Job, done: int, tiles: int) -> None:
        job.done, job.tiles = done, tiles
