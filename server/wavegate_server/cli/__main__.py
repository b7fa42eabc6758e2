"""`python -m wavegate_server.cli` is the command `wavegate`."""

from wavegate_server.cli.main import main

if __name__ == "__main__":
    main()
