"""Pure decisions: no clock, no files, no sockets, no threads."""
