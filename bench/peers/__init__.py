"""Programs that are measured beside the relay: what its work looks like with other libraries."""
