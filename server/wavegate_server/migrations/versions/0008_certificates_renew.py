"""certificates renew.

Revision 0008, after 0007.
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_TEXTS = ("previous_public_key", "next_public_key", "next_certificate", "next_serial")


def upgrade() -> None:
    """To this revision."""
    with op.batch_alter_table("device", schema=None) as batch_op:
        for name in _TEXTS:
            batch_op.add_column(sa.Column(name, sa.String(), nullable=False, server_default=""))
        batch_op.add_column(sa.Column("next_expires", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    """Back from this revision."""
    with op.batch_alter_table("device", schema=None) as batch_op:
        for name in (*_TEXTS, "next_expires"):
            batch_op.drop_column(name)
