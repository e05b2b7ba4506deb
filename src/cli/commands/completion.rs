//! `spilo completion SHELL`

use clap::{CommandFactory, ValueEnum};

use crate::cli::{Cli, CommandError, Context, Exit, output::print};

const EXAMPLES: &str = "\
Examples:
  source <(spilo completion bash)
  spilo completion zsh > ~/.zfunc/_spilo
  spilo completion fish > ~/.config/fish/completions/spilo.fish";

/// Print a completion script for a shell
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// The shells that are supported.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// Prints the script.
pub fn run(_context: &Context, args: &Args) -> Result<Exit, CommandError> {
    let generator = match args.shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(generator, &mut Cli::command(), "spilo", &mut script);
    print(&String::from_utf8_lossy(&script))?;
    Ok(Exit::OK)
}
