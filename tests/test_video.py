"""Videos: frames, times, sound and rotation are kept, an interrupted run continues, and only local video files are read."""
import builtins
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest

from restore import ffmpeg, video
from tests.conftest import PATIENCE, REPO, photo, python, save
from tests.films import decoded, difference, ffmpeg_does, film, packets, rainy
from tests.test_folders import network_file
from tool import guarded, restore

pytest.importorskip("imageio_ffmpeg", reason="the package imageio-ffmpeg is not installed")
__all__ = ["network_file"]
UNEVEN = r"(2*N+mod(N\,3)/2)/20/TB"
RESULT = Path("clip_restored.mp4")
LIMIT = 3.0                               # mean difference in levels of 255 that the compression of these small frames may cause


def restored(capsys, *flags: str) -> tuple[int, str]:
    status = guarded("tool.restore", lambda: restore.run(["--weights", "w.pt", "--cpu", *flags]))
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return status, out + err


def test_frames_times_and_sound_are_kept(network_file, capsys):
    """With strength 0 the result shows the frames of the original at its times, with the same sound."""
    film(Path("clip.mp4"), rainy(40), times=UNEVEN)
    status, text = restored(capsys, "clip.mp4", "--strength", "0")
    assert status == 0 and "clip: 40 frames of 64x48" in text and " s for a frame, about " in text, text
    before, after = ffmpeg.inspect(Path("clip.mp4")), ffmpeg.inspect(RESULT)
    assert len(set(np.diff(before.times))) > 1
    assert [before.seconds(index) for index in range(41)] == pytest.approx([after.seconds(index) for index in range(41)], abs=2e-3)
    assert difference(decoded(RESULT), decoded(Path("clip.mp4"))) < LIMIT
    assert packets(Path("clip.mp4")) == packets(RESULT)
    assert not Path("clip_restored.mp4.parts").exists()


def test_pictures_that_begin_after_the_sound(network_file, capsys):
    film(Path("silent.mp4"), rainy(5), sound=False)
    ffmpeg_does("-itsoffset", "0.7", "-i", "silent.mp4", "-f", "lavfi", "-i", "sine=440:duration=2", "-c:v", "copy", "clip.mp4")
    assert restored(capsys, "clip.mp4")[0] == 0
    before, after = ffmpeg.inspect(Path("clip.mp4")), ffmpeg.inspect(RESULT)
    assert before.seconds(0) == pytest.approx(0.7, abs=0.01) and packets(Path("clip.mp4")) == packets(RESULT)
    assert [after.seconds(index) for index in range(6)] == pytest.approx([before.seconds(index) for index in range(6)], abs=2e-3)


def test_the_weights_of_the_zoo(place, capsys):
    """They are the default, and have no file of that name in the working folder."""
    film(Path("clip.mp4"), rainy(2))
    status = guarded("tool.restore", lambda: restore.run(["clip.mp4", "--cpu"]))
    assert status == 0 and len(decoded(RESULT)) == 2, capsys.readouterr()


def test_a_container_that_cannot_hold_the_sound(network_file, capsys):
    """It is named before the first frame is restored."""
    film(Path("clip.avi"), rainy(3), True, 0, "", "-c:a", "adpcm_ms")
    status, text = restored(capsys, "clip.avi", "-o", "out.mp4")
    assert status == 2 and "does not fit into a file that ends in .mp4; give the result the ending .mkv\n" in text, text
    assert not Path("out.mp4.parts").exists() and restored(capsys, "clip.avi", "-o", "out.mkv")[0] == 0


@pytest.mark.parametrize("count", [1, 33])
def test_a_part_with_one_frame(network_file, capsys, count):
    """The last frame is shown as long as in the original."""
    film(Path("clip.mp4"), rainy(count), sound=False)
    assert restored(capsys, "clip.mp4")[0] == 0
    assert ffmpeg.inspect(RESULT).seconds(count) == pytest.approx(count / 10, abs=2e-3) and len(decoded(RESULT)) == count


def test_the_network_is_applied(network_file, capsys):
    frames = rainy(3)
    film(Path("clip.mp4"), frames)
    assert restored(capsys, "clip.mp4")[0] == 0
    for number, frame in enumerate(decoded(Path("clip.mp4"))):
        save(Path(f"frames/{number}.png"), frame)
    assert restored(capsys, "frames")[0] == 0
    single = [restore.image.read(f"frames_restored/{number}.png") for number in range(3)]
    assert difference(decoded(RESULT), single) < LIMIT < difference(single, frames)


@pytest.mark.parametrize("rotation, turns", [(90, 1), (180, 2), (-90, 3)])
def test_a_rotated_video_is_stored_upright(network_file, capsys, rotation, turns):
    frames = rainy(4)
    film(Path("clip.mp4"), frames, rotation=rotation)
    assert restored(capsys, "clip.mp4", "--strength", "0")[0] == 0
    assert difference(decoded(RESULT), [np.rot90(frame, turns) for frame in frames]) < LIMIT
    assert b"rotation" not in subprocess.run([ffmpeg.program(), "-i", str(RESULT)], capture_output=True, check=False).stderr


@pytest.mark.parametrize("name, more, ending", [
    ("clip.mkv", ("-c:a", "flac"), "mp4"), ("clip.webm", ("-c:v", "libvpx-vp9", "-c:a", "libopus"), "mp4"),
    ("clip.avi", ("-c:v", "mjpeg", "-q:v", "2", "-pix_fmt", "yuvj420p", "-c:a", "adpcm_ms"), "mkv"), ("clip.ts", (), "mp4"),
    ("clip.mpg", ("-c:v", "mpeg2video", "-r", "25", "-q:v", "2"), "mp4")])
def test_containers(network_file, capsys, name, more, ending):
    """Sound that does not fit into MP4 as it is makes a Matroska file."""
    frames = rainy(5)
    film(Path(name), frames, True, 0, "", *more)
    status, text = restored(capsys, name, "--strength", "0")
    assert status == 0, text
    before, after = decoded(Path(name)), decoded(Path(f"clip_restored.{ending}"))
    assert difference(before, after) < LIMIT
    assert packets(Path(f"clip_restored.{ending}")).count(b"\n0,") > 0


def test_colours_and_shape_of_pixels(network_file, capsys):
    """Range, matrix and pixel shape are those of the original; where the matrix is unknown it is what players assume."""
    tags = "range=pc:colorspace=bt709:color_primaries=bt709:color_trc=smpte170m"
    picture = f"scale=out_color_matrix=bt709:out_range=pc,format=yuv420p,setsar=4/3,setparams={tags}"
    film(Path("clip.mp4"), rainy(3), False, 0, "", "-vf", picture)
    assert restored(capsys, "clip.mp4", "--strength", "0")[0] == 0
    before, after = ffmpeg.inspect(Path("clip.mp4")), ffmpeg.inspect(RESULT)
    assert before.colours == after.colours == ("pc", "bt709", "bt709", "smpte170m")
    assert before.aspect == after.aspect == "4/3"
    assert difference(decoded(RESULT), decoded(Path("clip.mp4"))) < LIMIT
    assert before._replace(colours=("", "", "", "")).matrix() == "bt601"
    assert before._replace(colours=("", "", "", ""), width=1280, height=720).matrix() == "bt709"


def test_more_than_8_bits_is_told(network_file, capsys):
    film(Path("clip.mkv"), rainy(2), False, 0, "", "-c:v", "ffv1", "-pix_fmt", "yuv420p10le")
    status, text = restored(capsys, "clip.mkv")
    assert status == 0 and "clip: it is of more than 8 bits, the result has 8 bits per channel" in text, text


@pytest.mark.parametrize("name", ["-clip.mp4", "a:b%03d.mp4", "http:x.mp4", "ü 'x'.mp4", "concat:a|b.mp4"])
def test_names_are_names(network_file, capsys, name):
    film(Path("clip.mp4"), rainy(2)).rename(name)
    status, text = restored(capsys, "--", name) if name.startswith("-") else restored(capsys, name)
    assert status == 0, text
    assert Path(name.replace(".mp4", "_restored.mp4")).is_file()


@pytest.mark.parametrize("content", [
    b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/x.ts\n", b"ffconcat version 1.0\nfile inner.mp4\n", b"", b"x" * 1000,
    b"\0\0\0\x20ftypisom" * 9,
    b"\x1a\x45\xdf\xa3" + b"#EXTM3U\n", b"<?xml version='1.0'?><MPD/>"])
@pytest.mark.parametrize("ending", [".mp4", ".mkv"])
def test_playlists_and_damaged_files_are_refused(network_file, capsys, content, ending):
    film(Path("inner.mp4"), rainy(2))
    Path(f"clip{ending}").write_bytes(content)
    status, text = restored(capsys, f"clip{ending}")
    assert status == 2, text
    assert text.splitlines()[-1].startswith(f"tool.restore: error: cannot read the video clip{ending}: "), text
    assert not list(Path().glob("clip_restored.m*"))


def test_a_damaged_video(network_file, capsys):
    """The frames that can be read are restored, and the command says that the file is damaged."""
    whole = film(Path("clip.mkv"), rainy(40)).read_bytes()
    Path("clip.mkv").write_bytes(whole[:len(whole) // 2])
    status, text = restored(capsys, "clip.mkv", "-o", "new:%d.mkv")
    assert status == 0 and "clip: it is damaged, and what can be read is restored (" in text, text
    assert 4 < len(decoded(Path("new:%d.mkv"))) < 40


def test_a_file_without_pictures(network_file, capsys):
    ffmpeg_does("-f", "lavfi", "-i", "sine=440:duration=1", "sound.mp4")
    status, text = restored(capsys, "sound.mp4")
    assert status == 2 and "cannot read the video sound.mp4: it holds no moving pictures" in text, text


KILLED = """
import os, signal, sys
from restore import ffmpeg
from tool import restore
write, count = ffmpeg.Writer.write, int(sys.argv[1])
def counted(self, frame):
    if self.index == count:
        os.kill(os.getpid(), signal.SIGKILL)
    write(self, frame)
ffmpeg.Writer.write = counted
restore.run(["clip.mp4", "--weights", "w.pt", "--cpu"])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_killed_run_continues(network_file, capsys):
    """The second run keeps the finished parts, and its frames are those of a run that was not interrupted."""
    film(Path("clip.mp4"), rainy(75), times=UNEVEN)
    ended = subprocess.run(python("-c", KILLED, "70"), env={"PYTHONPATH": str(REPO), "PATH": "", "OMP_NUM_THREADS": "1"},
                           timeout=PATIENCE, check=False)
    assert ended.returncode == -9
    place = Path("clip_restored.mp4.parts")
    assert sorted(path.name for path in place.glob("0*.mp4")) == ["000000.mp4", "000001.mp4"] and not RESULT.exists()
    (place / "000000.mp4").unlink()                       # a part that is lost is made again
    status, text = restored(capsys, "clip.mp4")
    assert status == 0 and "32 of them are already restored" in text, text
    assert not place.exists()
    Path("clip.mp4").rename("again.mp4")
    assert restored(capsys, "again.mp4")[0] == 0
    whole = Path("again_restored.mp4")
    assert all(np.array_equal(one, other) for one, other in zip(decoded(RESULT), decoded(whole), strict=True))
    assert ffmpeg.inspect(RESULT).times == ffmpeg.inspect(whole).times and packets(RESULT) == packets(whole)


def test_parts_of_other_flags_are_not_used(network_file, capsys, monkeypatch):
    film(Path("clip.mp4"), rainy(40))
    with monkeypatch.context() as patch:
        patch.setattr(ffmpeg, "join", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert restored(capsys, "clip.mp4")[0] == 130
    (Path("clip_restored.mp4.parts") / "mine.txt").write_text("x")
    status, text = restored(capsys, "clip.mp4", "--strength", "0.5")
    assert status == 0 and "already restored" not in text, text
    assert [path.name for path in Path("clip_restored.mp4.parts").iterdir()] == ["mine.txt"]
    status, text = restored(capsys, "clip.mp4", "--strength", "0.4")
    assert status == 2 and "clip_restored.mp4.parts exists, and this program did not write it" in text


def test_what_is_done_is_kept(network_file, capsys):
    film(Path("clip.mp4"), rainy(3))
    assert restored(capsys, "clip.mp4")[0] == 0
    before = RESULT.stat().st_mtime_ns
    status, text = restored(capsys, "clip.mp4")
    assert status == 0 and "is already restored and kept" in text and RESULT.stat().st_mtime_ns == before
    assert "is already" not in restored(capsys, "clip.mp4", "--strength", "0.5")[1] and RESULT.stat().st_mtime_ns > before
    RESULT.rename("other.mp4")
    save(RESULT.with_suffix(".png"), photo(8, 8, 1)).rename(RESULT)
    Path("clip_restored_report/restored-clip.json").unlink()
    status, text = restored(capsys, "clip.mp4")
    assert status == 2 and "clip_restored.mp4 exists, and this program did not write it" in text, text


def test_few_frames_are_in_memory(network_file, capsys, monkeypatch):
    alive, most, frames = weakref.WeakSet(), [], ffmpeg.frames

    class Frame(np.ndarray):
        """An array that can be watched."""

    def watched(*arguments):
        for frame in frames(*arguments):
            copy = frame.copy().view(Frame)
            alive.add(copy)
            most.append(len(alive))
            yield copy
    monkeypatch.setattr(ffmpeg, "frames", watched)
    monkeypatch.setattr(Frame, "__hash__", object.__hash__, raising=False)
    monkeypatch.setattr(video, "BATCH", {"cpu": 2 * 64 * 48})
    film(Path("clip.mp4"), rainy(80))
    assert restored(capsys, "clip.mp4")[0] == 0
    assert len(most) == 80 and max(most) <= 6


def test_main_restores_videos(run, network_file):
    """--dir_demo takes a video, with EDSR's name of the data set or without; the page shows frames in full size."""
    film(Path("clip.mp4"), rainy(9))
    flags = ("--test_only", "--pre_train", "w.pt", "--dir_demo", "clip.mp4", "--cpu")
    for more in (("--save_gt", "--save_maps"), ("--data_test", "video", "--save", "edsr")):
        status, text = run(*flags, *more)
        assert all(text.count(f"clip: {flag} does not apply to a video") == (flag in more) for flag in ("--save_gt", "--save_maps"))
        assert status == 0 and "clip: 9 frames, restored, no ground truth" in text, text
    assert ffmpeg.inspect(Path("experiment/edsr/results-clip/clip.mp4")).times == ffmpeg.inspect(Path("clip.mp4")).times
    page = Path("experiment/test/report.html").read_text()
    assert "before-clip/frame-000009.png" in page and "frames-clip/frame-000001.png" in page and "9 frames" in page
    assert restore.image.size("experiment/test/frames-clip/frame-000009.png") == (48, 64)


def test_a_missing_package_is_named(network_file, capsys, monkeypatch):
    film(Path("clip.mp4"), rainy(2))
    real = builtins.__import__

    def without(name, *arguments):
        if name == "imageio_ffmpeg":
            raise ImportError(name)
        return real(name, *arguments)
    monkeypatch.setattr(builtins, "__import__", without)
    status, text = restored(capsys, "clip.mp4")
    assert status == 2
    assert "videos need the package imageio-ffmpeg, which is not installed: pip install 'imageio[ffmpeg]'" in text
