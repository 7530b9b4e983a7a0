"""What is looked for in answers, whatever file they came from: one module a kind of failure.

To add a check, write it here, add it to `FILE_CHECKS` (`doctor/registry.py`), and plant its failure in `tests/doctor`.
"""
