"""Pure decisions: no clock, no files, no sockets, no threads. Not here: anything that acts on them."""
