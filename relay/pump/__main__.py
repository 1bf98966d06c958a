"""`python -m relay.pump LISTENER_FD LOCK_FD SPOOL`: started by the control process only.

Both descriptors are inherited. The lock file's lock lives as long as this process,
which is how a new control process knows that the pump, and so its calls, are alive.
"""

from __future__ import annotations

import gc
import socket
import sys
from pathlib import Path

from relay.pump.process import PumpProcess


def main(arguments: list[str]) -> int:
    listener, _lock, spool = arguments
    process = PumpProcess(socket.socket(fileno=int(listener)), Path(spool))
    # A tunnel that is over is taken apart by hand (Tunnel.unlink), so the collector would
    # find nothing, and every scan for it would be a pause in every call.
    gc.disable()
    process.run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
