"""python -m tool.bench"""
import sys

from runtime import waiting
from tool import guarded
from tool.bench import run

waiting.before_torch()           # before `run` imports torch
sys.exit(guarded("tool.bench", run))
