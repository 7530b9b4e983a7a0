"""The errors a caller can cause, all under one base so that a command line can print them without a traceback."""

_MOST_OF_ANOTHERS = 300


def in_short(error: BaseException) -> str:
    """Return what another library's error says, in one line with its type: never nothing, never without end."""
    message = " ".join(str(error).split())
    shown = message if len(message) <= _MOST_OF_ANOTHERS else f"{message[:_MOST_OF_ANOTHERS]} …"
    return f"{type(error).__name__}: {'it gives no reason' if shown in ('', 'None') else shown}"


class AdallavaError(Exception):
    """Base of every error that names a mistake of the caller, its value and the fix."""


class BudgetError(AdallavaError, ValueError):
    """An invalid budget: out of range, not a number, or of the wrong type."""


class UnknownNameError(AdallavaError, KeyError):
    """A name that no registry, split, kind or bundled model has."""

    def __str__(self) -> str:
        """Return the message itself: `KeyError` would print its repr."""
        return str(self.args[0]) if self.args else ""


class InputError(AdallavaError, ValueError):
    """Input that does not fit: a prompt without its images, a file that cannot be read, a missing column."""


class UnsupportedModeError(AdallavaError, NotImplementedError):
    """A mode of generation, or a model, that is not supported, with the reason."""


class CheckpointError(AdallavaError, OSError):
    """A checkpoint or adapter that is missing, damaged, or made for another base."""


class RunFolderError(AdallavaError, RuntimeError):
    """A run folder that holds another configuration's results, or none."""


class TrainingError(AdallavaError, ArithmeticError):
    """A training whose loss or weights are no longer finite numbers."""
