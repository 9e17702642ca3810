//! `bridge say`

use std::time::Duration;

use anyhow::{Context as _, bail};
use secrecy::ExposeSecret as _;
use serde_json::{Map, Value};
use shared::clients::http;

use crate::output;
use crate::payloads::Sender;
use crate::secrets::SecretArgs;

/// Send a message to somebody on Messenger or Instagram, as a Braze campaign does
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    bridge say --user user-42 \"Your order has left our house.\"\n  \
    bridge say --psid 5275811702471834 --page 1134597043258171 hello --stack meta-braze-bridge-dev")]
pub(crate) struct Args {
    /// What to say
    #[arg(value_name = "TEXT")]
    text: String,

    /// The user's Braze external id
    #[arg(
        long,
        value_name = "ID",
        required_unless_present = "psid",
        conflicts_with = "psid"
    )]
    user: Option<String>,

    /// The person's PSID or IGSID
    #[arg(long, value_name = "ID")]
    psid: Option<String>,

    /// The page or Instagram account that says it
    #[arg(long, value_name = "ID")]
    page: Option<String>,

    /// To somebody on Instagram
    #[arg(long)]
    instagram: bool,

    /// What is told Meta of the reason: `HUMAN_AGENT` reaches people for seven days
    #[arg(long, value_name = "TAG")]
    tag: Option<String>,

    /// The stack's base URL [default: that of --stack, else `http://127.0.0.1:3000`]
    #[arg(long, env = "BRIDGE_URL")]
    url: Option<url::Url>,

    #[command(flatten)]
    secrets: SecretArgs,
}

impl Args {
    fn body(&self) -> Value {
        let mut body = Map::new();
        let mut put = |name: &str, value: Option<&String>| {
            body.extend(value.map(|value| (name.to_owned(), value.clone().into())));
        };
        put("user_id", self.user.as_ref());
        put("psid", self.psid.as_ref());
        put("page_id", self.page.as_ref());
        put("text", Some(&self.text));
        put("channel", self.instagram.then(|| "instagram".to_owned()).as_ref());
        put("tag", self.tag.as_ref());
        put(
            "messaging_type",
            self.tag.as_ref().map(|_| "MESSAGE_TAG".to_owned()).as_ref(),
        );
        body.into()
    }
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let body = args.body();
    let secrets = args.secrets.open().await?;
    let path = Sender::MessengerSend.path();
    let url = match (args.url, secrets.webhook_url(Sender::MessengerSend)) {
        (Some(base), _) => format!("{}{path}", base.as_str().trim_end_matches('/')),
        (None, Some(url)) => url,
        (None, None) => format!("http://127.0.0.1:3000{path}"),
    };
    let token = secrets.send_token().await?;
    let request = http::client(Duration::from_secs(30)).post(&url);
    let answer = request
        .bearer_auth(token.expose_secret())
        .json(&body)
        .send()
        .await;
    let answer = answer.with_context(|| format!("nobody answers at {url}; is `bridge local` running?"))?;
    let status = answer.status();
    let text = answer.text().await.context("the answer was cut off")?;
    output::line(format_args!("{} {text}", status.as_u16()));
    if !status.is_success() {
        bail!("the message was not accepted");
    }
    Ok(())
}
