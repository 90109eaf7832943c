"""How the threads of this process wait for each other; imports no torch, since torch's OpenMP reads the settings as it is loaded."""
import os


def leave_cores_to_others() -> None:
    """Let OpenMP threads sleep while they wait, where the user has not set how they wait.

    By default a waiting thread of libgomp spins. Beside another job it then spins through the time slices which the
    thread that it waits for needs. Call this before torch is imported; it has no effect afterwards.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        os.environ["OMP_WAIT_POLICY"] = "passive"
