"""sentences as codes.

Revision 0004, after 0003.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_TABLES = ("rollout", "rollout_device", "compress_job")


def upgrade() -> None:
    """To this revision. Rows that are there have a text only."""
    for table in _TABLES:
        with op.batch_alter_table(table, schema=None) as batch_op:
            batch_op.add_column(sa.Column("said", sa.JSON(), nullable=False, server_default="{}"))


def downgrade() -> None:
    """Back from this revision."""
    for table in _TABLES:
        with op.batch_alter_table(table, schema=None) as batch_op:
            batch_op.drop_column("said")
