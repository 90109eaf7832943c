"""The facts at the top of a result page: network, training, best epoch, time, device and versions."""
import json
from pathlib import Path

from report.curves import read_lines
from report.page import unique, worded
from runtime.progress import duration

SHORT = {"loss": "Loss", "epochs": "Epochs", "test_every": "Steps an epoch", "batch_size": "Batch", "patch_size": "Patch",
         "optimizer": "Optimiser", "lr": "Learning rate", "schedule": "Schedule", "ema": "Averaged", "precision": "Precision",
         "seed": "Seed"}


def network(metrics: dict[str, dict], flags: dict) -> dict[str, str]:
    """Return model, parameters, weights, and the flags in SHORT."""
    entries = list(metrics.values())
    result = {"Model": ", ".join(unique(entry.get("model") for entry in entries) or [str(flags.get("model", "unknown"))])}
    sizes = unique(f"{entry['parameters']:,}" for entry in entries if isinstance(entry.get("parameters"), int))
    result |= {"Parameters": ", ".join(sizes)} if sizes else {}
    result |= {"Weights": ", ".join(unique(entry.get("weights") for entry in entries))} if entries else {}
    if not flags.get("test_only"):
        result |= {"Trained on": str(flags["data_train"])} if "data_train" in flags else {}
        result |= {name: worded(flags[key]) for key, name in SHORT.items() if flags.get(key) not in (None, "", 0)}
    return result


def circumstances(folder: Path, metrics: dict[str, dict]) -> dict[str, str]:
    """Return from times.jsonl when, how long, on which device and with which versions an experiment ran; {} if it has no such file."""
    found = read_lines(folder / "times.jsonl", _record)
    sessions = [each for each in found if each["event"] == "session"]
    if not sessions:
        return {}
    last, trained = sessions[-1], sum(each["seconds"] for each in found if each["event"] == "epoch")
    tests = {each["data_set"]: each["seconds"] for each in found if each["event"] == "test" and each["epoch"] is None}
    tested = sum(seconds for name, seconds in tests.items() if name in metrics)
    durations = [f"{what} {duration(seconds)}" for what, seconds in (("training", trained), ("test", tested)) if seconds]
    elsewhere = unique(each["device"] for each in sessions if each["trains"] and each["device"] != last["device"])
    return ({"Started": last["time"]} | ({"Duration": ", ".join(durations)} if durations else {})
            | {"Device": last["device"]} | ({"Trained also on": ", ".join(elsewhere)} if elsewhere else {})
            | {"Processor": last["processor"], "Versions": last["versions"]})


def _record(line: str) -> list[dict]:
    """Return [record] for a complete line about a session, an epoch or a test, else []."""
    try:
        record = json.loads(line)
        if record["event"] == "session":
            fits = all(isinstance(record[key], str) for key in ("time", "device", "processor", "versions")) and "trains" in record
        else:
            fits = (record["event"] in ("epoch", "test") and 0 <= record["seconds"] < 1e12
                    and (record["event"] == "epoch" or (isinstance(record["data_set"], str) and "epoch" in record)))
    except (ValueError, KeyError, TypeError, RecursionError):
        return []
    return [record] if fits else []
