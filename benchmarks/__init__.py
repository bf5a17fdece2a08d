"""Timings. Each script times two things in turn in one run and prints their ratio."""
