//! `bridge send`

use std::time::Duration;

use anyhow::{Context as _, bail};
use shared::clients::http;

use crate::output;
use crate::payloads::{self, Sender};
use crate::secrets::SecretArgs;

/// Sign a payload and post it, to the local or a deployed stack
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    bridge send messenger/message_text\n  \
    bridge send my-payload.json --to messenger\n  \
    bridge send messenger/message_text --stack meta-braze-bridge-dev")]
pub(crate) struct Args {
    /// A recorded case, such as `messenger/message_text` (see events/payloads), or a file
    #[arg(value_name = "CASE|FILE")]
    payload: String,

    /// The stack's base URL [default: that of --stack, else `http://127.0.0.1:3000`]
    #[arg(long, env = "BRIDGE_URL")]
    url: Option<url::Url>,

    /// Whose webhook it is; told by the folder of a recorded case
    #[arg(long, value_name = "SENDER")]
    to: Option<Sender>,

    #[command(flatten)]
    secrets: SecretArgs,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let payload = payloads::find(&args.payload, args.to)?;
    let secrets = args.secrets.open().await?;
    let url = match (args.url, secrets.webhook_url(payload.sender)) {
        (Some(base), _) => format!("{}{}", base.as_str().trim_end_matches('/'), payload.sender.path()),
        (None, Some(url)) => url,
        (None, None) => format!("http://127.0.0.1:3000{}", payload.sender.path()),
    };
    let client = http::client(Duration::from_secs(30));
    let mut request = client.post(&url);
    for (name, value) in payload.headers(&secrets.credential(payload.sender).await?) {
        request = request.header(name, value);
    }
    output::note(format_args!("POST {url} ({} bytes)", payload.body.len()));
    let answer = request.body(payload.body).send().await;
    let answer = answer.with_context(|| format!("nobody answers at {url}; is `bridge local` running?"))?;
    let status = answer.status();
    let text = answer.text().await.context("the answer was cut off")?;
    output::line(format_args!("{} {text}", status.as_u16()));
    if !status.is_success() {
        bail!("the stack did not accept the payload");
    }
    Ok(())
}
