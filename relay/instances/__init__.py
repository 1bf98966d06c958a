"""Where bots come from; the interface is `relay.policy.interfaces.InstancePool`."""
