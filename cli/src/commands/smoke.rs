//! `bridge smoke`

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use aws_sdk_secretsmanager::error::DisplayErrorContext;
use jiff::Timestamp;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, RequestBuilder};
use secrecy::{ExposeSecret as _, SecretString};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use shared::clients::aws::{self, Patience};
use shared::clients::http;
use shared::clock::Clock;
use shared::json;
use shared::secrets::{MetaSecret, RelaySecret};
use shared::webhook::signature;

use crate::output::{self, usage};
use crate::secrets;

/// A function that was never called starts first; API Gateway gives it 30 seconds.
const TIMEOUT: Duration = Duration::from_secs(35);

/// Challenge of the handshakes. Leading zeros would be lost by whoever takes it for a number.
const CHALLENGE: &str = "0011582014";

/// Check that a stack answers as it should, with harmless requests
#[derive(Debug, clap::Args)]
#[command(
    group = clap::ArgGroup::new("where").required(true).multiple(true).args(["stack", "stack_outputs", "url"]),
    after_help = "Leaves nothing behind: the signed event is a read receipt of nobody, the WhatsApp message is blank.\n\n\
    Examples:\n  \
    bridge smoke --stack meta-braze-bridge-dev\n  \
    bridge smoke --url http://127.0.0.1:3000\n  \
    aws cloudformation describe-stacks --stack-name meta-braze-bridge > stack.json\n  \
    bridge smoke --stack-outputs stack.json"
)]
pub(crate) struct Args {
    /// The deployed stack, found with AWS's default credentials
    #[arg(long, value_name = "NAME", conflicts_with = "stack_outputs")]
    stack: Option<String>,

    /// The stack's outputs, as `aws cloudformation describe-stacks` prints them
    #[arg(long, value_name = "FILE")]
    stack_outputs: Option<PathBuf>,

    /// Base URL, instead of the one in the outputs; alone: of `bridge local`
    #[arg(long)]
    url: Option<url::Url>,

    /// The secrets: {"meta":{…},"relay":{…}} [default: those of the stack in Secrets Manager; with --url alone the
    /// development values]
    #[arg(long, value_name = "FILE")]
    secrets: Option<PathBuf>,

    /// A header that every request carries, such as the Host of an API behind an emulator; repeatable
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = header)]
    headers: Vec<(HeaderName, HeaderValue)>,
}

fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once('=').ok_or("expects NAME=VALUE")?;
    let name = name.parse().map_err(|_| "is no header's name")?;
    Ok((name, value.parse().map_err(|_| "is no header's value")?))
}

/// The URLs that the stack is called by.
struct Urls {
    messenger: String,
    fbe: String,
    inbound: String,
    reply: String,
}

impl Urls {
    fn below(base: &url::Url) -> Self {
        let at = |path: &str| format!("{}{path}", base.as_str().trim_end_matches('/'));
        Self {
            messenger: at("/messenger/webhook"),
            fbe: at("/fbe/webhook"),
            inbound: at("/whatsapp/inbound"),
            reply: at("/whatsapp/reply"),
        }
    }

    fn of(outputs: &BTreeMap<String, String>) -> anyhow::Result<Self> {
        let output = |name: &str| {
            let output = outputs.get(name).cloned();
            output.with_context(|| format!("the stack has no output {name}; is it this product's?"))
        };
        Ok(Self {
            messenger: output("MessengerWebhookUrl")?,
            fbe: output("FbeWebhookUrl")?,
            inbound: output("WhatsAppInboundUrl")?,
            reply: output("WhatsAppReplyUrl")?,
        })
    }
}

/// What the checks sign with.
struct Keys {
    app_secret: SecretString,
    verify_token: SecretString,
    fbe_verify_token: SecretString,
    inbound_token: SecretString,
}

impl Keys {
    fn new(meta: &MetaSecret, relay: RelaySecret) -> anyhow::Result<Self> {
        let keys = Self {
            app_secret: meta.app_secret.clone(),
            verify_token: meta.verify_token.clone(),
            fbe_verify_token: meta.fbe_verify_token().clone(),
            inbound_token: relay.inbound_token,
        };
        let named = [
            ("app_secret", &keys.app_secret),
            ("verify_token", &keys.verify_token),
            ("inbound_token", &keys.inbound_token),
        ];
        match named.iter().find(|(_, value)| value.expose_secret().is_empty()) {
            Some((name, _)) => bail!("{name} is not filled in yet; see \"Secrets\" in docs/operations.md"),
            None => Ok(keys),
        }
    }
}

pub(crate) async fn run(args: Args, clock: &Clock) -> anyhow::Result<()> {
    let outputs = outputs(&args).await?;
    let urls = match (&args.url, &outputs) {
        (Some(base), _) => Urls::below(base),
        (None, Some(outputs)) => Urls::of(outputs)?,
        (None, None) => return Err(usage("say --stack, --stack-outputs or --url")),
    };
    let keys = match (&args.secrets, &outputs) {
        (Some(file), _) => from_values(&secrets::read_file(file)?)?,
        (None, Some(outputs)) => from_secrets_manager(outputs).await?,
        (None, None) => from_values(&secrets::development())?,
    };
    let checks = Checks {
        client: http::client(TIMEOUT),
        headers: args.headers.into_iter().collect(),
        urls,
        keys,
    };
    let verdicts = checks.run(clock.now()).await;
    for verdict in &verdicts {
        output::line(verdict);
    }
    let failed = verdicts
        .iter()
        .filter(|verdict| verdict.problem.is_some())
        .count();
    if failed > 0 {
        bail!("{failed} of {} checks failed", verdicts.len());
    }
    output::line(format_args!("all {} checks passed", verdicts.len()));
    Ok(())
}

async fn outputs(args: &Args) -> anyhow::Result<Option<BTreeMap<String, String>>> {
    if let Some(stack) = &args.stack {
        let config = aws::config(Patience::Background).await;
        return Ok(Some(secrets::stack_outputs(&config, stack).await?));
    }
    args.stack_outputs.as_deref().map(read_outputs).transpose()
}

/// The outputs in what `aws cloudformation describe-stacks` prints.
fn read_outputs(file: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    let text = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let described: Value =
        json::read(&text).map_err(|error| usage(format!("{}: {error}", file.display())))?;
    let outputs = described.pointer("/Stacks/0/Outputs").and_then(Value::as_array);
    let outputs = outputs.ok_or_else(|| {
        usage(format!(
            "{} is not what `aws cloudformation describe-stacks` prints of one stack",
            file.display()
        ))
    })?;
    let text = |output: &Value, name: &str| output.get(name).and_then(Value::as_str).map(str::to_owned);
    let outputs = outputs
        .iter()
        .filter_map(|output| Some((text(output, "OutputKey")?, text(output, "OutputValue")?)));
    Ok(outputs.collect())
}

fn from_values(values: &Value) -> anyhow::Result<Keys> {
    let secret = |name: &str| values.get(name).map(Value::to_string).unwrap_or_default();
    Keys::new(
        &parse("meta", &secret("meta"))?,
        parse("relay", &secret("relay"))?,
    )
}

async fn from_secrets_manager(outputs: &BTreeMap<String, String>) -> anyhow::Result<Keys> {
    let client = aws_sdk_secretsmanager::Client::new(&aws::config(Patience::Background).await);
    let read = async |output: &str| {
        let id = outputs
            .get(output)
            .with_context(|| format!("the stack has no output {output}"))?;
        let answer = client.get_secret_value().secret_id(id).send().await;
        let answer = answer.map_err(|error| {
            anyhow::anyhow!("the secret {id} cannot be read: {}", DisplayErrorContext(error))
        })?;
        Ok::<_, anyhow::Error>(answer.secret_string.unwrap_or_default())
    };
    let (meta, relay) = (read("MetaSecretName").await?, read("RelaySecretName").await?);
    Keys::new(&parse("meta", &meta)?, parse("relay", &relay)?)
}

fn parse<T: DeserializeOwned>(name: &str, value: &str) -> anyhow::Result<T> {
    json::read(value.as_bytes()).with_context(|| format!("the secret {name} cannot be read"))
}

/// What came of a check.
struct Verdict {
    name: &'static str,
    /// What is wrong and what to do.
    problem: Option<String>,
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.problem {
            None => write!(f, "ok    {}", self.name),
            Some(problem) => write!(f, "FAIL  {}: {problem}", self.name),
        }
    }
}

struct Checks {
    client: reqwest::Client,
    headers: HeaderMap,
    urls: Urls,
    keys: Keys,
}

impl Checks {
    /// One after the other, so that functions that start do not disturb each other.
    async fn run(&self, now: Timestamp) -> Vec<Verdict> {
        let Urls {
            messenger,
            fbe,
            inbound,
            reply,
        } = &self.urls;
        let keys = &self.keys;
        let wrong = SecretString::from("wrong");
        let receipt = read_receipt(now);
        let signed = signature::sign(&keys.app_secret, receipt.as_bytes());
        let blank = |token: &SecretString| {
            let request = self.event(inbound).bearer_auth(token.expose_secret());
            request.body(blank_message())
        };
        vec![
            self.check(
                "messenger: the handshake with the right token is answered with its challenge",
                self.handshake(messenger, &keys.verify_token),
                (200, |body| body == CHALLENGE),
                "the URL leads elsewhere, or verify_token in the meta secret is another one",
            )
            .await,
            self.check(
                "messenger: the handshake with a wrong token is refused",
                self.handshake(messenger, &wrong),
                (403, |_| true),
                "anybody could subscribe to this webhook",
            )
            .await,
            self.check(
                "messenger: an event without a signature is refused",
                self.event(messenger).body(receipt.clone()),
                (401, |_| true),
                "anybody could send events",
            )
            .await,
            self.check(
                "messenger: an event with a signature is taken",
                self.event(messenger).header(signature::HEADER, signed).body(receipt),
                (200, |body| body == "EVENT_RECEIVED"),
                "401 = app_secret is another one; 503 = secrets or tables are out of reach, see the function's log",
            )
            .await,
            self.check(
                "fbe: the handshake with the right token is answered with its challenge",
                self.handshake(fbe, &keys.fbe_verify_token),
                (200, |body| body == CHALLENGE),
                "fbe_verify_token (or verify_token) in the meta secret is another one",
            )
            .await,
            self.check(
                "fbe: the handshake with a wrong token is refused",
                self.handshake(fbe, &wrong),
                (403, |_| true),
                "anybody could subscribe to this webhook",
            )
            .await,
            self.check(
                "fbe: an event without a signature is refused",
                self.event(fbe).body("{}"),
                (401, |_| true),
                "anybody could send installs",
            )
            .await,
            self.check(
                "whatsapp: a message with the right token is taken",
                blank(&keys.inbound_token),
                (202, |body| {
                    let answer: Value = serde_json::from_str(body).unwrap_or_default();
                    answer.get("status").and_then(Value::as_str) == Some("ignored")
                }),
                "401 = inbound_token in the relay secret is another one; 503 = see the function's log",
            )
            .await,
            self.check(
                "whatsapp: a message with a wrong token is refused",
                blank(&wrong),
                (401, |_| true),
                "anybody could write to your external system",
            )
            .await,
            self.check(
                "whatsapp: a reply without a signature is refused",
                self.event(reply).body("{}"),
                (401, |_| true),
                "anybody could write to your customers",
            )
            .await,
        ]
    }

    async fn check(
        &self,
        name: &'static str,
        request: RequestBuilder,
        (status, body): (u16, impl Fn(&str) -> bool),
        hint: &str,
    ) -> Verdict {
        let problem = match request.headers(self.headers.clone()).send().await {
            // The URL is left out: a handshake's has the token in it.
            Err(error) => Some(format!("no answer ({})", error.without_url())),
            Ok(answer) => {
                let got = answer.status().as_u16();
                let text = answer.text().await.unwrap_or_default();
                if got != status {
                    Some(format!("expected {status}, got {got} - {hint}"))
                } else if !body(&text) {
                    Some(format!("answered {got}, but with another body - {hint}"))
                } else {
                    None
                }
            }
        };
        Verdict { name, problem }
    }

    fn handshake(&self, url: &str, token: &SecretString) -> RequestBuilder {
        let query = [
            ("hub.mode", "subscribe"),
            ("hub.challenge", CHALLENGE),
            ("hub.verify_token", token.expose_secret()),
        ];
        self.client.request(Method::GET, url).query(&query)
    }

    fn event(&self, url: &str) -> RequestBuilder {
        self.client
            .request(Method::POST, url)
            .header("content-type", "application/json")
    }
}

/// A receipt of somebody who is nobody's contact. The contact is looked for, so the table is known to be there, and
/// nothing is written.
fn read_receipt(now: Timestamp) -> String {
    let now = now.as_millisecond();
    json!({"object": "page", "entry": [{"id": "1", "time": now, "messaging": [{
        "sender": {"id": "1"}, "recipient": {"id": "1"}, "timestamp": now, "read": {"watermark": now},
    }]}]})
    .to_string()
}

/// A blank message is ignored, and that of a preview is not looked for among the earlier ones.
fn blank_message() -> String {
    json!({
        "user_id": "bridge-smoke",
        "phone_number": "+15550000000",
        "message": " ",
        "dispatch_id": "dispatch_id_for_unsent_campaign",
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(content: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        file
    }

    #[test]
    fn outputs_are_read_as_aws_prints_them() {
        let outputs = [
            "MessengerWebhookUrl",
            "FbeWebhookUrl",
            "WhatsAppInboundUrl",
            "WhatsAppReplyUrl",
        ]
        .map(
            |name| json!({"OutputKey": name, "OutputValue": format!("https://x/{name}"), "Description": "d"}),
        );
        let described = file(&json!({"Stacks": [{"StackName": "s", "Outputs": outputs}]}).to_string());
        let urls = Urls::of(&read_outputs(described.path()).unwrap()).unwrap();
        assert_eq!(urls.inbound, "https://x/WhatsAppInboundUrl");
        for other in ["[]", "{}", r#"{"Stacks":[]}"#, "not JSON"] {
            let error = read_outputs(file(other).path()).unwrap_err();
            assert!(error.is::<output::UsageError>(), "{other}");
        }
        let foreign = BTreeMap::from([("BucketName".to_owned(), "b".to_owned())]);
        assert!(Urls::of(&foreign).is_err());
    }

    #[test]
    fn secrets_that_nobody_filled_in_are_named() {
        let values = json!({
            "meta": {"app_id": "1", "app_secret": "", "verify_token": "t"},
            "relay": {"inbound_token": "i", "signing_secret": "whsec_MA=="},
        });
        let error = from_values(&values).map(drop).unwrap_err().to_string();
        assert!(error.starts_with("app_secret is not filled in"), "{error}");
        assert!(from_values(&secrets::development()).is_ok());
    }

    #[test]
    fn headers_are_pairs() {
        let (name, value) = header("Host=a.execute-api.localhost:4566").unwrap();
        assert_eq!(
            (name.as_str(), value.to_str().unwrap()),
            ("host", "a.execute-api.localhost:4566")
        );
        assert!(header("Host").is_err() && header("a b=c").is_err());
    }
}
