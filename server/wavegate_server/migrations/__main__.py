"""`python -m wavegate_server.migrations NUMBER MESSAGE`: write the next revision from the models."""

import sys

from wavegate_server.migrations import new_revision

new_revision(sys.argv[2], sys.argv[1])
