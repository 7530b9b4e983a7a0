"""What every record is made of: the base class, and figures with the uncertainty that so many samples leave."""

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """Frozen, and strict about names: a field that it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Interval(Record):
    """An estimate with its two-sided 95 % bootstrap interval and the count behind it."""

    mean: float
    low: float
    high: float
    n: int


class PairedDifference(Record):
    """A score minus another on the same samples, with a 95 % paired bootstrap interval."""

    mean: float
    low: float
    high: float
    n: int
