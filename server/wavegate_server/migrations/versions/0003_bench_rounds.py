"""bench rounds.

Revision 0003, after 0002.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """To this revision."""
    op.create_table(
        "bench_round",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("hardware_class", sa.String(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("device_id", sa.String(), nullable=False),
        sa.Column("timeout_s", sa.Float(), nullable=False),
        sa.Column("wait_s", sa.Float(), nullable=False),
        sa.Column("listed", sa.Boolean(), nullable=False),
        sa.Column("previous", sa.LargeBinary(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_bench_round")),
    )
    with op.batch_alter_table("bench_round", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_bench_round_hardware_class"), ["hardware_class"], unique=False)
        batch_op.create_index(batch_op.f("ix_bench_round_state"), ["state"], unique=False)
    op.create_table(
        "bench_candidate",
        sa.Column("round_id", sa.String(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("manifest", sa.LargeBinary(), nullable=False),
        sa.Column("manifest_sha256", sa.String(), nullable=False),
        sa.Column("size_bytes", sa.Integer(), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("sent_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("code", sa.String(), nullable=True),
        sa.Column("detail", sa.String(), nullable=False),
        sa.Column("report_id", sa.Integer(), nullable=True),
        sa.PrimaryKeyConstraint("round_id", "number", name=op.f("pk_bench_candidate")),
    )
    op.create_table(
        "bench_artifact",
        sa.Column("round_id", sa.String(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("sha256", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("round_id", "number", "name", name=op.f("pk_bench_artifact")),
    )
    with op.batch_alter_table("bench_artifact", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_bench_artifact_sha256"), ["sha256"], unique=False)


def downgrade() -> None:
    """Back from this revision."""
    with op.batch_alter_table("bench_artifact", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_bench_artifact_sha256"))
    op.drop_table("bench_artifact")
    op.drop_table("bench_candidate")
    with op.batch_alter_table("bench_round", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_bench_round_state"))
        batch_op.drop_index(batch_op.f("ix_bench_round_hardware_class"))
    op.drop_table("bench_round")
