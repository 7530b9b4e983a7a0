"""Sweeps, their run folders, their statistics, and the doctor that reads them."""
