//! `bridge`: meta-braze-bridge on one machine, and its operations.

mod commands;
mod functions;
mod output;
mod payloads;
mod secrets;
mod stack;

use std::process::ExitCode;

use clap::Parser;

use commands::Command;
use output::UsageError;

/// Meta and WhatsApp webhooks to Braze: run the whole system on this machine, send it signed events, make link
/// tokens.
#[derive(Debug, Parser)]
#[command(
    name = "bridge",
    version,
    propagate_version = true,
    arg_required_else_help = true,
    after_help = "Start with `bridge demo`, which needs nothing, or `bridge local`, which keeps serving.\n\
                  Exit codes: 0 = fine, 1 = failed, 2 = used wrongly."
)]
struct Cli {
    /// Say more on standard error; twice for everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,

    #[command(subcommand)]
    command: Command,
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    output::init_log(cli.verbose);
    match commands::run(cli.command).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::error(&error);
            ExitCode::from(if error.is::<UsageError>() { 2 } else { 1 })
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_arguments_are_consistent() {
        super::Cli::command().debug_assert();
    }
}
