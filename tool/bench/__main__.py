"""python -m tool.bench"""
import sys

from runtime import waiting
from tool import guarded
from tool.bench import run

waiting.leave_cores_to_others()           # before `run` imports torch
sys.exit(guarded("tool.bench", run))
