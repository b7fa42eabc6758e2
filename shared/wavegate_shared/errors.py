"""The error tree: who must act, and the stable code that crosses the wire.

    WavegateError
      TrustError      stop at once, keep the active version      (an attack, or a mistake that looks like one)
      TransferError   try again later                            (network, broker, a damaged chunk)
      DeviceError     report it; discard or revert               (disk, memory, a model that does not run)
      UsageError      tell the operator what to do               (bad input to a command, page or call)

Every code stands in `CODES` once, with the class it belongs to, whether a retry can help, and what it means;
`docs/protocol.md` is generated from that table. A code is never reused for another meaning.
"""

from dataclasses import dataclass
from typing import ClassVar

__all__ = [
    "CODES",
    "Code",
    "DeviceError",
    "TransferError",
    "TrustError",
    "UsageError",
    "WavegateError",
    "error_for",
]


@dataclass(frozen=True, slots=True)
class Code:
    """What one stable error code means.

    Attributes:
        kind: name of the class it belongs to.
        retry: whether trying the same thing again can help.
        meaning: one sentence for the operator.
    """

    kind: str
    retry: bool
    meaning: str


CODES: dict[str, Code] = {
    # TrustError: the agent's verification order, in order (docs/security.md)
    "message_malformed": Code("TrustError", False, "the message is too large or does not fit its schema"),
    "slot_missing": Code("TrustError", False, "the assignment leaves out a model of this device without removing it"),
    "slot_duplicate": Code("TrustError", False, "the assignment names one model twice"),
    "signature_invalid": Code("TrustError", False, "no trusted key made this signature"),
    "wrong_device": Code("TrustError", False, "the document names another device"),
    "assignment_replayed": Code("TrustError", False, "an older assignment than one already accepted"),
    "assignment_expired": Code("TrustError", False, "the assignment's time is over"),
    "clock_untrusted": Code("TrustError", True, "no trusted time, so nothing that expires can be accepted"),
    "metadata_invalid": Code("TrustError", False, "the update metadata did not verify"),
    "metadata_stale": Code(
        "TrustError", True, "the update metadata has expired, or is older than the assignment asks for"
    ),
    "version_not_listed": Code("TrustError", False, "the signed release list does not hold this version"),
    "version_revoked": Code("TrustError", False, "this version was revoked"),
    "version_older": Code("TrustError", False, "older than the active version, and no rollback was signed"),
    "manifest_invalid": Code("TrustError", False, "the manifest does not fit its schema or its signature"),
    "bench_only": Code("TrustError", False, "a candidate for benching never goes live"),
    "digest_mismatch": Code("TrustError", False, "the finished file is not the signed one"),
    "token_invalid": Code("TrustError", False, "the enrolment token is unknown, used or expired"),
    "identity_cloned": Code(
        "TrustError", False, "two machines use this device's identity; `wavegate device reissue` ends it"
    ),
    "renewal_refused": Code(
        "TrustError", False, "this certificate cannot be renewed; enrol the device with a new token"
    ),
    "certificate_invalid": Code("TrustError", False, "the certificate does not belong to this authority or device"),
    # TransferError
    "chunk_damaged": Code("TransferError", True, "a chunk arrived damaged and is fetched again"),
    "transfer_stalled": Code("TransferError", True, "no chunk arrived in time"),
    "not_connected": Code("TransferError", True, "the broker or server cannot be reached"),
    "document_missing": Code("TransferError", True, "the server does not have the document that was asked for"),
    # DeviceError
    "incompatible": Code("DeviceError", False, "this device lacks what the version requires"),
    "quarantined": Code("DeviceError", False, "this artifact failed here before and is refused until overridden"),
    "disk_full": Code("DeviceError", True, "not enough free space to stage the version"),
    "memory_short": Code("DeviceError", True, "not enough free memory for the version beside the active one"),
    "update_waits": Code("DeviceError", True, "another model of this device is being updated; this update comes next"),
    "model_rejected": Code("DeviceError", False, "the model file breaks a rule (external data, domain, size)"),
    "load_failed": Code("DeviceError", False, "the model did not load"),
    "golden_failed": Code("DeviceError", False, "the golden set's metric is below its floor"),
    "bench_failed": Code("DeviceError", False, "the benchmark broke a limit of the manifest"),
    "candidate_crashed": Code("DeviceError", False, "the candidate's process ended by itself"),
    "swap_failed": Code("DeviceError", True, "the hand-over did not finish; the active version still serves"),
    "probation_failed": Code("DeviceError", False, "the new version misbehaved on live requests"),
    "budget_spent": Code("DeviceError", False, "too many state changes for one assignment"),
    "superseded": Code("DeviceError", False, "a newer assignment took its place"),
    "agent_failed": Code("DeviceError", True, "the agent itself failed at this step; its log says how"),
    "broken": Code("DeviceError", False, "no version on this device can serve"),
    "inference_failed": Code("DeviceError", False, "the model failed on this request"),
    "not_ready": Code("DeviceError", True, "no version serves yet, or too many requests wait"),
    # UsageError
    "bundle_invalid": Code("UsageError", False, "the bundle is incomplete, truncated or inconsistent"),
    "format_unsupported": Code(
        "UsageError", False, "a model of another framework; the message says how to convert it to ONNX"
    ),
    "weights_unsafe": Code("UsageError", False, "the weights file is a pickle that would run code when it is read"),
    "not_found": Code("UsageError", False, "no such thing"),
    "conflict": Code("UsageError", False, "the thing is in a state that does not allow this"),
    "invalid": Code("UsageError", False, "the request does not fit its schema"),
    "unauthenticated": Code("UsageError", False, "no valid token or session came with the request"),
    "forbidden": Code("UsageError", False, "this token or certificate may not do that"),
    "precondition_failed": Code("UsageError", True, "it changed since it was read; read it again"),
    "precondition_required": Code(
        "UsageError", True, "this change needs an If-Match header with the ETag that was read"
    ),
    "method_not_allowed": Code("UsageError", False, "this address does not take that method"),
    "too_large": Code("UsageError", False, "the request is larger than this server accepts"),
    "internal": Code("UsageError", True, "the server failed; its log says why"),
    "metric_failed": Code("UsageError", False, "the metric that was given raised an error"),
    "budget_not_met": Code("UsageError", False, "no candidate met the budget"),
    "key_missing": Code("UsageError", False, "a signing key that is needed is not here"),
    "setup": Code("UsageError", False, "this installation lacks something; the message says what to do"),
}


class WavegateError(Exception):
    """Base of all errors Wavegate raises on purpose.

    Args:
        code: a key of `CODES` that belongs to the class.
        detail: what happened, with the values that matter; never a secret.
    """

    kind: ClassVar[str] = "WavegateError"

    def __init__(self, code: str, detail: str = "") -> None:
        known = CODES[code]
        if self.kind not in ("WavegateError", known.kind):
            raise ValueError(f"code {code} belongs to {known.kind}, not to {self.kind}")
        super().__init__(detail or known.meaning)
        self.code = code
        self.detail = detail or known.meaning

    @property
    def retry(self) -> bool:
        """Whether trying the same thing again can help."""
        return CODES[self.code].retry

    def __str__(self) -> str:
        return f"{self.code}: {self.detail}"


class TrustError(WavegateError):
    """Verification failed: stop, keep the active version, report."""

    kind = "TrustError"


class TransferError(WavegateError):
    """Bytes did not arrive: retry with back-off."""

    kind = "TransferError"


class DeviceError(WavegateError):
    """The device cannot run what it was given: discard or revert, report."""

    kind = "DeviceError"


class UsageError(WavegateError):
    """The operator's input is wrong: say what to do."""

    kind = "UsageError"


_CLASSES: dict[str, type[WavegateError]] = {
    cls.kind: cls for cls in (TrustError, TransferError, DeviceError, UsageError)
}


def error_for(code: str, detail: str = "") -> WavegateError:
    """The error of the class that `code` belongs to, for codes that came over a wire or from a journal."""
    return _CLASSES[CODES[code].kind](code, detail)
