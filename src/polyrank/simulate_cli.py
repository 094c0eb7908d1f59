"""`polyrank simulate …`."""

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from polyrank.options import command_line, out_console
from polyrank.progress import Terminal


class _Simulate(TyperGroup):
    """`polyrank simulate --mode c …` means `polyrank simulate sessions --mode c …`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0].startswith("-") and args[0] != "--help":
            args = ["sessions", *args]
        return super().parse_args(ctx, args)


simulate_app = typer.Typer(
    cls=_Simulate,
    no_args_is_help=True,
    help="""Make data whose truth is known: a log of sessions, or the exposures of a shop.

    [bold]polyrank simulate --mode c --out log.parquet[/] is short for [bold]polyrank simulate sessions …[/].""",
)


@simulate_app.command()
def sessions(
    out: Annotated[Path, typer.Option(help="The log to write (Parquet); a JSON file of the same name tells of it.")],
    mode: Annotated[
        str,
        typer.Option(
            help="a: users stay whatever is shown, myopic weights are best. b: bait is watched and drives users away. "
            "c: it does so to some and pleases others, so that the best weights differ between users. "
            "d: as c, and it drives away more as the days go by."
        ),
    ] = "c",
    sessions: Annotated[int, typer.Option(min=1, help="How many; a session of mode c has 5 or 6 requests.")] = 200_000,
    explore: Annotated[
        str,
        typer.Option(
            help="bounded: weights evenly within the centre ± width, so that it is known what the log does not know. "
            "gaussian: around the centre with a standard deviation of width. "
            "mixed: half of the requests like that, half with one of --near."
        ),
    ] = "bounded",
    around: Annotated[
        str,
        typer.Option(
            help="The centre. best: the best static weights, searched first. start: 1 for every head, -1 for hate. Or "
            "weights (1,0.5,1,1,1,-1), or the directory of a policy: a next round of exploration."
        ),
    ] = "best",
    width: Annotated[float, typer.Option(help="In units of weights; those of best have a mean size of 1.")] = 0.7,
    near: Annotated[
        float | None, typer.Option(help="Of mixed alone: the standard deviation of its other half.", show_default="0.1")
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, help="Of users, candidates, luck and exploration. Judge under another one.")
    ] = 0,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Change the world, e.g. --set noise=1.2 --set seed=3: docs/simulator.md."
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", metavar="", help="Replace a log that is there.")] = False,
) -> None:
    """Sessions of a short-video feed, ranked by random fusion weights: what polyrank fuse rl and polyrank ope read.

    A request brings 24 candidates with six predictions each (watch, complete,
    like, share, comment, hate); the weights rank them, four are shown, the user
    watches, reacts, and leaves or asks for more. Satisfaction, which no log
    tells, decides who stays and who comes back the next day. The log holds
    state, weights and their log-density, reward, and signals:

        polyrank simulate --mode c --out log.parquet
        polyrank simulate --mode c --sessions 20000 --seed 1 --out test.parquet
        polyrank simulate --around runs/policy/policy --width 0.2 --out round2.parquet

    How the world is built, and what there is to gain in it: docs/simulator.md.
    """
    from polyrank.config import build, override
    from polyrank.errors import ConfigError
    from polyrank.simulator.session_log import LogConfig, beside, write_log
    from polyrank.simulator.world import WorldConfig

    if out.suffix != ".parquet":
        raise ConfigError("a session log is Parquet", received=str(out), mend="name a file that ends in .parquet")
    for path in (out, beside(out)):
        if path.exists() and not overwrite:
            raise ConfigError(
                "simulate does not overwrite a log", received=str(path), mend="name another --out, or add --overwrite"
            )
    if near is not None and explore != "mixed":
        raise ConfigError(
            "--near is of --explore mixed", received=f"--explore {explore}", mend="add --explore mixed, or leave it out"
        )
    log = {"sessions": sessions, "explore": explore, "around": around, "width": width, "seed": seed}
    log |= {} if near is None else {"near": near}
    found = write_log(
        build(WorldConfig, {"mode": mode, **override({}, set_ or [])}, "world"),
        build(LogConfig, log, "simulate"),
        out,
        command_line(),
        Terminal(),
    )
    length = found["requests"] / found["sessions"]
    told = f"{found['sessions']:,} sessions, {length:.2f} requests each, mean return {found['mean_return']:.3f}"
    out_console.print(f"{told}\nlog: {out}\nworld, exploration and reward: {beside(out)}", markup=False, soft_wrap=True)


@simulate_app.command()
def shop(
    out: Annotated[Path, typer.Option(help="Where to write train, valid and test.parquet, and schema.toml.")],
    exposures: Annotated[int, typer.Option(min=100, help="Rows in all.")] = 250_000,
    selection: Annotated[
        float, typer.Option(min=0, help="How strongly interest moves clicks; 0 for not at all.")
    ] = 1.0,
    hidden: Annotated[float, typer.Option(min=0, help="How much of the interest is in no column.")] = 0.0,
    seed: Annotated[int, typer.Option(min=0, help="Of everything.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", metavar="", help="Replace a shop that is there.")] = False,
) -> None:
    """A shop: exposure → click → purchase, with p(purchase | click) known for every exposure, clicked or not."""
    from polyrank.errors import ConfigError
    from polyrank.simulator.shop import SHARES, ShopConfig, write_shop

    there = [name for name in (*(f"{part}.parquet" for part in SHARES), "schema.toml") if (out / name).exists()]
    if there and not overwrite:
        raise ConfigError(
            "simulate does not overwrite a shop",
            received=f"{out} holds {', '.join(there)}",
            mend="name another --out, or add --overwrite",
        )
    rows = write_shop(out, ShopConfig(exposures=exposures, selection=selection, hidden=hidden, seed=seed))
    parts = ", ".join(f"{name} {count:,}" for name, count in rows.items())
    out_console.print(f"{out}: {parts} rows", markup=False, soft_wrap=True)
