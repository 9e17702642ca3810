//! `bridge demo`

use std::path::PathBuf;

use anyhow::bail;

use crate::payloads;

/// Start everything embedded, play every recorded payload, and show what came of it
#[derive(Debug, clap::Args)]
#[command(after_help = "Needs no account, no Docker and no network. Exits 1 if anything is off.")]
pub(crate) struct Args {
    /// Where the recorded payloads are
    #[arg(long, value_name = "DIR", default_value = payloads::DIRECTORY)]
    payloads: PathBuf,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    bail!(
        "the demo of {} needs the fake Braze and Graph, which are not wired yet",
        args.payloads.display()
    )
}
