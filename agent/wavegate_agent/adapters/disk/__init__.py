"""What survives a restart: versions, journal, outbox. Not here: what the bytes mean (`core`)."""
