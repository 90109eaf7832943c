"""python -m tool.benchmark NETWORK [NETWORK …] --minutes 10 --data_train SET: train networks on equal budgets and compare them.

NETWORK is the name of a model, or in quotes the name with flags of its own, as in 'nafnet --channels 16'. Other flags are those of
main.py and hold for all networks.
"""
import argparse
import shlex
import sys
from pathlib import Path

if __name__ == "__main__":                # before torch is imported
    from runtime import waiting
    waiting.before_torch()

import numpy as np
import torch

import main
import model
import option
import report
from metric import summary
from model.method import Method
from restore.restorer import Restorer
from runtime import arguments, experiment, files, process
from runtime.errors import Failure, UserError, short
from runtime.progress import duration
from tool import budget, guarded, profile

# flags of all networks, unless the command has others
EQUAL = {"--loss": "1*L1", "--batch_size": "16", "--patch_size": "64", "--epoch_chg": "1", "--augment": "all", "--no-balanced": "",
         "--schedule": "cosine", "--sigma=": ""}
OWN = ("--model", "--seed", "--epochs", "--test_every", "--resume", "--reset", "--test_only", "--template", "--config", "--load", "--list",
       "--explain", "--save")
SHARED = ("data_train", "data_test", "data_range", "dir_data", "train_dir", "exclude_leaks", "loss", "batch_size", "patch_size", "protocol",
          "augment", "no_augment", "sigma", "balanced")
SIDE = 512                                # side in pixels of the image that is restored for the time


def parse(argv: list[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """Return the flags of this tool and those that all trainings share; raises UserError for a wrong flag."""
    parser = arguments.Parser(prog="tool.benchmark", description=__doc__, allow_abbrev=False, formatter_class=argparse.RawTextHelpFormatter)
    add = parser.add_argument
    add("networks", nargs="+", metavar="NETWORK")
    add("--minutes", type=arguments.number(float, 0.001, 1e6), default=10.0, help="minutes of training for each network and seed (10)")
    add("--steps", type=arguments.SIZE, default=0, help="steps of training for each network and seed, instead of --minutes")
    add("--seeds", type=arguments.SIZE, default=2, help="number of trainings of each network, with the seeds 1, 2, … (2)")
    add("--save", default="benchmark", metavar="NAME", help="results are in experiment/NAME (benchmark)")
    own, shared = parser.parse_known_args(sys.argv[1:] if argv is None else argv)
    for network in own.networks:
        words(network)
    if len(own.networks) != len(set(own.networks)):
        raise UserError("a network is named twice; --seeds already gives several trainings of each network")
    typed = [each.partition("=")[0] for each in (*shared, *(word for network in own.networks for word in words(network)[1:]))]
    if taken := next((flag for flag in OWN if flag in typed), ""):
        raise UserError(f"the benchmark sets {taken} itself; use --seeds, --minutes or --steps; a network in quotes may have flags")
    return own, shared


def words(network: str) -> list[str]:
    """Return the name of a model and its own flags; raises UserError if there is none or a quote is not closed."""
    try:
        if found := shlex.split(network):
            return found
    except ValueError as error:
        raise UserError(f"the network {short(network)} cannot be read: {error}") from error
    raise UserError("the name of a network is empty")


def checked(own: argparse.Namespace, shared: list[str]) -> list[str]:
    """Return the flags that all trainings share, with --data_test; raises UserError for a wrong flag or networks that differ in others."""
    first: argparse.Namespace | None = None
    for_all = {each.partition("=")[0] for each in shared if each.startswith("--")}
    for network in own.networks:
        if twice := next((each for each in words(network)[1:] if each.partition("=")[0] in for_all), ""):
            raise UserError(f"'{network}' has {twice.partition('=')[0]}, which the command also has for all networks; give it once")
        args = option.parse(command(network, shared, f"{own.save}/check"))
        if first is None:
            if args.origin["data_test"] != option.TYPED:
                shared = [*shared, "--data_test", args.data_train]
                for_all.add("--data_test")
                args = option.parse(command(network, shared, f"{own.save}/check"))
            first = args
        if hasattr(model.package(args.model), "runs"):
            raise UserError(f"{args.model} trains in its own way, and not on batches of pairs; it cannot be compared on equal steps")
        for key in SHARED:
            if args.flags[key] != first.flags[key]:
                raise UserError(f"'{network}' has --{key} {args.flags[key]}, '{own.networks[0]}' {first.flags[key]}; give it once, for all")
    return shared


def run(argv: list[str] | None = None) -> None:
    """Measure the speed of each network, train it with each seed, and write table and page; a stopped benchmark continues."""
    own, shared = parse(argv)
    folder = experiment.folder_of(own.save)
    shared = checked(own, shared)
    plan_file, stated = folder / "plan.json", {"networks": own.networks, "minutes": own.minutes, "steps": own.steps, "flags": shared,
                                               "equal": EQUAL}
    plan = read_plan(plan_file, stated)
    for number, network in enumerate(own.networks, 1):
        if network not in plan:
            print(f"{network}: its speed is measured", flush=True)
            plan[network] = measured(command(network, shared, f"{own.save}/speed{number}"), own)
            files.make_folder(folder)
            files.write_json(plan_file, stated | {"measured": plan})
        print(f"{network}: {plan[network]['rate']:.3g} steps/s, so {plan[network]['steps']:,} steps", flush=True)
    total = sum(plan[network]["steps"] / plan[network]["rate"] for network in own.networks) * own.seeds
    print(f"{len(own.networks)} networks, {own.seeds} trainings each: about {duration(total)} on this machine, tests not included")
    runs = {network: [f"{own.save}/{number}-{seed}" for seed in range(1, own.seeds + 1)] for number, network in enumerate(own.networks, 1)}
    for network, names in runs.items():
        for seed, name in enumerate(names, 1):
            flags = [*command(network, shared, name), "--seed", str(seed), "--epochs", "1", "--test_every", str(plan[network]["steps"])]
            print(f"\n$ python main.py {shlex.join(flags)}", flush=True)
            if status := main.main([*flags, "--resume", "auto"]):
                raise Failure(f"the training of {network} with seed {seed} ended with status {status}; the same command continues")
    for data_set in results_of(f"{own.save}/1-1"):
        print(conclude(folder, data_set, plan, runs))


def command(network: str, shared: list[str], name: str) -> list[str]:
    """Return the flags of main.py for a network."""
    equal = [word for item in EQUAL.items() for word in item if word]
    package, *flags = words(network)
    return ["--model", package, *equal, *flags, *shared, "--save", name]


def read_plan(path: Path, stated: dict) -> dict[str, dict]:
    """Return what a stopped benchmark had measured, {} for a new one; raises UserError if it had other flags."""
    if not path.is_file():
        return {}
    found = files.read_json(path)
    if any(found.get(key) != value for key, value in stated.items()):
        raise UserError(f"{path} belongs to a benchmark with other networks or flags; use another --save, or delete {path.parent}")
    return found["measured"]


def measured(flags: list[str], own: argparse.Namespace) -> dict:
    """Return what is known before the training: rate in steps/s, steps, peak memory of a step, and the size of the network."""
    found = budget.measured([*flags, "--epochs", "1"], 3.0 if own.steps else min(budget.TIMED, own.minutes * 4))
    rate = found["rates"][0]
    count = own.steps or budget.steps(found, own.minutes * 60)
    with process.session(True, 0):
        return {"rate": rate, "steps": count, "memory": found["memory"]} | size(model.build(option.parse(flags)))


def size(method: Method) -> dict[str, float]:
    """Return the numbers of parameters and multiply-adds of a network, and the seconds in which the CPU restores a megapixel."""
    restorer, x = Restorer(method.eval()), torch.rand(1, 3, SIDE, SIDE)
    restorer(x, may_tile=False)
    seconds = profile.median(lambda: restorer(x, may_tile=False))
    return {"parameters": sum(each.numel() for each in method.network.parameters()), "multiply_adds": profile.multiply_adds(method),
            "seconds": seconds / SIDE**2 * 1e6}


def conclude(folder: Path, data_set: str, plan: dict[str, dict], runs: dict[str, list[str]]) -> str:
    """Write the table of a data set, and a page that compares the first training of each network; return the table with its heading."""
    numbers = {name: results_of(name)[data_set] for names in runs.values() for name in names}
    first = next(iter(numbers.values()))
    before = f", input {first['input_psnr']:.2f} dB" if "input_psnr" in first else ""
    about = f"{data_set}: {first['count']} images, protocol {first['protocol']['name']} ({first['channel'].upper()}){before}"
    rows = [row(network, plan[network], [numbers[name] for name in names]) for network, names in runs.items()]
    lines = ["| " + " | ".join(line) + " |" for line in (rows[0], ["---"] * len(rows[0]), *(each.values() for each in rows))]
    table = "\n".join([about, "", *lines, ""])
    files.write_text(folder / f"benchmark-{data_set}.md", table)
    places = {network: experiment.folder_of(names[0]) for network, names in runs.items()}
    found = {network: summary.read_table(place / f"metrics-{data_set}.csv")[first["protocol"]["name"]] for network, place in places.items()}
    page = report.compare(folder / f"report-{data_set}.html", places, found, data_set, about, rows, [])
    return f"\n{table}\npage: {page}"


def results_of(name: str) -> dict[str, dict]:
    """Return the numbers of the final test of a training, by data set."""
    return files.read_json(experiment.folder_of(name) / "metrics.json")


def row(network: str, known: dict, results: list[dict]) -> dict[str, str]:
    """Return the row of a network, {heading: text}; PSNR is the mean over the seeds with its 95 % interval."""
    psnr, ssim = (np.array([result[key] for result in results]) for key in ("psnr", "ssim"))
    span = f" ± {half_width(psnr):.2f} ({psnr.min():.2f} to {psnr.max():.2f})" if len(psnr) > 1 else ""
    return {"Network": network, "Parameters": f"{known['parameters']:,}", "G multiply-adds, 256²": f"{known['multiply_adds'] / 1e9:.2f}",
            "Memory of a step": f"{known['memory'] / 2**20:.0f} MiB" if known["memory"] else "unknown",
            "s/megapixel, CPU": f"{known['seconds']:.2f}", "Steps": f"{known['steps']:,}", "PSNR, dB": f"{psnr.mean():.2f}{span}",
            "SSIM": f"{ssim.mean():.4f}"}


def half_width(values: np.ndarray) -> float:
    """Return half the 95 % interval of the mean of some values by Student's t distribution; it is wide for two or three."""
    from scipy import stats  # slow to import

    return float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5)


if __name__ == "__main__":
    sys.exit(guarded("tool.benchmark", run))
