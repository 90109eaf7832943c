"""The named data sets: their tasks, their published numbers of images, and the folder layouts that pair their files."""
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from contract import Item
from data import demo
from data.paired import EDSR, INPUT_TARGET, Layout


class Entry(NamedTuple):
    """A data set: task (noise, rain, haze, snow, drops, blur, dark), description, published numbers of images by split, possible layouts.

    embedded: the function that lists the items of a set that is part of the program.
    """
    task: str
    about: str
    counts: Mapping[str, int] = MappingProxyType({})   # {'train': 200, 'test': 100}; unpublished numbers are absent
    layouts: tuple[Layout, ...] = (INPUT_TARGET, EDSR)
    embedded: Callable[[Path, str], list[Item]] | None = None


RAIN_IN_ONE = Layout(".", ".", pattern=r"rain-?(\d+)", partner=r"norain-\1")
RAIN_LAYOUTS = (INPUT_TARGET, Layout("rainy", "gt", pattern=r"rain-?(\d+)", partner=r"norain-\1"),
                Layout("rain", "norain", pattern=r"rain-?(\d+)", partner=r"norain-\1"), RAIN_IN_ONE,
                Layout("rainy", "gt"), Layout("rain", "norain"))                # copies in which both files have one name
RAIN_X2 = dict(target="norain", pattern=r"norain-(\d+)x2", partner=r"norain-\1")
RAIN_200 = (INPUT_TARGET, Layout("rain/X2", **RAIN_X2), Layout("rain", **RAIN_X2), *RAIN_LAYOUTS[1:])
RAIN_BY_14 = (Layout("rainy_image", "ground_truth", pattern=r"(\d+)_\d+"), INPUT_TARGET)
INPUT_GT = Layout("input", "gt", pattern="(.*)")          # both must exist, unlike with (.+)
SNOW = (INPUT_GT, Layout("synthetic", "gt", "mask"), INPUT_TARGET)
SNOW_CASED = (Layout("Snow", "Gt", "Mask"), INPUT_TARGET)
HAZE_KEYS = dict(pattern=r"(\d+)(_.+)?", view="centre")
HAZE = (Layout("hazy", "clear", **HAZE_KEYS), Layout("hazy", "gt", **HAZE_KEYS), Layout("input", "target", **HAZE_KEYS))
CLEAN = tuple(Layout(folder, folder, view="clean") for folder in (".", "HR", "clean", "images", "original", "target"))

DATASETS = {
    "DIV2K": Entry("", "EDSR's layout: DIV2K_train_HR clean, _LR_bicubic/x1 degraded, _EDGE masks", {}, (EDSR, INPUT_TARGET)),
    "Rain100L": Entry("rain", "light rain streaks", {"train": 200, "test": 100}, RAIN_LAYOUTS),
    "Rain100H": Entry("rain", "heavy rain streaks", {"train": 1800, "test": 100}, RAIN_LAYOUTS),
    "RainTrainL": Entry("rain", "the training part of Rain100L", {"train": 200}, RAIN_LAYOUTS),
    "RainTrainH": Entry("rain", "the training part of Rain100H; 1,254 pairs without its test scenes", {"train": 1254}, RAIN_LAYOUTS),
    "Rain12": Entry("rain", "rain streaks", {"test": 12},
                    (INPUT_TARGET, Layout(".", ".", pattern=r"(\d+)_in", partner=r"\1_GT"))),
    "Rain1400": Entry("rain", "DDN-Data: 900 + 100 scenes, 14 rains each", {"train": 12600, "test": 1400}, RAIN_BY_14),
    "Rain12600": Entry("rain", "the training part of Rain1400", {"train": 12600}, RAIN_BY_14),
    "Rain200L": Entry("rain", "light rain streaks, the revised Rain100L", {"train": 1800, "test": 200}, RAIN_200),
    "Rain200H": Entry("rain", "heavy rain streaks, the revised Rain100H", {"train": 1800, "test": 200}, RAIN_200),
    "Rain800": Entry("rain", "one JPEG per pair: left half clean, right half rainy", {"train": 700, "test": 100},
                     (INPUT_TARGET, Layout(".", ".", view="sides"))),
    "Snow100K": Entry("snow", "snow with masks; train, and all of the test", {"train": 50000, "test": 50000}, SNOW),
    "Snow100K-S": Entry("snow", "Snow100K's test, small flakes", {"test": 16611}, SNOW),
    "Snow100K-M": Entry("snow", "Snow100K's test, medium flakes", {"test": 16588}, SNOW),
    "Snow100K-L": Entry("snow", "Snow100K's test, large flakes", {"test": 16801}, SNOW),
    "CSD": Entry("snow", "snow, streaks and veil, with masks", {"train": 8000, "test": 2000}, SNOW_CASED),
    "SRRS": Entry("snow", "snow and veil", {"train": 15005, "test": 2000}, (Layout("Syn", "Gt", "Mask"), INPUT_TARGET)),
    "RESIDE_ITS": Entry("haze", "indoor haze, 1,399 scenes, 10 hazes each", {"train": 13990}, HAZE),
    "RESIDE_OTS": Entry("haze", "outdoor haze, 8,970 scenes, 35 hazes each (OTS-beta: 72,135)", {"train": 313950}, HAZE),
    "SOTS_indoor": Entry("haze", "RESIDE's indoor test: 50 scenes, 10 hazes each", {"test": 500}, HAZE),
    "SOTS_outdoor": Entry("haze", "RESIDE's outdoor test: 492 scenes", {"test": 500}, HAZE),
    "Outdoor-Rain": Entry("rain", "rain and fog", {"train": 9000, "test": 750},
                          tuple(Layout(i, t, pattern=r"(im_\d+)_s\d+_a\d+")
                                for i, t in (("in", "gt"), ("input", "gt"), ("input", "target")))),
    "Raindrop": Entry("drops", "drops on the lens", {"train": 861, "test": 58},
                      (*(Layout(i, t, pattern=r"(\d+)_rain", partner=r"\1_clean")
                         for i, t in (("data", "gt"), ("test_a/data", "test_a/gt"), ("input", "gt"))), INPUT_TARGET)),
    "Raindrop-b": Entry("drops", "Raindrop's larger test", {},
                        (Layout("data", "gt", pattern=r"(\d+)_rain", partner=r"\1_clean"), INPUT_TARGET)),
    "GoPro": Entry("blur", "blur of a moving camera, a folder for each scene", {"train": 2103, "test": 1111},
                   (Layout("*/blur", "*/sharp"), Layout("blur", "sharp"), INPUT_TARGET)),
    "LOL": Entry("dark", "photos taken with little light", {"train": 485, "test": 15}, (Layout("low", "high"), INPUT_TARGET)),
    "WeatherBench": Entry("", "real rain, snow and haze, a folder for each weather", {"train": 41402, "test": 600},
                          (Layout("*/input", "*/target"), Layout("*/{part}/input", "*/{part}/target"), INPUT_TARGET)),
    "BSDS500": Entry("noise", "Berkeley's photos: 200 train, 200 test (100 val)", {"train": 200, "test": 200}, CLEAN),
    "BSD400": Entry("noise", "clean photos; for a test with noise use BSD400@25", {"train": 400}, CLEAN),
    "CBSD68": Entry("noise", "clean photos; for a test with noise use CBSD68@25", {"test": 68}, CLEAN),
    "WED": Entry("noise", "clean photos", {"train": 4744}, CLEAN),
    "Urban100": Entry("noise", "clean photos", {"test": 100}, CLEAN),
    "Kodak24": Entry("noise", "clean photos", {"test": 24}, CLEAN),
    "McMaster": Entry("noise", "clean photos", {"test": 18}, CLEAN),
    "DemoSnow": Entry("snow", "scikit-image's photos under synthetic snow, with masks (embedded)", embedded=demo.opener("snow")),
    "DemoRain": Entry("rain", "the same photos under rain streaks (embedded)", embedded=demo.opener("rain")),
    "DemoHaze": Entry("haze", "the same photos under haze that increases with depth (embedded)", embedded=demo.opener("haze")),
    "DemoNoise": Entry("noise", "the same photos with Gaussian noise (embedded)", embedded=demo.opener("noise")),
    "Demo": Entry("", "the four sets together, kind 0-3; with --dir_demo the images of that folder instead", embedded=demo.everything),
}
