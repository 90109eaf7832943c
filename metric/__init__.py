"""Compare restored images with their targets: measures (metric/measure.py, metric/further.py) under named protocols."""
import re
from dataclasses import asdict, dataclass, replace

from torch import Tensor
from torch.nn import functional as F

from metric import further, measure
from metric.further import ALWAYS, METRICS, Metric
from runtime.errors import UserError

__all__ = ["ALWAYS", "METRICS", "PROTOCOLS", "Metric", "Protocol", "check_best", "compare", "described", "measures", "prepare",
           "protocols", "resolved", "score", "stated"]

CHANNELS = {"rgb": "RGB", "y": "Y (float)", "y8": "Y (8 bits)", "task": "Y for rain, else RGB"}      # each with its text in --list
ROUNDING = {"round": "rounded to 8 bits", "truncate": "truncated to 8 bits", "none": "not rounded"}
WINDOWS = {"gaussian": "Gaussian SSIM", "uniform7": "uniform-7 SSIM", "columns7": "1-D SSIM"}


@dataclass(frozen=True)
class Protocol:
    """The settings of a measurement; do not compare numbers of two protocols, or of two versions of one protocol.

    channels: rgb, y (BT.601, float), y8 (y rounded to 8 bits, as in MATLAB), task (y for rain, else rgb).
    rounding of the output to 8 bits: round, truncate, none. border: number of pixels excluded at each side.
    size: pad (the network pads, the whole image is measured), crop N or resize N (to multiples of N, before the network).
    ssim: gaussian (window 11, sigma 1.5), uniform7 (scikit-image's default), columns7 (uniform7 along columns only).
    Raises UserError for any other value.
    """
    channels: tuple[str, ...]
    ssim: str = "gaussian"
    rounding: str = "round"
    border: int = 0
    size: str = "pad"
    version: int = 1
    name: str = ""

    def __post_init__(self):
        if isinstance(self.channels, str) or not self.channels or not set(self.channels) <= set(CHANNELS):
            raise UserError(f"the channels of a protocol are a tuple of {', '.join(CHANNELS)}, as in ('rgb', 'y'), not {self.channels!r}")
        for name, known in (("ssim", WINDOWS), ("rounding", ROUNDING)):
            if getattr(self, name) not in known:
                raise UserError(f"{name} of a protocol is one of {', '.join(known)}, not {getattr(self, name)!r}")
        if self.border < 0:
            raise UserError(f"border of a protocol is a number of pixels from 0, not {self.border}")
        if not re.fullmatch(r"pad|(crop|resize) [1-9]\d*", self.size):
            raise UserError(f"size of a protocol is 'pad', or 'crop N' or 'resize N' with a whole number N from 1, not {self.size!r}")

    def settings(self) -> dict:
        """Return the settings as they are stored with every number."""
        return asdict(self)

    def fit(self, x: Tensor) -> Tensor:
        """Return (B, C, H, W) in the size that the network receives and that is measured."""
        how, _, multiple = self.size.partition(" ")
        if how == "pad":
            return x
        height, width = (max(side // int(multiple), 1) * int(multiple) for side in x.shape[-2:])
        if how == "resize":
            return F.interpolate(x, (height, width), mode="bilinear", antialias=True).clamp(0, 1)
        top, left = (max(side - kept, 0) // 2 for side, kept in zip(x.shape[-2:], (height, width)))
        return x[..., top:top + height, left:left + width]


def _named(**protocols: Protocol) -> dict[str, Protocol]:
    return {name: replace(protocol, name=name) for name, protocol in protocols.items()}


PROTOCOLS = _named(                       # a protocol has the name of the work whose measurement it repeats
    default=Protocol(("rgb", "y")),
    smgarn=Protocol(("rgb",), border=7),
    two_stage_kd=Protocol(("task",), size="resize 16"),
    dsrir=Protocol(("task",), ssim="uniform7", rounding="truncate", size="crop 8"),
    dsrir_ssim1d=Protocol(("task",), ssim="columns7", rounding="truncate", size="crop 8"),
    y_truncated=Protocol(("y8",), rounding="truncate"),
    y_rounded=Protocol(("y8",)),
    promptir=Protocol(("rgb",), ssim="uniform7", rounding="none", size="crop 16"),
    snow100k_y=Protocol(("y",)),
)


def protocols(joined: str) -> list[Protocol]:
    """Return the protocols of `a+b`; UserError if a name is unknown."""
    for name in joined.split("+"):
        if name not in PROTOCOLS:
            raise UserError(f"unknown protocol '{name}'; known: {', '.join(PROTOCOLS)}")
    return [PROTOCOLS[name] for name in joined.split("+")]


def prepare(extra: tuple[str, ...], device) -> None:
    """Load the networks of further measures before the run starts; UserError if a measure is unknown or not available."""
    further.prepare(extra, device)


def measures(protocols: list[Protocol], extra: tuple[str, ...]) -> list[str]:
    """Return the names of the numbers that a test under these protocols measures: psnr, ssim, psnr_y, further measures."""
    own = [f"{name}_{kind}" if place else name for protocol in protocols
           for place, kind in enumerate(protocol.channels) for name in ("psnr", "ssim")]
    return list(dict.fromkeys([*own, *extra]))


def check_best(best: str, protocols: list[Protocol], extra: tuple[str, ...]) -> None:
    """Raise UserError if no test measures the number that --best names."""
    known = measures(protocols, extra)
    if best not in known:
        raise UserError(f"--best '{best}' is not measured by any test; --protocol {'+'.join(each.name for each in protocols)} and "
                        f"--metrics '{'+'.join(extra)}' measure {', '.join(known)}")


def score(results: dict[str, dict], best: str) -> float | None:
    """Return the number that --best names from the results of a test by data set; None if it was not measured. Higher is better.

    The first data set with this number and the first of its protocols with it are used. A measure for which lower is better
    is negated.
    """
    found = _first(results, best)
    lower = found and best not in measures(list(PROTOCOLS.values()), ()) and further.lower_is_better(best)
    return -found[1] if found and lower else found[1] if found else None


def stated(results: dict[str, dict], best: str) -> str:
    """Return the number that `score` uses in words, for example `psnr 27.4312 on DemoSnow`, '' if it was not measured."""
    found = _first(results, best)
    return f"{best} {found[1]:.4f} on {found[0]}" if found else ""


def _first(results: dict[str, dict], best: str) -> tuple[str, float] | None:
    return next(((name, numbers[best]) for name, result in results.items() for numbers in (result, *result.get("others", ()))
                 if best in numbers), None)


def compare(output: Tensor, target: Tensor, protocol: Protocol, task: str = "", extra: tuple[str, ...] = ()) -> dict[str, float]:
    """Return the numbers of one pair of images, (1, 3, H, W) in [0, 1], already in the size of the protocol (see `fit`).

    Keys: psnr and ssim of the first channel kind, the `extra` measures by name, then psnr_y and ssim_y of a second kind y.
    """
    output, target = measure.quantise(output, protocol.rounding), measure.quantise(target, "round")
    if protocol.border and min(output.shape[-2:]) > 2 * protocol.border:
        inside = slice(protocol.border, -protocol.border)
        output, target = output[..., inside, inside], target[..., inside, inside]
    numbers = {}
    for place, kind in enumerate(protocol.channels):
        a, b = (measure.channel(x, resolved(kind, task)) for x in (output, target))
        ending = f"_{kind}" if place else ""
        numbers[f"psnr{ending}"] = measure.psnr(a, b)
        numbers[f"ssim{ending}"] = measure.SSIM[protocol.ssim](a, b)
        for name in extra if not place else ():
            numbers[name] = further.measured(name, output, target)
    return numbers


def resolved(kind: str, task: str) -> str:
    """Return the channel kind that is measured: `task` becomes y (luma) for rain, rgb for other tasks."""
    return {"task": "y" if task == "rain" else "rgb"}.get(kind, kind)


def described(protocol: Protocol) -> str:
    """Return a description of a protocol's settings for --list."""
    return (f"v{protocol.version}: {' and '.join(CHANNELS[kind] for kind in protocol.channels)}, {ROUNDING[protocol.rounding]}, "
            f"border {protocol.border}, size {protocol.size}, {WINDOWS[protocol.ssim]}")
