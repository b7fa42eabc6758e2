"""a wave in parts.

Revision 0010, after 0009.
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """To this revision."""
    with op.batch_alter_table("rollout", schema=None) as batch_op:
        batch_op.add_column(sa.Column("back_from", sa.DateTime(timezone=True), nullable=True))
        batch_op.add_column(sa.Column("touched", sa.Integer(), nullable=False, server_default="0"))
    with op.batch_alter_table("rollout_device", schema=None) as batch_op:
        batch_op.add_column(sa.Column("back_at", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    """Back from this revision."""
    with op.batch_alter_table("rollout_device", schema=None) as batch_op:
        batch_op.drop_column("back_at")
    with op.batch_alter_table("rollout", schema=None) as batch_op:
        batch_op.drop_column("touched")
        batch_op.drop_column("back_from")
