"""What a host calls: its networks and losses, what an output and a batch come from, and where on the stack it is."""
