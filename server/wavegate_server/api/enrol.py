"""Enrolment: a device's one-time token and certificate request become its certificate. The token is the authentication."""

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from wavegate_server.adapters.database.connection import write
from wavegate_server.adapters.store import audit
from wavegate_server.adapters.trust import enrolment
from wavegate_server.api.context import Ctx
from wavegate_server.api.problems import problem_responses
from wavegate_server.config import Settings

__all__ = ["router"]

router = APIRouter(tags=["enrolment"])


class EnrolRequest(BaseModel):
    """What a device sends: its one-time token, and a certificate request for a key that never leaves it."""

    model_config = ConfigDict(
        extra="ignore",  # a newer device may say more
        json_schema_extra={
            "examples": [
                {"token": "wg1.kiosk-1.<secret>.<fingerprint>", "csr": "-----BEGIN CERTIFICATE REQUEST-----\n..."}
            ]
        },
    )

    token: str = Field(max_length=256)
    csr: str = Field(max_length=8192, description="PEM, P-256")


class EnrolAnswer(BaseModel):
    """The certificate and the addresses that an enrolled device needs."""

    certificate: str = Field(description="PEM; its common name is the device's id")
    ca: str = Field(description="PEM of the authority: verifies the server and the broker")
    root: str = Field(description="TUF root metadata to start trust from, as JSON text")
    device: str
    hardware_class: str
    site: str
    shard: int
    topic_prefix: str
    broker_host: str
    broker_port: int
    bench: bool = Field(description="whether it measures candidates; only enrolment says so to a device")


@router.post(
    "/enrol",
    operation_id="enrol_device",
    summary="Exchange a token for a certificate",
    responses=problem_responses(403),
)
def enrol(body: EnrolRequest, context: Ctx) -> EnrolAnswer:
    """Works once per token. A request that is refused for its certificate request leaves the token good."""
    now = context.clock()
    with write(context.engine) as session:
        issued = enrolment.redeem(session, context.authority, body.token, body.csr, now)
        actor, subject = f"device:{issued.device}", f"device/{issued.device}"
        audit.append(session, actor=actor, action="device.enrol", subject=subject, now=now)
        serials = enrolment.revoked_serials(session, now)
    if serials:  # an enrolment anew ended the device's certificate before
        context.authority.crl(serials, now)
    settings = context.settings
    return EnrolAnswer(
        certificate=issued.certificate,
        ca=issued.ca,
        root=context.tuf_repo.root_bytes().decode(),
        device=issued.device,
        hardware_class=issued.hardware_class,
        site=issued.site,
        shard=issued.shard,
        topic_prefix=settings.topic_prefix,
        broker_host=_broker_host(settings),
        broker_port=settings.broker_port,
        bench=issued.bench,
    )


def _broker_host(settings: Settings) -> str:
    """The name devices connect to; for a broker of ours it is the name in its certificate."""
    return settings.broker_host if settings.broker == "external" else settings.public_name
