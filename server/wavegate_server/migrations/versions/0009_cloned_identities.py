"""cloned identities.

Revision 0009, after 0008.
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """To this revision."""
    with op.batch_alter_table("device", schema=None) as batch_op:
        batch_op.add_column(sa.Column("runs", sa.JSON(), nullable=False, server_default="{}"))
        batch_op.add_column(sa.Column("cloned", sa.String(), nullable=False, server_default=""))


def downgrade() -> None:
    """Back from this revision."""
    with op.batch_alter_table("device", schema=None) as batch_op:
        batch_op.drop_column("cloned")
        batch_op.drop_column("runs")
