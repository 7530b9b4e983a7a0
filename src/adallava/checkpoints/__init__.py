"""The files of a checkpoint: found, read within limits, and checked before anything is loaded."""
