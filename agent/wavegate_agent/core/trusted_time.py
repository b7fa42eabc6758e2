"""Which time it is, for deciding whether a signed document has expired.

Trusted time is the later of the system clock and a floor that moves on with boot time. The floor is the newest signed
`issued` this device has accepted, never beyond that document's own expiry, so that a stolen time key cannot push a device
into the far future for ever. A system clock before the floor is `suspect`: installs then need a fresh answer to a nonce
challenge. Inference never asks what time it is.

Source: Uptane standard 2.0, section 5.3.2.1 (time server), Uptane issue 31.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from wavegate_shared.errors import TrustError

__all__ = ["MAX_ROUND_TRIP_S", "TrustedTime"]

MAX_ROUND_TRIP_S = 30.0
"""An answer older than this says too little about now."""
_SLACK = timedelta(seconds=60)
"""A clock this little behind the floor is only the server's clock being ahead."""


@dataclass(frozen=True, slots=True)
class TrustedTime:
    """What is known about time.

    Attributes:
        floor: it is at least this late.
        set_at_s: boot time when the floor was set, in seconds.
        told: the newest answer to a challenge in this run of the agent; better than the system clock.
        told_at_s: boot time of that answer.
    """

    floor: datetime
    set_at_s: float
    told: datetime | None = None
    told_at_s: float = 0.0

    def now(self, system: datetime, boottime_s: float) -> datetime:
        """Trusted time: max(system clock, floor + boot time since it was set); a told time takes the clock's place."""
        clock = system if self.told is None else _moved(self.told, self.told_at_s, boottime_s)
        return max(clock, _moved(self.floor, self.set_at_s, boottime_s))

    def suspect(self, system: datetime, boottime_s: float) -> bool:
        """Whether the system clock is proved to be behind and no challenge has told the time since."""
        return self.told is None and system + _SLACK < _moved(self.floor, self.set_at_s, boottime_s)

    def seen(self, issued: datetime, expires: datetime, boottime_s: float) -> "TrustedTime":
        """After accepting a signed document: raise the floor to its `issued`, at most to its expiry."""
        risen = min(issued, expires)
        if risen <= _moved(self.floor, self.set_at_s, boottime_s):
            return self
        return replace(self, floor=risen, set_at_s=boottime_s)

    def answer(self, time: datetime, asked_s: float, boottime_s: float) -> "TrustedTime":
        """After a verified answer to our nonce, asked at `asked_s`. Not a floor: it must not outlive this run.

        Raises:
            TrustError: `clock_untrusted` when the answer took too long, or lies before the floor.
        """
        if boottime_s - asked_s > MAX_ROUND_TRIP_S:
            raise TrustError("clock_untrusted", f"the answer took {boottime_s - asked_s:.0f} s")
        if time + _SLACK < self.floor:
            raise TrustError("clock_untrusted", "the time server's answer lies before a signed document already seen")
        return replace(self, told=time, told_at_s=boottime_s)


def _moved(time: datetime, at_s: float, boottime_s: float) -> datetime:
    return time + timedelta(seconds=max(0.0, boottime_s - at_s))
