"""What is done to torch modules, in subprocesses: prune, train, distil. Needs the extra `distil`."""
