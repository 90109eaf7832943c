"""python -m tool.zoo"""
import sys

from runtime import waiting
from tool import guarded
from tool.zoo import run

waiting.before_torch()           # before `run` imports torch
sys.exit(guarded("tool.zoo", run))
