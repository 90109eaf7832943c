"""When, on which device and with which versions a program runs, for times.jsonl and the result page."""
import platform
from datetime import datetime, timezone
from pathlib import Path

import torch

from runtime import VERSION, process


def describe() -> dict[str, str]:
    """Return the time, the device, the processor and the versions of unweather, torch and Python as texts."""
    device, world = process.device(), process.world()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type.upper()
    return {"time": f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC", "device": f"{name} x {world}" if world > 1 else name,
            "processor": f"{processor()}, {process.threads()['cores']} cores",
            "versions": f"unweather {VERSION}, torch {torch.__version__}, Python {platform.python_version()}"}


def processor() -> str:
    """Return the name of the processor, its architecture if the system does not state the name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(filter(None, named), "") or platform.processor() or platform.machine() or "unknown processor"
