"""
``durable completion``: a script that lets a shell complete commands, options, and what an option may be.

It is made from the commands' own parsers, so it knows all of them, and runs nothing while somebody types.
"""

from __future__ import annotations

from argparse import SUPPRESS, Action, ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Iterator
from typing import Final

from durable._cli.table import COMMANDS, parser_of
from durable._cli.terminal.output import Output
from durable._cli.terminal.problems import OK, CommandError

_EPILOG: Final = """\
examples:
  durable completion bash > ~/.local/share/bash-completion/completions/durable
  durable completion zsh > "${fpath[1]}/_durable"
  durable completion fish > ~/.config/fish/completions/durable.fish"""


def configure(_command: str, parser: ArgumentParser) -> None:
    """Which shell."""
    parser.add_argument("shell", choices=("bash", "zsh", "fish"), help="for which shell")
    parser.formatter_class = RawDescriptionHelpFormatter
    parser.epilog = _EPILOG


def run(_command: str, args: Namespace, out: Output) -> int:
    """Write the script."""
    for line in {"bash": _bash, "zsh": _zsh, "fish": _fish}[args.shell]():
        out.line(line)
    return OK


def _commands() -> Iterator[tuple[str, str, list[Action]]]:
    """Each command, what it is for, and its options."""
    for name, (_, command) in COMMANDS.items():
        try:
            parser = parser_of(name)
        except CommandError:  # a program in one file has no commands that it was built without
            continue
        options = [each for each in parser._actions if each.option_strings and each.help != SUPPRESS]  # noqa: SLF001 - argparse has no other way
        yield name, command.summary, options


def _words(options: list[Action]) -> str:
    return " ".join(option for each in options for option in each.option_strings if option.startswith("--"))


def _bash() -> Iterator[str]:
    commands = list(_commands())
    yield "_durable() {"
    yield '    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} words=""'
    yield "    COMPREPLY=()"
    yield '    if ((COMP_CWORD == 1)); then words="' + " ".join(name for name, _, _ in commands) + '"'
    yield "    else"
    yield '        case "${COMP_WORDS[1]} $before" in'
    for name, _, options in commands:
        for option in options:
            if option.choices:
                told = "|".join(f'"{name} {each}"' for each in option.option_strings)
                yield f'            {told}) words="{" ".join(map(str, option.choices))}" ;;'
    yield "            *)"
    yield '                case "${COMP_WORDS[1]}" in'
    for name, _, options in commands:
        words = "bash zsh fish" if name == "completion" else _words(options)
        yield f'                    {name}) words="{words}" ;;'
    yield "                esac ;;"
    yield "        esac"
    yield "    fi"
    yield "    # Options are offered to who begins one: else a run, or a file, is meant."
    yield '    [[ $words == --* && $word != -* ]] || COMPREPLY=($(compgen -W "$words" -- "$word"))'
    yield "}"
    yield "complete -o default -F _durable durable"


def _zsh() -> Iterator[str]:
    commands = list(_commands())
    yield "#compdef durable"
    yield "local -a commands=("
    for name, summary, _ in commands:
        yield f"  {_quoted(f'{name}:{summary}')}"
    yield ")"
    yield "if ((CURRENT == 2)); then _describe command commands; return; fi"
    yield "local command=${words[2]}"
    yield "shift words; ((CURRENT--))"
    yield "case $command in"
    for name, _, options in commands:
        told = []
        for option in options:
            value = ""
            if option.choices:
                value = f":value:({' '.join(map(str, option.choices))})"
            elif option.nargs != 0:
                value = ":value:_files"
            help_text = (option.help or "").replace("[", "(").replace("]", ")").replace(":", " -").replace("%%", "%")
            told += [_quoted(f"{each}[{help_text}]{value}") for each in option.option_strings if each.startswith("--")]
        rest = "'1:shell:(bash zsh fish)'" if name == "completion" else "'*:run or file:_files'"
        yield f"  {name}) _arguments {' '.join(told)} {rest} ;;"
    yield "esac"


def _fish() -> Iterator[str]:
    yield "complete -c durable -n __fish_use_subcommand -f"
    for name, summary, options in _commands():
        yield f"complete -c durable -n __fish_use_subcommand -a {name} -d {_quoted(summary)}"
        here = f"complete -c durable -n '__fish_seen_subcommand_from {name}'"
        if name == "completion":
            yield f"{here} -f -a 'bash zsh fish'"
        for option in options:
            names = " ".join(f"-l {each[2:]}" for each in option.option_strings if each.startswith("--"))
            value = f" -x -a {_quoted(' '.join(map(str, option.choices)))}" if option.choices else ""
            takes = value or (" -r" if option.nargs != 0 else "")
            yield f"{here} {names}{takes} -d {_quoted((option.help or '').replace('%%', '%'))}"


def _quoted(text: str) -> str:
    """For any of the shells: none of them reads anything into what stands between single quotes."""
    return "'" + text.replace("'", "`") + "'"
