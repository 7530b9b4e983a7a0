"""From the files of a run folder to one HTML page that opens from disk. Imports no torch."""
