"""python -m tool.bench [CASES]: compare this framework with plain code, way by way (see docs/benchmarks.md).

This file imports no torch, because `__main__` chooses the number of threads before torch is imported.
"""
import argparse


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the parsed flags; UserError for an unknown flag or value."""
    from tool.bench import command
    return command.parse(argv)


def run(argv: list[str] | None = None) -> None:
    """Measure what the flags select, print the tables and write them."""
    from tool.bench import command
    command.run(argv)
