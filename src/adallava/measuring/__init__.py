"""How the clock, memory and the machine are read, for a sweep's timing pass, `adallava bench` and the benchmarks."""
