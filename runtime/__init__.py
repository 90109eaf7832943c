"""What every part stands on: processes and devices, the experiment's folder, log, files, errors, arguments."""
