"""live requests on probation.

Revision 0005, after 0004.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """To this revision. Devices of rows that are there have said nothing."""
    with op.batch_alter_table("rollout_device", schema=None) as batch_op:
        batch_op.add_column(sa.Column("live_requests", sa.Integer(), nullable=True))


def downgrade() -> None:
    """Back from this revision."""
    with op.batch_alter_table("rollout_device", schema=None) as batch_op:
        batch_op.drop_column("live_requests")
