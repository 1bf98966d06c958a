"""The wire, without input or output: bytes and values in, values and bytes out.

Nothing here knows a socket, a clock or a source of randomness; what a function
needs of them is an argument, so every test is a plain call.
"""
