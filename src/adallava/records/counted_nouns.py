"""A number with its noun, so that one sample is not `1 samples`."""


def counted(number: int, noun: str, several: str = "") -> str:
    """Return `1 sample`, `2 samples`, `1,000 samples`.

    Args:
        number: how many.
        noun: of one.
        several: of more or none, where it is not the noun with an s.
    """
    return f"{number:,} {noun if number == 1 else several or f'{noun}s'}"
