"""python -m tool.audit: look up the installed packages in the public list of known vulnerabilities (needs pip-audit and a network)."""
import argparse
import importlib.util
import json
import shutil
import subprocess
import sys
import sysconfig

from runtime.arguments import Parser
from runtime.errors import Failure, UserError
from tool import guarded

PATIENCE = 600                            # seconds


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """Return the parsed flags, of which there are none; UserError for an unknown flag."""
    return Parser(prog="tool.audit", description=__doc__, allow_abbrev=False).parse_args(argv)


def command() -> list[str]:
    """Return the command that starts pip-audit; UserError if it is not installed."""
    if importlib.util.find_spec("pip_audit"):
        return [sys.executable, "-m", "pip_audit"]
    if shutil.which("pipx"):
        return ["pipx", "run", "pip-audit"]
    raise UserError(f"pip-audit is not installed: {sys.executable} -m pip install pip-audit, or install pipx")


def run(argv: list[str] | None = None) -> None:
    """Print the packages with known vulnerabilities; Failure if there are any or if the list cannot be reached."""
    arguments(argv)
    started = [*command(), "--path", sysconfig.get_path("purelib"), "--progress-spinner", "off", "--format", "json"]
    try:
        answer = subprocess.run(started, capture_output=True, text=True, timeout=PATIENCE)
        packages = json.loads(answer.stdout)["dependencies"]
    except subprocess.TimeoutExpired as error:
        raise Failure(f"pip-audit did not end within {PATIENCE} seconds; nothing is known about the packages") from error
    except (ValueError, KeyError, TypeError) as error:
        last = (answer.stderr.strip().splitlines() or ["no message"])[-1]
        raise Failure(f"pip-audit could not look up the packages, so nothing is known about them; it needs a network: {last}") from error
    found = [(package, hole) for package in packages for hole in package.get("vulns", ())]
    for package, hole in found:
        names = ", ".join([hole["id"], *hole.get("aliases", ())])
        print(f"{package['name']} {package['version']}: {names}; fixed in {', '.join(hole.get('fix_versions', ())) or 'no version'}")
    missing = [package["name"] for package in packages if "skip_reason" in package]
    if missing:
        print(f"not looked up: {', '.join(missing)}")
    if found:
        raise Failure(f"{len(found)} known vulnerabilities in {len({package['name'] for package, _ in found})} of {len(packages)} packages")
    if len(missing) == len(packages):
        raise Failure("pip-audit could look up none of the packages, so nothing is known about them; it needs a network")
    print(f"{len(packages) - len(missing)} of {len(packages)} packages were looked up; none of them has a known vulnerability")


if __name__ == "__main__":
    sys.exit(guarded("tool.audit", run))
