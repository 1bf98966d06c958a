"""Measures what the relay costs: named workloads, run side by side against several targets."""
