"""meshctl doctor: GET /v1/doctor."""

from __future__ import annotations

from meshctl import render
from meshctl.arguments import Arguments, Options
from meshctl.client import Client
from meshctl.errors import DONE, FAILED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Finding = dict[str, Any]


def add_arguments(parser: Arguments) -> None:
    """The options of `meshctl doctor`."""
    parser.description = (
        "Look at every rule now: what must hold for the mesh to be private and whole. Shows those that do not hold or\n"
        "could not be seen, with the reason and what to type. Exits 0 when all hold, 1 when one does not."
    )
    parser.epilog = "examples:\n  meshctl doctor\n  meshctl doctor --all"
    parser.add_argument(
        "--all", action="store_true", help="show those that hold as well, and why each is there"
    )


def run(args: Options, client: Client) -> int:
    """Print the findings."""
    answer = client.get("doctor")
    findings: list[Finding] = answer.get("findings") or []
    broken = [f for f in findings if f.get("held") is False]
    unseen = [f for f in findings if f.get("held") is None]
    if args.json:
        render.document(answer)
        return FAILED if broken else DONE
    if args.all:
        rules = [(f.get("area"), f.get("rule")) for f in findings]
        for finding in findings:
            if finding.get("held"):
                twice = rules.count((finding.get("area"), finding.get("rule"))) > 1
                _say("held", finding, found=twice)  # two files of one name, which only this tells apart
    for finding in unseen:
        _say("not seen", finding)
    for finding in broken:
        _say("NOT HELD", finding)
    held = len(findings) - len(broken) - len(unseen)
    render.say(
        f"{held} of {render.count(len(findings), 'rule')} hold"
        + (f", {len(unseen)} not seen." if unseen else ".")
    )
    return FAILED if broken else DONE


def _say(state: str, finding: Finding, *, found: bool = True) -> None:
    render.say(f"{state}: {render.safe(finding.get('area'))}: {render.safe(finding.get('rule'))}")
    if finding.get("why"):
        render.say(f"  because {render.safe(finding['why'])}")
    if found:
        render.say(f"  found: {render.safe(finding.get('found'))}")
    if state != "held" and finding.get("hint"):
        render.say(f"  try: {render.safe(finding['hint'])}")
