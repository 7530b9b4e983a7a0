"""Names and values that every file of a run folder uses."""

from typing import Literal

SCHEMA_VERSION = 2

FULL_METHOD = "full"
"""The method id of the full-token model, which every run contains."""

NONE_METHOD = "none"
"""The method id of answers without any vision token."""

DOWNSAMPLE_METHOD = "downsample"
"""The method id of answers from a smaller image."""

FULL_LATENCY = "1.0"
"""The latency of an answer that every layer of the LLM ran for."""

PositionsName = Literal["original", "compact"]
"""`original`: a token keeps the position it had in the full prompt; `compact`: positions are counted again."""

EngineName = Literal["auto", "stock", "graphs", "compiled", "eager"]
"""`auto`: CUDA graphs where they can run, else stock `generate`. `compiled`: graphs of compiled layers. `eager`: the
passes of the graphs, without graphs."""

QuantizationName = Literal["none", "int8", "fp8-weights", "fp8"]
"""Of the LLM's layers: weights in 8 bits, or in `fp8` products as well."""

SampleName = Literal["first", "random"]
"""Which samples of a task a limit takes: the first ones, or a random sample that the seed decides."""

Axis = Literal["tokens", "flops", "ms"]
"""What a cell's cost is counted in: vision tokens averaged over the LLM's layers, FLOPs of an answer, measured
milliseconds to the first token."""

FinishReason = Literal["eos", "length", "error"]
"""`eos`: the model ended its answer; `length`: max_new_tokens was reached; `error`: no answer at all."""

EmptyCause = Literal["first-token-eos", "whitespace-only", "special-tokens-only", "no-new-tokens", "error"]
"""Why a response is empty: the model's first new token was EOS (a finding about the model); it wrote only
white space; only special tokens; generation returned nothing new (a bug of a harness); the sample failed."""

PART_NAMES = ("vision", "selector", "projector", "prefill", "decode")
"""The parts of an answer, in the order they run; FLOPs and milliseconds are reported under these keys."""
