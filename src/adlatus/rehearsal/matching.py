"""A script while it is played: which exchange answers a request, and how often each was used. Knows no HTTP."""

from collections import Counter
from typing import Any

from adlatus.rehearsal.chat import BadRequestError, ChatRequest
from adlatus.rehearsal.plan import Plan
from adlatus.rehearsal.script import Exchange, Script


class Playback:
    """One server's way through a script. The same requests in the same order get the same answers."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._uses: Counter[int] = Counter()
        self._failures: Counter[tuple[int, int]] = Counter()

    def answer(self, chat: ChatRequest) -> tuple[int, Plan]:
        """The number of the first exchange that fits, and its next answer. Raises BadRequestError if none fits."""
        for number, exchange in enumerate(self._script.exchanges):
            if not self._is_used_up(number) and all(holds for holds, _ in exchange.expect.checks(chat)):
                return number, self._use(number, exchange, chat)
        raise BadRequestError(self._complaint(chat), "messages", "no_exchange_fits")

    def exchanges(self) -> list[dict[str, Any]]:
        """What the script expects, and how often each exchange was used."""
        return [
            {
                "exchange": number,
                "expect": exchange.expect.model_dump(mode="json", exclude_unset=True),
                "times": exchange.times,
                "used": self._uses[number],
            }
            for number, exchange in enumerate(self._script.exchanges)
        ]

    def restart(self) -> None:
        """Forget what was used."""
        self._uses.clear()
        self._failures.clear()

    def _use(self, number: int, exchange: Exchange, chat: ChatRequest) -> Plan:
        """The next answer. An error that happens a number of times comes before its answer, and is no use of it."""
        turn = min(self._uses[number], len(exchange.turns) - 1)
        answer = exchange.turns[turn]
        times = answer.error.times if answer.error else None
        if times is not None and self._failures[number, turn] < times:
            self._failures[number, turn] += 1
            return answer.planned(chat, fails=True)
        self._uses[number] += 1
        return answer.planned(chat, fails=times is None)

    def _is_used_up(self, number: int) -> bool:
        times = self._script.exchanges[number].times
        return times is not None and self._uses[number] >= times

    def _complaint(self, chat: ChatRequest) -> str:
        """What was asked, and what stood in the way of the exchange that came nearest, unused ones first."""

        def nearness(number: int) -> tuple[int, bool]:
            checks = self._script.exchanges[number].expect.checks(chat)
            return sum(holds for holds, _ in checks), not self._uses[number]

        nearest = max(range(len(self._script.exchanges)), key=nearness)
        unmet = [what for holds, what in self._script.exchanges[nearest].expect.checks(chat) if not holds]
        if self._is_used_up(nearest):
            unmet.append(f"it has been used {self._uses[nearest]} times, as often as it may")
        reasons = "; ".join(_short(reason, 100) for reason in unmet[:2])
        return (
            f"No exchange of the rehearsal script fits the request with the user message “{_short(chat.asked, 80)}”. "
            f"Nearest is exchange {nearest}: {reasons}. Correct the application or {_short(self._script.name, 60)}."
        )


def _short(text: str, most: int) -> str:
    words = " ".join(text.split())
    return words if len(words) <= most else words[: most - 1].rstrip() + "…"
