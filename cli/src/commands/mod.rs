//! The commands, one file each.

mod chat;
mod console;
mod dead;
mod demo;
mod doctor;
mod erase;
mod events;
mod fakes;
mod fbe;
mod link;
mod local;
mod say;
mod send;
mod setup;
mod sign;
mod smoke;

use clap::Subcommand;
use shared::clock::Clock;

/// Every command.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start everything embedded, play every recorded payload, and show what came of it
    Demo(demo::Args),
    /// Serve the whole system on this machine until stopped
    Local(local::Args),
    /// Talk to the WhatsApp relay as somebody on WhatsApp does
    Chat(chat::Args),
    /// Send a message to somebody on Messenger or Instagram, as a Braze campaign does
    Say(say::Args),
    /// Sign a payload and post it, to the local or a deployed stack
    Send(send::Args),
    /// Print the X-Hub-Signature-256 of a payload
    Sign(sign::Args),
    /// Make a link token, which ties a Messenger contact to a user
    Link(link::Args),
    /// Check that a stack answers as it should, with harmless requests
    Smoke(smoke::Args),
    /// Set the app up at Meta: tokens of pages, subscriptions, and what is left to click in Braze
    Setup(setup::Args),
    /// Check that everything is set up, here, at Meta and at Braze, and say what to do where it is not
    Doctor(doctor::Args),
    /// Look at what was given up, and try it again
    Dead(dead::Args),
    /// Erase a person or a business, here and in Braze
    Erase(erase::Args),
    /// Look at a deployed stack in the browser: read only
    Console(console::Args),
    /// Look after businesses that installed the app
    Fbe(fbe::Args),
    /// Serve the fake Braze, Graph and external system for a stack that runs elsewhere on this machine
    #[command(hide = true)]
    Fakes(fakes::Args),
    /// Keep the function events of `sam local invoke` up to date
    Events(events::Args),
}

impl Command {
    /// Whether the functions' warnings are kept back.
    pub(crate) fn is_quiet(&self) -> bool {
        matches!(self, Self::Demo(_))
    }
}

/// Runs a command to its end. `clock` is its time, and that of the functions that it starts.
pub(crate) async fn run(command: Command, clock: &Clock) -> anyhow::Result<()> {
    match command {
        Command::Demo(args) => demo::run(&args, clock).await,
        Command::Local(args) => local::run(args, clock).await,
        Command::Chat(args) => chat::run(args, clock).await,
        Command::Send(args) => send::run(args).await,
        Command::Say(args) => say::run(args).await,
        Command::Sign(args) => sign::run(args).await,
        Command::Link(args) => link::run(args, clock).await,
        Command::Smoke(args) => smoke::run(args, clock).await,
        Command::Setup(args) => Box::pin(setup::run(args, clock)).await,
        Command::Doctor(args) => Box::pin(doctor::run(args, clock)).await,
        Command::Dead(args) => dead::run(args, clock).await,
        Command::Erase(args) => Box::pin(erase::run(args, clock)).await,
        Command::Console(args) => console::run(args, clock).await,
        Command::Fbe(args) => fbe::run(args, clock).await,
        Command::Fakes(args) => fakes::run(args, clock).await,
        Command::Events(args) => events::run(&args),
    }
}
