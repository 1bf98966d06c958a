"""What single steps of the relay cost, in one process: time, and instructions where they count."""
