"""fleet defaults.

Revision 0007, after 0006.
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """To this revision. Rollouts that are there leave no default behind: what they were for is not known."""
    op.create_table(
        "fleet_default",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("choice", sa.JSON(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("rollout_id", sa.String(), nullable=True),
        sa.Column("policy", sa.JSON(), nullable=False),
        sa.Column("set_by", sa.String(), nullable=False),
        sa.Column("set_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("cleared_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_fleet_default")),
    )
    op.create_index(op.f("ix_fleet_default_model"), "fleet_default", ["model"])
    with op.batch_alter_table("rollout", schema=None) as batch_op:
        batch_op.add_column(sa.Column("choice", sa.JSON(), nullable=True))
        batch_op.add_column(sa.Column("late", sa.Boolean(), nullable=False, server_default=sa.false()))


def downgrade() -> None:
    """Back from this revision."""
    with op.batch_alter_table("rollout", schema=None) as batch_op:
        batch_op.drop_column("late")
        batch_op.drop_column("choice")
    op.drop_index(op.f("ix_fleet_default_model"), table_name="fleet_default")
    op.drop_table("fleet_default")
