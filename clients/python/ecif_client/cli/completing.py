"""`ecif completion`: what a shell needs to complete commands and options."""

import click
from click.shell_completion import get_completion_class

from ecif_client.cli.parameters import ecif
from ecif_client.errors import UsageError


@ecif.command("completion")
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
def completion(shell: str) -> None:
    """Print what makes a shell complete.

    \b
    bash: echo 'eval "$(ecif completion bash)"' >> ~/.bashrc
    zsh:  echo 'eval "$(ecif completion zsh)"' >> ~/.zshrc
    fish: ecif completion fish > ~/.config/fish/completions/ecif.fish
    """
    shell_class = get_completion_class(shell)
    if shell_class is None:
        raise UsageError(f"nothing is known of {shell}")
    click.echo(shell_class(ecif, {}, "ecif", "_ECIF_COMPLETE").source())
