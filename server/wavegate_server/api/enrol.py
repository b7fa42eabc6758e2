"""Enrolment: a device's one-time token and certificate request become its certificate. The token is the authentication.

And renewal for a device whose certificate ended while it was switched off: a signature by its old key is the authentication.
"""

import base64
from datetime import timedelta

import msgspec
from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from wavegate_server.adapters.database.connection import write
from wavegate_server.adapters.store import audit
from wavegate_server.adapters.trust import enrolment, renewal
from wavegate_server.api.context import Ctx
from wavegate_server.api.problems import problem_responses
from wavegate_server.config import Settings
from wavegate_shared.enrolment import EnrolmentAnswer
from wavegate_shared.errors import UsageError

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
    """The certificate and the addresses that an enrolled device needs: `wavegate_shared.enrolment.EnrolmentAnswer`, for the document."""

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
    answer = EnrolmentAnswer(
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
    return EnrolAnswer.model_validate(msgspec.structs.asdict(answer))


class ChallengeRequest(BaseModel):
    """Which device wants to renew."""

    model_config = ConfigDict(extra="ignore", json_schema_extra={"examples": [{"device": "kiosk-1"}]})

    device: str = Field(max_length=63)


class Challenge(BaseModel):
    """What to sign, within five minutes."""

    challenge: str


class RenewalRequest(BaseModel):
    """A request for a new key, and the proof that the device holds the old one."""

    model_config = ConfigDict(
        extra="ignore",
        json_schema_extra={
            "examples": [
                {
                    "device": "kiosk-1",
                    "csr": "-----BEGIN CERTIFICATE REQUEST-----\n...",
                    "challenge": "1767225600.<hash>",
                    "signature": "MEUCIQ...",
                }
            ]
        },
    )

    device: str = Field(max_length=63)
    csr: str = Field(max_length=8192, description="PEM, P-256, for a new key")
    challenge: str = Field(max_length=200)
    signature: str = Field(
        max_length=300,
        description="base64 of the ECDSA-SHA256 signature by the old key on: `wavegate certificate renewal`, the challenge, "
        "the request, with a line feed after the first two",
    )


class RenewalAnswer(BaseModel):
    """The new certificate; the old one holds until the new one is used."""

    certificate: str = Field(description="PEM")


@router.post(
    "/renew/challenge", operation_id="renewal_challenge", summary="Begin the renewal of a certificate that ended"
)
def renewal_challenge(body: ChallengeRequest, context: Ctx) -> Challenge:
    """Says nothing about whether the device exists."""
    return Challenge(challenge=renewal.new_challenge(context.authority, body.device, context.clock()))


@router.post(
    "/renew",
    operation_id="renew_device",
    summary="Renew a certificate that ended",
    responses=problem_responses(403),
)
def renew_device(body: RenewalRequest, context: Ctx) -> RenewalAnswer:
    """For a device that was switched off while its certificate ended; devices that are connected renew over MQTT."""
    now = context.clock()
    try:
        signature = base64.b64decode(body.signature, validate=True)
    except ValueError as error:
        raise UsageError("invalid", "the signature is not base64") from error
    with write(context.engine) as session:
        renewal.check_proof(
            session,
            context.authority,
            body.device,
            csr_pem=body.csr,
            challenge=body.challenge,
            signature=signature,
            grace=timedelta(days=context.settings.renewal_grace_days),
            now=now,
        )
        certificate = renewal.renew(session, context.authority, body.device, body.csr, now)
        actor, subject = f"device:{body.device}", f"device/{body.device}"
        audit.append(session, actor=actor, action="device.renew", subject=subject, now=now)
    return RenewalAnswer(certificate=certificate)


def _broker_host(settings: Settings) -> str:
    """The name devices connect to; for a broker of ours it is the name in its certificate."""
    return settings.broker_host if settings.broker == "external" else settings.public_name
