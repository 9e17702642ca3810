//! Where a command's secrets come from: a file, a deployed stack, the local stack, or the development values.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use aws_sdk_cloudformation::types::Stack;
use aws_sdk_secretsmanager::error::DisplayErrorContext;
use secrecy::SecretString;
use serde_json::{Map, Value, json};
use shared::secrets::{LinkSecret, MetaSecret, RelaySecret};
use shared::{json, sdk_error};

use crate::output;
use crate::payloads::{Credential, Sender};

/// The name of the local stack: its secrets are `local/meta` and so on.
pub(crate) const STACK_NAME: &str = "local";

/// Names of the secrets that a stack has from the start.
pub(crate) const NAMES: [&str; 5] = ["meta", "braze", "relay", "link", "partner"];

/// Where the local stack keeps what CloudFormation knows of a deployed one: `{"url":…,"settings":{…}}`.
pub(crate) const OUTPUTS: &str = "local/outputs";

/// The output of a deployed stack that names a secret.
fn output_of(name: &str) -> &'static str {
    match name {
        "meta" => "MetaSecretName",
        "braze" => "BrazeSecretName",
        "relay" => "RelaySecretName",
        "partner" => "PartnerSecretName",
        _ => "LinkSecretName",
    }
}

/// The secrets of a stack that nobody gave any. They are printed and protect nothing.
#[must_use]
pub fn development() -> Value {
    json!({
        "meta": {
            "app_id": "development-app-id",
            "app_secret": "development-app-secret",
            "verify_token": "development-verify-token",
        },
        "braze": { "api_key": "development-braze-api-key" },
        "relay": {
            "inbound_token": "development-inbound-token",
            "external_system_token": "development-external-system-token",
            // base64 of `development-signing-secret-00000`
            "signing_secret": "whsec_ZGV2ZWxvcG1lbnQtc2lnbmluZy1zZWNyZXQtMDAwMDA=",
        },
        "link": { "signing_key": "development-link-signing-key-000000" },
        "partner": {
            "api_token": "development-partner-api-token",
            // base64 of `development-partner-secret-00000`
            "signing_secret": "whsec_ZGV2ZWxvcG1lbnQtcGFydG5lci1zZWNyZXQtMDAwMDA=",
        },
    })
}

/// Reads a `--secrets` file: one JSON object of the form of [`development`]. What is left out has its
/// development value.
pub(crate) fn read_file(path: &Path) -> anyhow::Result<Value> {
    let text = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let given: Map<String, Value> = json::read(&text)
        .map_err(|error| output::usage(format!("{} is no object of secrets: {error}", path.display())))?;
    let mut secrets = development();
    for (name, value) in given {
        if !NAMES.contains(&name.as_str()) || !value.is_object() {
            return Err(output::usage(format!(
                "{}: `{name}` is not one of the objects meta, braze, relay, link and partner",
                path.display()
            )));
        }
        if let Some(secrets) = secrets.as_object_mut() {
            secrets.insert(name, value);
        }
    }
    Ok(secrets)
}

/// The credential of a sender to a stack with the [`development`] secrets.
#[must_use]
pub fn development_credential(sender: Sender) -> Credential {
    let secrets = development();
    let text = |pointer: &str| {
        let text = secrets.pointer(pointer).and_then(Value::as_str);
        SecretString::from(text.unwrap_or_default())
    };
    match sender {
        Sender::Whatsapp | Sender::MessengerSend => Credential::BearerToken(text("/relay/inbound_token")),
        _ => Credential::AppSecret(text("/meta/app_secret")),
    }
}

/// Which secrets a command works with.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Secrets (default: those of the local stack)")]
pub(crate) struct SecretArgs {
    /// Take the secrets of this deployed stack, with AWS's default credentials
    #[arg(long, value_name = "NAME", conflicts_with = "secrets")]
    stack: Option<String>,

    /// Take the secrets of this file: {"meta":{…},"braze":{…},"relay":{…},"link":{…},"partner":{…}}
    #[arg(long, value_name = "FILE")]
    secrets: Option<PathBuf>,

    /// Where `bridge local` serves its embedded AWS
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:4000")]
    aws_addr: SocketAddr,
}

/// Secrets, read one by one as they are needed.
pub(crate) struct Secrets {
    source: Source,
}

enum Source {
    /// Of a file, or the development values.
    Values(Value, Option<PathBuf>),
    Local(aws_sdk_secretsmanager::Client),
    Stack {
        client: aws_sdk_secretsmanager::Client,
        outputs: BTreeMap<String, String>,
    },
}

impl SecretArgs {
    /// The deployed stack, if it is one.
    pub(crate) fn stack(&self) -> Option<&str> {
        self.stack.as_deref()
    }

    /// Whether the secrets are those of a file.
    pub(crate) fn is_file(&self) -> bool {
        self.secrets.is_some()
    }

    /// Where the local stack is looked for.
    pub(crate) fn aws_addr(&self) -> SocketAddr {
        self.aws_addr
    }

    /// How the local stack's AWS is spoken to; `None` if it does not run.
    pub(crate) async fn local(&self) -> Option<aws_config::SdkConfig> {
        let connect = tokio::net::TcpStream::connect(self.aws_addr);
        let connected = tokio::time::timeout(Duration::from_millis(500), connect).await;
        matches!(connected, Ok(Ok(_))).then(|| testkit::aws::sdk_config(&format!("http://{}", self.aws_addr)))
    }

    /// Finds the source. Nothing is read yet but the stack's outputs.
    pub(crate) async fn open(&self) -> anyhow::Result<Secrets> {
        if let Some(path) = &self.secrets {
            return Ok(Secrets {
                source: Source::Values(read_file(path)?, Some(path.clone())),
            });
        }
        if let Some(stack) = &self.stack {
            let config = shared::clients::aws::of_person().await;
            let outputs = stack_outputs(&config, stack).await?;
            let client = aws_sdk_secretsmanager::Client::new(&config);
            return Ok(Secrets {
                source: Source::Stack { client, outputs },
            });
        }
        let Some(config) = self.local().await else {
            output::note("no local stack is running: the development secrets are used");
            return Ok(Secrets {
                source: Source::Values(development(), None),
            });
        };
        Ok(Secrets {
            source: Source::Local(aws_sdk_secretsmanager::Client::new(&config)),
        })
    }
}

/// The outputs of a deployed stack.
pub(crate) async fn stack_outputs(
    config: &aws_config::SdkConfig,
    stack: &str,
) -> anyhow::Result<BTreeMap<String, String>> {
    let stacks = describe(config, stack).await?;
    let outputs = stacks.iter().flat_map(Stack::outputs);
    Ok(outputs
        .filter_map(|output| Some((output.output_key()?.to_owned(), output.output_value()?.to_owned())))
        .collect())
}

/// The outputs and the parameters of a deployed stack.
pub(crate) async fn stack_particulars(
    config: &aws_config::SdkConfig,
    stack: &str,
) -> anyhow::Result<(BTreeMap<String, String>, BTreeMap<String, String>)> {
    let stacks = describe(config, stack).await?;
    let outputs = stacks.iter().flat_map(Stack::outputs);
    let outputs = outputs
        .filter_map(|output| Some((output.output_key()?.to_owned(), output.output_value()?.to_owned())));
    let parameters = stacks.iter().flat_map(Stack::parameters);
    let parameters = parameters.filter_map(|parameter| {
        Some((
            parameter.parameter_key()?.to_owned(),
            parameter.parameter_value()?.to_owned(),
        ))
    });
    Ok((outputs.collect(), parameters.collect()))
}

/// A parameter of a deployed stack; `None` if it has none of this name.
pub(crate) async fn stack_parameter(
    config: &aws_config::SdkConfig,
    stack: &str,
    name: &str,
) -> anyhow::Result<Option<String>> {
    let stacks = describe(config, stack).await?;
    let mut parameters = stacks.iter().flat_map(Stack::parameters);
    let parameter = parameters.find(|parameter| parameter.parameter_key() == Some(name));
    Ok(parameter.and_then(|parameter| parameter.parameter_value().map(str::to_owned)))
}

async fn describe(config: &aws_config::SdkConfig, stack: &str) -> anyhow::Result<Vec<Stack>> {
    let client = aws_sdk_cloudformation::Client::new(config);
    let answer = client.describe_stacks().stack_name(stack).send().await;
    let answer = answer.map_err(|error| {
        anyhow::anyhow!("the stack {stack} cannot be read: {}", DisplayErrorContext(error))
    })?;
    Ok(answer.stacks.unwrap_or_default())
}

impl Secrets {
    /// What `sender` proves itself with.
    pub(crate) async fn credential(&self, sender: Sender) -> anyhow::Result<Credential> {
        Ok(match sender {
            Sender::Whatsapp => Credential::BearerToken(self.inbound_token().await?),
            Sender::MessengerSend => Credential::BearerToken(self.send_token().await?),
            _ => Credential::AppSecret(self.app_secret(sender).await?),
        })
    }

    /// The app secret that signs what `sender` sends.
    pub(crate) async fn app_secret(&self, sender: Sender) -> anyhow::Result<SecretString> {
        let meta: MetaSecret = self.read("meta", "MetaSecretName").await?;
        let secrets = match sender {
            Sender::Fbe => meta.fbe_app_secrets(),
            _ => meta.messenger_app_secrets(),
        };
        secrets
            .first()
            .map(|secret| (*secret).clone())
            .context("no app secret is configured")
    }

    /// The bearer token of `/whatsapp/inbound`.
    async fn inbound_token(&self) -> anyhow::Result<SecretString> {
        Ok(self
            .read::<RelaySecret>("relay", "RelaySecretName")
            .await?
            .inbound_token)
    }

    /// The bearer token of `/messenger/send`.
    pub(crate) async fn send_token(&self) -> anyhow::Result<SecretString> {
        let relay: RelaySecret = self.read("relay", "RelaySecretName").await?;
        let token = relay.send_tokens().next().cloned();
        token.context("the relay secret has no token")
    }

    /// The key that signs link tokens.
    pub(crate) async fn link_signing_key(&self) -> anyhow::Result<SecretString> {
        Ok(self
            .read::<LinkSecret>("link", "LinkSecretName")
            .await?
            .signing_key)
    }

    /// The webhook's URL, as a deployed stack tells it.
    pub(crate) fn webhook_url(&self, sender: Sender) -> Option<String> {
        let Source::Stack { outputs, .. } = &self.source else {
            return None;
        };
        let output = match sender {
            Sender::Messenger | Sender::Instagram => "MessengerWebhookUrl",
            Sender::Fbe => "FbeWebhookUrl",
            Sender::Whatsapp => "WhatsAppInboundUrl",
            Sender::MessengerSend => "MessengerSendUrl",
        };
        outputs.get(output).cloned()
    }

    /// A secret as it stands, with all its fields.
    pub(crate) async fn fields(&self, name: &str) -> anyhow::Result<Map<String, Value>> {
        self.read(name, output_of(name)).await
    }

    /// Replaces a secret. Nothing is written where the development values serve.
    pub(crate) async fn write(&self, name: &str, fields: &Map<String, Value>) -> anyhow::Result<()> {
        let (client, id) = match &self.source {
            Source::Values(_, None) => bail!("no local stack is running, so there is no secret to write"),
            Source::Values(values, Some(path)) => {
                let mut values = values.clone();
                if let Some(values) = values.as_object_mut() {
                    values.insert(name.to_owned(), Value::Object(fields.clone()));
                }
                return replace_file(path, &values);
            }
            Source::Local(client) => (client, format!("{STACK_NAME}/{name}")),
            Source::Stack { client, outputs } => {
                let output = output_of(name);
                let id = outputs
                    .get(output)
                    .with_context(|| format!("the stack has no output {output}"))?;
                (client, id.clone())
            }
        };
        let value = Value::Object(fields.clone()).to_string();
        let put = client
            .put_secret_value()
            .secret_id(&id)
            .secret_string(value)
            .send()
            .await;
        put.map_err(|error| {
            anyhow::anyhow!("the secret {id} cannot be written: {}", sdk_error::reason(&error))
        })?;
        Ok(())
    }

    pub(crate) async fn read<T: serde::de::DeserializeOwned>(
        &self,
        name: &str,
        output: &str,
    ) -> anyhow::Result<T> {
        let value = match &self.source {
            Source::Values(values, _) => values.get(name).map(Value::to_string).unwrap_or_default(),
            Source::Local(client) => fetch(client, &format!("{STACK_NAME}/{name}")).await?,
            Source::Stack { client, outputs } => {
                let id = outputs
                    .get(output)
                    .with_context(|| format!("the stack has no output {output}"))?;
                fetch(client, id).await?
            }
        };
        json::read(value.as_bytes()).with_context(|| format!("the secret {name} cannot be read"))
    }
}

/// Either the old or the new content is there, whole, and nobody else can read it.
fn replace_file(path: &Path, content: &Value) -> anyhow::Result<()> {
    use std::io::Write as _;
    let cannot = || format!("cannot write {}", path.display());
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let mut file = tempfile::NamedTempFile::new_in(folder.unwrap_or(Path::new("."))).with_context(cannot)?;
    let text = serde_json::to_string_pretty(content)?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.as_file().sync_all())
        .with_context(cannot)?;
    file.persist(path).with_context(cannot)?;
    Ok(())
}

pub(crate) async fn fetch(client: &aws_sdk_secretsmanager::Client, id: &str) -> anyhow::Result<String> {
    match client.get_secret_value().secret_id(id).send().await {
        Ok(value) => value
            .secret_string
            .with_context(|| format!("the secret {id} holds no text")),
        Err(error) => bail!("the secret {id} cannot be read: {}", sdk_error::reason(&error)),
    }
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
    fn a_file_replaces_whole_secrets() {
        let file = file(r#"{"link":{"signing_key":"mine"}}"#);
        let secrets = read_file(file.path()).unwrap();
        assert_eq!(secrets["link"], json!({"signing_key": "mine"}));
        assert_eq!(secrets["meta"], development()["meta"]);
    }

    #[test]
    fn a_broken_file_is_refused_without_showing_it() {
        for content in [
            r#"{"meta": hush}"#,
            r#"{"metta":{"app_secret":"hush"}}"#,
            r#"{"meta":"hush"}"#,
        ] {
            let file = file(content);
            let error = read_file(file.path()).unwrap_err();
            assert!(error.is::<output::UsageError>(), "{content}");
            assert!(!format!("{error:#}").contains("hush"), "{error:#}");
        }
    }
}
