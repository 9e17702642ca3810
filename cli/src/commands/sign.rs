//! `bridge sign`

use std::path::PathBuf;

use shared::webhook::signature;

use crate::output;
use crate::payloads::{self, Sender};
use crate::secrets::SecretArgs;

/// Print the X-Hub-Signature-256 of a payload, as Meta would send it
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    bridge sign payload.json\n  \
    printf '{}' | bridge sign -\n  \
    curl -X POST http://127.0.0.1:3000/messenger/webhook -H 'content-type: application/json' \\\n    \
    -H \"x-hub-signature-256: $(bridge sign payload.json)\" --data-binary @payload.json")]
pub(crate) struct Args {
    /// The file whose exact bytes are signed; `-` = standard input
    file: PathBuf,

    /// Sign for /fbe/webhook, whose app may be another one
    #[arg(long)]
    fbe: bool,

    #[command(flatten)]
    secrets: SecretArgs,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let body = payloads::read(&args.file)?;
    let sender = if args.fbe { Sender::Fbe } else { Sender::Messenger };
    let secret = args.secrets.open().await?.app_secret(sender).await?;
    output::line(signature::sign(&secret, &body));
    Ok(())
}
