//! meta-braze-bridge on one machine, and its operations.
//!
//! The `bridge` command is a thin shell around this library, so that tests run the very stack that
//! `bridge local` serves and look inside it:
//!
//! * [`stack`]: the functions of `template.yaml` around an embedded AWS and the [`fakes`].
//! * [`functions`]: each of them, as it is deployed.
//! * [`payloads`]: the recorded webhooks, and what their senders put on a request.
//! * [`inspect`]: what the tables hold; [`check`]: whether it agrees with what Braze holds.
//! * [`function_events`]: the files of `events/<function>/`.

pub mod check;
mod commands;
mod console;
pub mod fakes;
pub mod function_events;
pub mod functions;
mod hidden;
pub mod inspect;
mod item;
mod meta;
mod output;
pub mod payloads;
mod probe;
mod said;
mod scenes;
pub mod secrets;
pub mod stack;
mod story;
mod target;

use std::process::ExitCode;

use clap::Parser;
use jiff::Timestamp;
use shared::clock::Clock;

use commands::Command;
use output::UsageError;

/// Meta and WhatsApp webhooks to Braze: run the whole system on this machine, send it signed events, make link
/// tokens, look after what was given up.
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
    /// Say more on standard error; twice (in builds for development) also what libraries say
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,

    /// The time at which the command starts, instead of the machine's; for tests
    #[arg(long, global = true, hide = true, value_name = "TIME")]
    now: Option<Timestamp>,

    #[command(subcommand)]
    command: Command,
}

/// Runs the command that the process was called with, to its end.
pub async fn run() -> ExitCode {
    let cli = Cli::parse();
    output::init_log(cli.verbose, cli.command.is_quiet());
    let clock = cli.now.map_or_else(Clock::system, Clock::starting_at);
    match Box::pin(commands::run(cli.command, &clock)).await {
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
