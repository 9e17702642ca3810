//! A business at Graph: its feature configuration, and the removal of the app from our side.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Map, Value};
use shared::clients::graph::GraphSettings;
use shared::clients::graph::{Credentials, GraphApp, GraphClient};
use shared::clients::http;
use shared::clock::Clock;
use shared::json;
use shared::secrets::{MetaSecret, Secret};

use super::{GraphArgs, Place};
use crate::output::usage;

/// Graph answers configuration in seconds.
const GRAPH_TIMEOUT: Duration = Duration::from_secs(30);

/// A business's configuration at Graph.
pub(super) struct Configuration {
    client: GraphClient,
    app: GraphApp,
    token: secrecy::SecretString,
    business: String,
}

impl Configuration {
    pub(super) async fn open(
        place: &Place,
        clock: &Clock,
        graph: &GraphArgs,
        business: &str,
    ) -> anyhow::Result<Self> {
        let url = match (&graph.graph_url, &place.stack) {
            (Some(url), _) => url.as_str().trim_end_matches('/').to_owned(),
            (None, Some(_)) => "https://graph.facebook.com".to_owned(),
            (None, None) => {
                return Err(usage(
                    "say --graph-url: `bridge local` prints where its fake Graph is",
                ));
            }
        };
        let parts = place.open(clock).await?;
        let install = parts.installed(business).await?;
        let client = aws_sdk_secretsmanager::Client::new(&parts.config);
        let secrets = parts.business_secrets();
        let meta: Secret<MetaSecret> = Secret::new(client, &format!("{}meta", parts.secrets), clock.clone());
        let meta = meta.get().await?;
        let secret = secrets.of(&install).await?;
        let token = secret.as_ref().and_then(|secret| secret.token()).cloned();
        let (id, secret) = meta.fbe_app();
        Ok(Self {
            client: GraphClient::new(
                http::client(GRAPH_TIMEOUT),
                &GraphSettings {
                    url,
                    version: graph.graph_version.clone(),
                },
            ),
            app: GraphApp::new(id, secret),
            token: token.with_context(|| format!("there is no token of {business}"))?,
            business: install.business_id,
        })
    }

    fn credentials(&self) -> Credentials<'_> {
        Credentials {
            app: &self.app,
            token: &self.token,
        }
    }

    pub(super) async fn read(&self) -> anyhow::Result<Value> {
        let answer = self.client.fbe_business(self.credentials(), &self.business).await;
        answer.context("the configuration was not read")
    }

    pub(super) async fn write(&self, config: &Value) -> anyhow::Result<()> {
        self.client
            .update_fbe_business(self.credentials(), &self.business, config)
            .await
            .context("the configuration was not changed")
    }

    /// Removes the app from the business.
    pub(super) async fn uninstall(&self) -> anyhow::Result<()> {
        let answer = self
            .client
            .delete_fbe_installs(self.credentials(), &self.business)
            .await;
        answer.context(
            "Meta has not removed the app, and nothing was changed; without --at-meta it is only ended here",
        )
    }
}

/// JSON as it stands, or of a file.
pub(super) fn read_change(change: &str) -> anyhow::Result<Value> {
    let text = match change.strip_prefix('@') {
        Some(path) => {
            std::fs::read_to_string(Path::new(path)).with_context(|| format!("cannot read {path}"))?
        }
        None => change.to_owned(),
    };
    let change: Map<String, Value> = json::read(text.as_bytes())
        .map_err(|error| usage(format!("the change is not a JSON object of features: {error}")))?;
    if change.is_empty() {
        return Err(usage("the change names no feature"));
    }
    Ok(Value::Object(change))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_change_is_an_object_in_words_or_in_a_file() {
        assert_eq!(
            read_change(r#"{"ads":{"enabled":false}}"#).unwrap()["ads"]["enabled"],
            false
        );
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), r#"{"ads":{}}"#).unwrap();
        let name = format!("@{}", file.path().display());
        assert_eq!(read_change(&name).unwrap(), json!({"ads": {}}));
        for wrong in ["[]", "{}", "ads", "@/no/such/file"] {
            assert!(read_change(wrong).is_err(), "{wrong}");
        }
    }
}
