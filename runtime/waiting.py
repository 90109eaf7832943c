"""The waiting policy of OpenMP threads; this module must not import torch, whose OpenMP reads the policy when it is loaded."""
import os


def leave_cores_to_others() -> None:
    """Let waiting OpenMP threads sleep, unless the user has set a policy.

    By default a waiting thread of libgomp spins. If another job uses the cores, it spins during the time slices that the
    thread for which it waits needs. Call this before torch is imported; it has no effect afterwards.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        os.environ["OMP_WAIT_POLICY"] = "passive"
