"""What every part stands on: processes and devices, the experiment's folder, log, files, errors, arguments."""

VERSION = "0.2.0"                         # of the program, as in pyproject.toml; model files and states say which version wrote them
