"""The exceptions that end a command: main.py and the tools print them as one sentence."""



class UserError(ValueError):
    """Something that the user can mend; main prints the text as one sentence and exits with status 2."""

    def __str__(self) -> str:
        # a DataLoader worker hands an error over with its traceback around the text
        return super().__str__().rpartition("UserError: ")[2].strip()


class Failure(RuntimeError):
    """A run that cannot go on; main prints the text as one sentence and exits with status 1."""


class Interrupted(Exception):
    """A signal asked for the end in the middle of a test."""


class Stopped(BaseException):
    """A signal asked the run to end, and it has saved its state; `status` is the exit status that says which signal."""

    def __init__(self, text: str, status: int):
        super().__init__(text)
        self.status = status
