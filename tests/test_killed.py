"""A restoration that is killed: a second run completes exactly what is missing, and other files stay as they are."""
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import PATIENCE, REPO, python, save
from tests.test_folders import FLAGS, RESULTS, expected, network_file
from tests.test_restore_tool import files_of, near, restored

__all__ = ["network_file", "restored"]
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")

KILLED = """
import os, signal, sys
from data import image
from restore import folder
from tool import restore
folder.WRITERS = 1
write, replace, count = image.write, os.replace, 0
def kill(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
def second_write(path, *rest):
    global count
    count += 1
    if count == 2 and moment == "before":
        kill()
    write(path, *rest)
    if count == 2:
        os.replace = {"written": kill, "named": lambda *paths: (replace(*paths), kill())}[moment]
moment, *flags = sys.argv[1:]
image.write = second_write
restore.run(flags) if flags[0] == "photos" else __import__("main").main(flags)
"""


def killed(moment: str, *flags: str) -> list[str]:
    """Restore photos in a process that is killed at a moment of its second result; return the results that are there then."""
    done = subprocess.run(python("-c", KILLED, moment, *map(str, flags)), env=os.environ | {"PYTHONPATH": str(REPO)}, timeout=PATIENCE,
                          capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    return [name for name in files_of("photos_restored" if flags[0] == "photos" else str(RESULTS)) if not name.startswith(".")]


@pytest.mark.parametrize("moment, count", [("before", 1), ("written", 1), ("named", 2)])
def test_a_second_run_completes_what_is_missing(restored, moment, count):
    found = killed(moment, "photos", "--weights", "w.pt", "--cpu", "--no-report")
    assert len(found) == count
    before = {name: os.stat(f"photos_restored/{name}").st_mtime_ns for name in found}
    status, text = restored("photos", "--no-report")
    assert status == 0 and f"{count} of 3 images are already restored and kept" in text, text
    assert {name: os.stat(f"photos_restored/{name}").st_mtime_ns for name in found} == before
    assert all(near(f"photos_restored/{name}.png", expected(f"photos/{name}.png")) for name in "abc")


@pytest.mark.parametrize("moment", ["before", "written"])
def test_a_file_put_there_after_the_kill_stays(restored, moment):
    """It is neither replaced nor taken for a result, though the killed run would have written a result of this name."""
    found = killed(moment, "photos", "--weights", "w.pt", "--cpu", "--no-report")
    missing = sorted({"a.png", "b.png", "c.png"} - set(found))[0]
    mine = Path("photos_restored", missing)
    save(mine, expected("photos/a.png")[::2])
    content = mine.read_bytes()
    there = sorted([*found, missing])
    for flags in ((), ("--strength", "0.5")):
        status, text = restored("photos", "--no-report", *flags)
        assert status == 2 and f"{missing} exists, and this program did not write it" in text, text
        assert mine.read_bytes() == content and [name for name in files_of("photos_restored") if name[0] != "."] == there


def test_an_experiment_takes_no_other_file_for_a_result(run, network_file):
    found = killed("before", *FLAGS, "--no-report")
    missing = sorted({"a.png", "b.png", "c.png"} - set(found))[0]
    save(RESULTS / missing, expected("photos/a.png")[::2])
    status, text = run(*FLAGS, "--no-report")
    assert status == 0 and "1 of 3 images are already restored and kept" in text, text
    assert near(f"{RESULTS}/{missing}", expected(f"photos/{missing}"))


def test_records_of_older_versions_are_read(restored):
    """They name all images and no results: what is there is theirs."""
    assert restored("photos", "--no-report")[0] == 0
    record = Path("photos_restored_report/restored-photos.json")
    record.with_suffix(".jsonl").unlink()
    content = record.read_text().replace('"pictures"', '"files": ["a.png", "b.png", "c.png"],\n "pictures"')
    record.write_text(content)
    Path("photos_restored/b.png").unlink()
    status, text = restored("photos", "--no-report")
    assert status == 0 and "2 of 3 images are already restored and kept" in text, text
    assert restored("photos", "--no-report", "--strength", "0.5")[0] == 0 and files_of("photos_restored") == ["a.png", "b.png", "c.png"]
