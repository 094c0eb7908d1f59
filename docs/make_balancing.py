"""Write the table of methods in docs/balancing.md from the docstrings of the registry.

    python docs/make_balancing.py [--check]

A method's docstring has its idea in the first line, then its formula, and lines that begin with `Cost:`, `When:` and
`Source:`. With `--check` nothing is written: exit code 1 if the page differs from what would be.
"""

import inspect
import sys
from pathlib import Path

from polyrank.balancing.balancer import BALANCERS

PAGE = Path(__file__).parent / "balancing.md"
BEGIN, END = "<!-- methods: made by make_balancing.py -->\n", "<!-- end of methods -->\n"
FIELDS = ("Cost", "When", "Source", "Departures")


def parts(text: str) -> dict[str, str]:
    """A docstring's idea (its first line), formula, and fields, each on one line."""
    lines = inspect.cleandoc(text).splitlines()
    found, key = {"Idea": lines[0], "Formula": ""}, "Formula"
    for line in lines[1:]:
        name, colon, rest = line.partition(": ")
        if colon and name in FIELDS:
            key, line = name, rest
        found[key] = f"{found.get(key, '')} {line.strip()}".strip()
    return found


def table() -> str:
    """Markdown: loss weighting, then gradient methods."""
    rows: dict[bool, list[str]] = {False: [], True: []}
    for name, entry in BALANCERS.items():
        found = parts(entry.kind.__doc__)
        cells = [
            f"`{name}`",
            *(found[key].rstrip(".").replace("|", "\\|") for key in ("Idea", "Cost", "When", "Source")),
        ]
        rows[entry.kind.combines].append(f"| {' | '.join(cells)} |")
    head = ["| `balance.method` | idea | cost | when | source |", "|---|---|---|---|---|"]
    return "\n".join(["### Loss weighting", "", *head, *rows[False], "", "### Gradients", "", *head, *rows[True], ""])


def page() -> str:
    """The page with the table as it should be."""
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    return before + BEGIN + "\n" + table() + "\n" + END + rest.split(END)[1]


def main() -> int:
    """Write or check."""
    made = page()
    if "--check" in sys.argv[1:]:
        return int(made != PAGE.read_text(encoding="utf-8"))
    PAGE.write_text(made, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
