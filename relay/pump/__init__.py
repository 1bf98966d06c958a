"""The data plane: established WebSockets, relayed in a process that does nothing else.

1. A tunnel is two transfers; a transfer reads one socket and writes the other.
2. What a tunnel waits for is a pure function of its two transfers' states.
3. The pump owns every socket it adopts, and one poller: epoll, or what else there is.
4. A turn is one batch of readiness, bounded work each, then the finished retire.

Nothing here imports trio or depends on the control process being alive.
"""
