//! `bridge smoke`

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use reqwest::header::{HeaderName, HeaderValue};
use serde::de::DeserializeOwned;
use serde_json::Value;
use shared::clients::aws;
use shared::clock::Clock;
use shared::json;

use crate::output::{self, usage};
use crate::probe::{Keys, Probe, Problem, Urls, Verdict};
use crate::secrets;

/// Check that a stack answers as it should, with harmless requests
#[derive(Debug, clap::Args)]
#[command(
    group = clap::ArgGroup::new("where").required(true).multiple(true).args(["stack", "stack_outputs", "url"]),
    after_help = "Leaves nothing behind: the signed event is a read receipt of nobody, the WhatsApp message is blank, the message to\n\
    Messenger is for nobody.\n\n\
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
    let probe = Probe::new(urls, keys, args.headers.into_iter().collect());
    let verdicts = probe.run(clock.now()).await;
    for Verdict { name, problem, .. } in &verdicts {
        match problem {
            None => output::line(format_args!("ok    {name}")),
            Some(Problem { what, hint }) => output::line(format_args!("FAIL  {name}: {what} - {hint}")),
        }
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
        let config = aws::of_person().await;
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
        &parse("relay", &secret("relay"))?,
    )
}

async fn from_secrets_manager(outputs: &BTreeMap<String, String>) -> anyhow::Result<Keys> {
    let client = aws_sdk_secretsmanager::Client::new(&aws::of_person().await);
    let read = async |output: &str| {
        let id = outputs
            .get(output)
            .with_context(|| format!("the stack has no output {output}"))?;
        secrets::fetch(&client, id).await
    };
    let (meta, relay) = (read("MetaSecretName").await?, read("RelaySecretName").await?);
    Keys::new(&parse("meta", &meta)?, &parse("relay", &relay)?)
}

fn parse<T: DeserializeOwned>(name: &str, value: &str) -> anyhow::Result<T> {
    json::read(value.as_bytes()).with_context(|| format!("the secret {name} cannot be read"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

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
            "MessengerSendUrl",
            "DataDeletionUrl",
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
