"""What holds for every test: the profiles of the property tests, and signals as usual.

The profile "fast" is that of `make test`, "deep" that of `make property`.
"""

from __future__ import annotations

import os
import signal

from hypothesis import HealthCheck, settings

# Machines are shared and slow at times: a slow example is no failure, a wrong one is.
settings.register_profile(
    "fast", max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("deep", parent=settings.get_profile("fast"), max_examples=5000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))

# A shell's background job ignores SIGINT, and so would every process that a test starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
