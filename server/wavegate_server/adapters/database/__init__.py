"""The database itself: connection, tables, columns. Not here: queries (`reads`) and writes (`store`)."""
