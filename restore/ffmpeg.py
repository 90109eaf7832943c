"""Video files through the ffmpeg program that the package imageio-ffmpeg contains: what a file holds, its frames, and writing them.

Only local files of a few containers are read: the demuxer is the one that the first bytes of the file call for, and ffmpeg may open
no network address, so that a playlist or a reference in a file leads nowhere.
"""
import contextlib
import math
import os
import re
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from runtime import files
from runtime.errors import Failure, UserError, short

PACKAGE = "videos need the package imageio-ffmpeg, which is not installed: pip install 'imageio[ffmpeg]'"
ENDINGS = {"mp4": "mp4", "mkv": "matroska", "mov": "mov"}          # of the videos that are written, with the name of the muxer
CRF = "17"                                # quality of H.264: 0 is lossless, 17 is hardly distinguishable
SHARP = "flags=bicubic+accurate_rnd+full_chroma_int+full_chroma_inp"
STREAM = re.compile(r"Stream #0:\d+.*?: Video: .*?, (\w+)(?:\((.*?)\))?, \d+x\d+")
HDR = {"smpte2084": "HDR (PQ)", "arib-std-b67": "HDR (HLG)"}
# the matrix by the name of a colour space; others are bt601; for an unknown one, what players assume: bt709 from 720 lines upwards
MATRICES = {"bt709": "bt709", "bt2020nc": "bt2020", "smpte240m": "smpte240m", "fcc": "fcc"}


class Film(NamedTuple):
    """What a video file holds.

    The size of its upright frames; the shape of a pixel; the times of the frames and the end of the last one, in units of `unit`
    (numerator and denominator, in seconds); the pixel format; range, matrix, primaries and transfer of its colours ('': unknown);
    whether there is sound; what ffmpeg says of damaged places ('': nothing).
    """
    width: int
    height: int
    aspect: str
    unit: tuple[int, int]
    times: list[int]
    end: int
    pixels: str
    colours: tuple[str, str, str, str]
    sound: bool
    trouble: str

    def seconds(self, index: int) -> float:
        """Return the time of a frame; that of the index after the last frame is the end of the video."""
        return [*self.times[index:index + 1], self.end][0] * self.unit[0] / self.unit[1]

    def matrix(self) -> str:
        """Return the matrix between the stored colours and RGB, as the filter `scale` names it."""
        unknown = "bt709" if min(self.width, self.height) >= 720 or max(self.width, self.height) >= 1280 else "bt601"
        return MATRICES.get(self.colours[1], "bt601") if self.colours[1] else unknown

    def note(self) -> str:
        """Return what the result loses, and what is damaged, '' for nothing."""
        deep = re.search(r"(?:p|gray)(9|1[0-6])(?:le|be)?$|p01[0-6]", self.pixels)
        kind = HDR.get(self.colours[3])
        return "; ".join([*[f"it is {kind or 'of more than 8 bits'}, the result has 8 bits per channel"] * bool(deep or kind),
                          *[f"it is damaged, and what can be read is restored ({self.trouble})"] * bool(self.trouble)])


def program() -> str:
    """Return the path of ffmpeg; UserError if the package is not installed."""
    try:
        import imageio_ffmpeg
    except ImportError as error:
        raise UserError(PACKAGE) from error
    try:
        return imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError as error:
        raise UserError("imageio-ffmpeg has no ffmpeg for this system; install ffmpeg and name it in IMAGEIO_FFMPEG_EXE") from error


def container(path: Path) -> str:
    """Return the name of the demuxer for a video, by the first bytes of the file; UserError for any other file."""
    with open(path, "rb") as file:
        start = file.read(400)
    if start[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
        return "mov"
    if start.startswith(b"\x1a\x45\xdf\xa3"):
        return "matroska"
    if start.startswith(b"RIFF") and start[8:12] == b"AVI ":
        return "avi"
    if start.startswith(b"\x00\x00\x01\xba"):
        return "mpeg"
    if any(start[first:first + 1] == b"G" == start[first + step:first + step + 1] for first, step in ((0, 188), (4, 192))):
        return "mpegts"
    raise unreadable(path, "it is empty" if not start else "it is not an MP4, MOV, Matroska, WebM, AVI or MPEG file")


def unreadable(path: Path, why: str) -> UserError:
    """Return the UserError for a file that is not a video."""
    return UserError(f"cannot read the video {path}: {why}")


def reading(path: Path) -> list[str]:
    """Return the arguments of ffmpeg that read a file. The prefix keeps a name such as `-x.mp4` or `http:x.mp4` a name."""
    return ["-protocol_whitelist", "file,pipe", "-f", container(path), "-i", f"file:{path}"]


@contextlib.contextmanager
def running(arguments: list[str], errors: IO[bytes], **pipes) -> Iterator[subprocess.Popen]:
    """Run ffmpeg within the block and end it there; it gets no Ctrl-C of the terminal."""
    command = [program(), "-hide_banner", "-nostdin", "-y", "-loglevel", "error", *arguments]
    process = subprocess.Popen(command, stderr=errors, start_new_session=True, **pipes)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe:
                with contextlib.suppress(OSError):
                    pipe.close()


def reason(errors: IO[bytes]) -> str:
    """Return the first line of what ffmpeg printed, without the address of its part."""
    errors.seek(0)
    lines = [line for line in errors.read(100_000).decode("utf-8", "replace").splitlines() if line.strip()]
    return short(re.sub(r"^(\[[^\]]*\] )+", "", lines[0]) if lines else "ffmpeg gives no reason", 160)


def inspect(path: Path) -> Film:
    """Return what a video holds. All frames are decoded once, which gives their exact times; UserError if there are none."""
    command = [program(), "-hide_banner", "-nostdin", *reading(path)]
    known = subprocess.run(command, capture_output=True, start_new_session=True, check=False)
    lines = known.stderr.decode("utf-8", "replace").splitlines()
    found = next((match for line in lines if "attached pic" not in line and (match := STREAM.search(line))), None)
    times: list[int] = []
    end = 0
    about: dict[str, str] = {}
    arguments = [*reading(path), "-map", "0:V:0", "-fps_mode", "passthrough", "-enc_time_base", "demux", "-c:v", "rawvideo",
                 "-f", "framecrc", "pipe:1"]
    with tempfile.TemporaryFile() as errors, running(arguments, errors, stdout=subprocess.PIPE) as process:
        assert process.stdout
        for line in process.stdout:
            text = line.decode()
            if text.startswith("#"):
                key, _, value = text[1:].partition(":")
                about[key.split()[0]] = value.strip()
            else:
                time, length = map(int, text.split(",")[2:4])
                times.append(max(time, times[-1] + 1) if times else time)
                end = times[-1] + max(length, 1)
        process.wait()
        if not times or not found:
            silent = any("Stream #" in line for line in lines) and not found
            raise unreadable(path, "it holds no moving pictures" if silent else reason(errors))
        trouble = reason(errors) if errors.seek(0, os.SEEK_END) else ""
    width, height = map(int, about["dimensions"].split("x"))
    first, second = map(int, about["tb"].split("/"))
    return Film(width, height, about.get("sar", "0/1"), (first, second), times, end, found[1], _colours(found[2] or ""),
                any(": Audio: " in line for line in lines), trouble)


def _colours(text: str) -> tuple[str, str, str, str]:
    """Return range, matrix, primaries and transfer of `tv, bt709, progressive` or `pc, bt470bg/unknown/bt709`."""
    parts = [part.strip() for part in text.split(",")]
    stated = next((part for part in parts if part not in ("tv", "pc", "progressive") and " first" not in part), "")
    names = ["" if name in ("unknown", "reserved", "gbr") else name for name in (stated.split("/") if "/" in stated else [stated] * 3)]
    matrix, primaries, transfer = (*names, "", "", "")[:3]
    return "pc" if "pc" in parts else "tv" if "tv" in parts else "", matrix, primaries, transfer


def frames(path: Path, film: Film, start: int) -> Iterator[np.ndarray]:
    """Yield the frames from the index `start`, upright, (H, W, 3) uint8; UserError if there are fewer than `inspect` found."""
    arguments = [*reading(path), "-map", "0:V:0", "-vf", rf"select=gte(n\,{start}),scale=in_color_matrix={film.matrix()}:{SHARP}",
                 "-fps_mode", "passthrough", "-pix_fmt", "rgb24", "-f", "rawvideo", "pipe:1"]
    size = film.width * film.height * 3
    with tempfile.TemporaryFile() as errors, running(arguments, errors, stdout=subprocess.PIPE) as process:
        assert process.stdout
        for index in range(start, len(film.times)):
            data = process.stdout.read(size)
            if len(data) < size:
                raise unreadable(path, f"frame {index + 1} of {len(film.times)} is missing ({reason(errors)})")
            yield np.frombuffer(data, np.uint8).reshape(film.height, film.width, 3)


@contextlib.contextmanager
def writer(path: Path, film: Film, start: int) -> Iterator["Writer"]:
    """Yield a Writer of the frames from the index `start`; the file, H.264 in MP4, is complete when the block ends, or not written."""
    first, second = film.unit
    rate = f"{len(film.times) * second}/{(film.end - film.times[0]) * first}"
    kind = film.colours[0]
    keys = ("range", "colorspace", "color_primaries", "color_trc")
    stated = ":".join(f"{key}={value}" for key, value in zip(keys, film.colours) if value)
    layout = "yuv444p" if film.width % 2 or film.height % 2 else "yuv420p"
    picture = (f"mergeplanes=map0p=0:map1p=1:map2p=2:format=gbrp,scale=out_color_matrix={film.matrix()}:"
               f"out_range={kind or 'tv'}:{SHARP},format={layout},setsar={film.aspect}{',setparams=' * bool(stated)}{stated}")
    coding = f"fps={rate}:mbtree=0"       # mbtree would store the last frames of each part worse than the others
    with files.temporary(path) as part, tempfile.TemporaryFile() as errors:
        arguments = ["-protocol_whitelist", "pipe", "-f", "ivf", "-i", "pipe:0", "-vf", picture, "-c:v", "libx264", "-crf", CRF,
                     "-bf", "0", "-x264-params", coding, "-fps_mode", "passthrough", "-enc_time_base", f"{first}:{second}",
                     "-video_track_timescale", str(second), "-f", "mp4", f"file:{part}"]
        with running(arguments, errors, stdin=subprocess.PIPE) as process:
            assert process.stdin
            try:
                yield Writer(process.stdin, film, start)
                process.stdin.close()
            except BrokenPipeError:
                process.wait()
            if process.wait():
                raise Failure(f"ffmpeg cannot write {path}: {reason(errors)}")


class Writer:
    """Passes frames with their times to ffmpeg: in the container IVF, as three planes that ffmpeg is told to read as G, B and R."""

    def __init__(self, pipe: IO[bytes], film: Film, start: int):
        self.pipe, self.film, self.index, self.start = pipe, film, start, start
        first, second = film.unit
        pipe.write(struct.pack("<4sHH4sHHIIII", b"DKIF", 0, 32, b"I444", film.width, film.height, second, first, 0, 0))

    def write(self, frame: np.ndarray) -> None:
        """Write the next frame, (H, W, 3) uint8."""
        planes = frame[..., [1, 2, 0]].transpose(2, 0, 1).tobytes()
        self.pipe.write(struct.pack("<IQ", len(planes), self.film.times[self.index] - self.film.times[self.start]) + planes)
        self.index += 1


def fits(path: Path, film: Film, ending: str) -> bool:
    """Return whether the sound of a video can be stored as it is in a file with this ending."""
    if not film.sound:
        return True
    with tempfile.TemporaryDirectory() as place, tempfile.TemporaryFile() as errors:
        tried = [*reading(path), "-map", "0:a", "-c", "copy", "-t", "1", "-f", ENDINGS[ending], f"file:{Path(place) / 'sound'}"]
        with running(tried, errors) as process:
            return not process.wait()


def join(parts: list[tuple[Path, int, int]], film: Film, source: Path, path: Path) -> None:
    """Join the files of consecutive frames, each with the index of its first frame and of the first one after it, and add the sound and
    the metadata of `source`."""
    place = parts[0][0].parent
    times = [[round(1e6 * film.seconds(index)) for index in (start, end)] for _, start, end in parts]       # in microseconds, as ffmpeg's
    lines = [f"file {part.name}\nduration {(after - first) / 1e6:.6f}\n" for (part, *_), (first, after) in zip(parts, times)]
    files.write_text(place / "list.txt", "ffconcat version 1.0\n" + "".join(lines))
    second = min(film.unit[1] * math.ceil(1000 / film.unit[1]), 2**31 - 1)
    last = len(film.times) - 1
    duration = rf"if(eq(N\,{last})\,{film.seconds(last + 1) - film.seconds(last):.6f}/TB\,DURATION)"           # of the last frame
    with tempfile.TemporaryFile() as errors:
        arguments = ["-itsoffset", f"{film.seconds(0):.6f}", "-protocol_whitelist", "file", "-f", "concat",
                     "-i", f"file:{place / 'list.txt'}", *reading(source),
                     "-map", "0:v:0", "-map", "1:a?", "-c", "copy", "-map_metadata", "1", "-map_chapters", "1",
                     "-bsf:v", f"setts=duration={duration}",
                     *(["-video_track_timescale", str(second)] if path.suffix != ".mkv" else []),
                     "-f", ENDINGS[path.suffix[1:]], f"file:{path}"]
        with running(arguments, errors) as process:
            if process.wait():
                raise Failure(f"ffmpeg cannot join the parts in {place}: {reason(errors)}; a second run goes on with them")
