"""The files of a run folder, as data: the boundary between running and analysing. No torch here.

A run folder holds `run.json` (`Run`), `samples.jsonl` (one `SampleRecord` a line), `timings.jsonl` (one
`TimingRecord` a line, if the sweep was asked to time), `results.json` (`Results`) and `report.html`. Everything a
report or a doctor says is read from these.
"""

from adallava.records.config import Decoding, RunConfig
from adallava.records.estimates import Interval, PairedDifference, Record, Verdict
from adallava.records.names import (
    DOWNSAMPLE_METHOD,
    FULL_LATENCY,
    FULL_METHOD,
    NONE_METHOD,
    PART_NAMES,
    SCHEMA_VERSION,
    Axis,
    EmptyCause,
    FinishReason,
    PositionsName,
    SampleName,
)
from adallava.records.results import (
    Area,
    AreaComparison,
    Cell,
    Comparison,
    HardSplit,
    MachineLoad,
    Results,
    SeenPictures,
    Spread,
    TaskFigures,
    Timing,
    TimingRecord,
)
from adallava.records.run import Provenance, Run
from adallava.records.sample import SampleRecord
from adallava.records.what_ran import WhatRan

__all__ = [
    "DOWNSAMPLE_METHOD",
    "FULL_LATENCY",
    "FULL_METHOD",
    "NONE_METHOD",
    "PART_NAMES",
    "SCHEMA_VERSION",
    "Area",
    "AreaComparison",
    "Axis",
    "Cell",
    "Comparison",
    "Decoding",
    "EmptyCause",
    "FinishReason",
    "HardSplit",
    "Interval",
    "MachineLoad",
    "PairedDifference",
    "PositionsName",
    "Provenance",
    "Record",
    "Results",
    "Run",
    "RunConfig",
    "SampleName",
    "SampleRecord",
    "SeenPictures",
    "Spread",
    "TaskFigures",
    "Timing",
    "TimingRecord",
    "Verdict",
    "WhatRan",
]
