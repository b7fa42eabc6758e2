"""What an operator can do about an error, by its code, and the refusal that carries a problem document.

The same sentence stands in API problems and on the command line.
"""

from typing import Any

__all__ = ["ADVICE", "Refused"]

ADVICE: dict[str, str] = {
    "unauthenticated": "Send a token that works: `wavegate` reads WAVEGATE_TOKEN, else admin.token in the data directory.",
    "forbidden": "Use a token whose role allows this: viewer, operator, publisher or admin.",
    "token_invalid": "Make a new enrolment token: wavegate device token ID",
    "certificate_invalid": "Send a PEM certificate request for a P-256 key.",
    "not_found": "Check the name; list what there is.",
    "conflict": "Look at its present state, then decide again.",
    "invalid": "Correct what the message names.",
    "precondition_required": "Read it first and send its ETag as If-Match.",
    "precondition_failed": "Read it again; if the change still makes sense, repeat it.",
    "method_not_allowed": "Use one of the methods in the Allow header.",
    "too_large": "Send less, or raise WAVEGATE_UPLOAD_LIMIT_MB on the server.",
    "bundle_invalid": "Correct the bundle; docs/concepts.md tells its format.",
    "format_unsupported": "Convert the model as the message says, and import what comes out.",
    "weights_unsafe": "Save the state dict alone: safetensors.torch.save_file(model.state_dict(), 'weights.safetensors').",
    "metric_failed": "Correct the metric; it is called with any subset of the samples.",
    "key_missing": "Run `wavegate keys status` on the server, and bring the missing key back.",
    "setup": "Run `wavegate doctor` on the server.",
    "internal": "Try again; if it stays, look at the server's log.",
    "not_connected": "Start the server with `wavegate serve`, or set WAVEGATE_SERVER to its address.",
    "disk_full": "Free space on the server's disk.",
}


class Refused(Exception):
    """The server refused: its problem document. Attributes: problem."""

    def __init__(self, problem: dict[str, Any]) -> None:
        super().__init__(problem["detail"])
        self.problem = problem
