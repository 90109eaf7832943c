"""Services that all packages use: processes and devices, the experiment directory, log, files, errors, arguments."""

VERSION = "0.2.0"                         # of the program, as in pyproject.toml; model files and states record the version that wrote them
