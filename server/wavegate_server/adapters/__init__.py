"""The outside world, one library or facility each."""
