"""Where sessions, used tokens and leases live; the interface is `relay.policy.interfaces.Store`."""
