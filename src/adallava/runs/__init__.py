"""What a sweep does: units of work, loading, answering, timing, processes that share it."""
