"""The commands by name. A command's module is imported when it is called, or when its own help is asked for."""

import importlib
from typing import Annotated, Any

import typer
import typer.core
import typer.main

from fastdd.cli.completion import CompletionItem
from fastdd.cli.plugins import PLUGIN, add_option
from fastdd.cli.talk import EVERYWHERE
from fastdd.core.version import __version__

# Of each command its module, which has a Typer ``app``, and the first line of its help, which a test compares.
COMMANDS = {
    "demo": (
        "demo",
        "Distil embedded, colour-biased digits with DM and DM+FairDD, and compare; under two minutes on two cores.",
    ),
    "distill": ("distill", "Condense a data set into a few synthetic images per class."),
    "evaluate": ("evaluate", "Train fresh networks on a set; accuracy and fairness on the real test set."),
    "audit": ("audit", "What bias is in the data, in a synthetic set, and what distillation did to it."),
    "estimate": ("estimate", "Time, memory and disk of a run, before it."),
    "experts": ("experts", "Train the experts that trajectory matching follows; or import, export or check some."),
    "train": (
        "train",
        "Train one network on biased images, with fake ones or without; worst group and fairness on the test set.",
    ),
    "explain": (
        "explain",
        "What trained networks have learned: features by class and group, and which pixels predictions rest on (RISE).",
    ),
    "weights": (
        "weights",
        "Weights of the training images against a bias that no one has labelled, and what they do to every class.",
    ),
    "relabel": (
        "relabel",
        "Store a teacher's labels of all that protocol rded trains on; evaluate --labels uses them.",
    ),
    "methods": ("methods", "The distillation methods, or the settings of one."),
    "modes": ("modes", "The ways to handle bias (--debias), and what each of them goes by."),
    "recipes": (
        "recipes",
        "How a network is trained on biased images (--training), and the constants of each recipe.",
    ),
    "data": ("data", "Data sets: list them, build a packed store, check one."),
    "runs": ("runs", "List and compare runs: how far they are, and what they reached; of two or more, what differs."),
    "report": (
        "report",
        "Make one HTML page of runs, to read offline: images, losses, figures, groups, embeddings, configuration.",
    ),
    "reproduce": (
        "reproduce",
        "Run the rows of a paper's table: what is missing is run, what is done is kept; ours beside the published.",
    ),
    "study": (
        "study",
        "What settings do to results, as rows and a picture: kde, severity or density; one that was stopped goes on.",
    ),
    "run": ("run", "Run an existing distillation script, unchanged, with its slow functions replaced at import."),
    "import": (
        "import_",
        "Make a synthetic set of another project's result: res_*.pt, images_best.pt, data.pt, .npz or images.",
    ),
    "export": ("export", "Write a synthetic set for DatasetCondensation, FairDD, MTT, IDC, DC-Bench and others."),
    "bench": ("bench", "Speed beside published code and plain PyTorch, where results match."),
    "info": ("info", "Versions, devices, and which fast paths are active, and why."),
}


# The commands as help has them, by what they are for.
TOPICS = {
    "Distil and evaluate": ("demo", "distill", "evaluate", "relabel", "experts", "estimate", "runs", "report"),
    "Bias": ("audit", "weights", "train", "explain"),
    "Data sets and files": ("data", "import", "export"),
    "Results of papers": ("reproduce", "study"),
    "What there is": ("methods", "modes", "recipes", "info"),
    "Speed": ("bench", "run"),
}


class Interrupted(Exception):
    """A KeyboardInterrupt with what it says, which Typer would drop."""


def load(name: str) -> Any:
    """The command of :data:`COMMANDS` by its name, with its options."""
    command = typer.main.get_command(importlib.import_module(f"fastdd.cli.{COMMANDS[name][0]}").app)
    command.name = name
    add_option(command)
    return command


class Commands(typer.core.TyperGroup):
    """All commands; their help is that of :data:`COMMANDS`, so that it needs none of their modules."""

    def __init__(self, **settings: Any):
        super().__init__(**settings)
        self.commands = dict.fromkeys(COMMANDS)  # None: not imported yet

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self.commands)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name in COMMANDS and self.commands[cmd_name] is None:
            self.commands[cmd_name] = load(cmd_name)
        return self.commands.get(cmd_name)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        for topic, names in TOPICS.items():
            with formatter.section(topic):
                formatter.write_dl([(name, COMMANDS[name][1]) for name in names])

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        """Commands without an import of their modules."""
        if incomplete.startswith("-"):
            words = [word for parameter in self.get_params(ctx) for word in parameter.opts] + [*EVERYWHERE]
            return [CompletionItem(word) for word in words if word.startswith(incomplete)]
        return [
            CompletionItem(name, help=about) for name, (_, about) in COMMANDS.items() if name.startswith(incomplete)
        ]

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise Interrupted(str(error)) from error


app = typer.Typer(
    name="fastdd",
    cls=Commands,
    help="Dataset distillation that is fast and knows about bias. Any command takes --quiet, --verbose, and --debug "
    "for tracebacks; fastdd COMMAND --help tells its options.",
    no_args_is_help=False,
    context_settings={"help_option_names": ["--help", "-h"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(show: bool) -> None:
    if show:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
    plugin: Annotated[list[str] | None, PLUGIN] = None,
) -> None:
    pass
