"""What is allowed and what happens next: decisions as plain functions and values.

Time, nonces and randomness are arguments. The interfaces that the daemon wires
together live here, so that server, store and instances know none of each other.
"""
