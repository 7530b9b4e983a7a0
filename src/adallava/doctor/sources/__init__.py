"""The files that the doctor reads: run folders, and what lmms-eval wrote."""
