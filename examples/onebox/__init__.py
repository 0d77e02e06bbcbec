"""What every example on one machine has in common."""
