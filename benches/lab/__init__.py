"""What the benches share: processes and what they cost, the peers' configurations, load."""
