"""How a session ended, as the client's error stream wants it: meta/v1 Status as JSON since protocol v4, text before."""

from __future__ import annotations

import json
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Ending:
    """`exit_code` of the command, or the reason in `error` why there is none."""

    exit_code: int = 0
    error: str = ""

    @property
    def message(self) -> str:
        if self.error:
            return f"Internal error occurred: {self.error}"
        return f"command terminated with non-zero exit code: exit status {self.exit_code}" if self.exit_code else ""

    def as_text(self) -> bytes:
        """Protocols v1 to v3: nothing for success."""
        return self.message.encode()

    def as_status(self) -> bytes:
        """Protocols v4 and v5. Reasons and causes are those that kubectl and crictl read the exit code from."""
        status: dict[str, object] = {"metadata": {}, "status": "Failure" if self.message else "Success"}
        if self.message:
            status["message"] = self.message
        if self.error:
            status |= {"reason": "InternalError", "details": {"causes": [{"message": self.error}]}, "code": 500}
        elif self.exit_code:
            causes = [{"reason": "ExitCode", "message": str(self.exit_code)}]
            status |= {"reason": "NonZeroExitCode", "details": {"causes": causes}}
        return json.dumps(status, separators=(",", ":")).encode()
