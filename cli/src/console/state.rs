//! What the console looks at.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context as _;
use secrecy::SecretString;
use serde_json::Value;
use shared::clock::Clock;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::faults::Faults;
use super::flow::Flows;
use super::read::TAG;
use super::shown::Shown;
use super::tables::Tables;
use crate::fakes::Fakes;
use crate::payloads::{Credential, Payload, Sender};

/// A stack, and what may be done with it.
pub(crate) struct Console {
    /// The stack's name.
    pub(crate) name: String,
    pub(crate) tables: Tables,
    pub(crate) shown: Shown,
    pub(crate) clock: Clock,
    /// What only the stack of this machine has.
    pub(crate) local: Option<Local>,
    pub(crate) stop: CancellationToken,
}

/// The local stack: it is watched, and driven.
pub(crate) struct Local {
    pub(crate) flows: Arc<Flows>,
    pub(crate) fakes: Arc<Fakes>,
    pub(crate) faults: Faults,
    pub(crate) secrets: BTreeMap<String, Value>,
    /// The base URL of its HTTP API.
    pub(crate) url: String,
    pub(crate) http: reqwest::Client,
}

impl Local {
    /// Signs a payload, posts it as its sender does, and gives the number of the request.
    pub(crate) async fn post(&self, payload: &Payload) -> anyhow::Result<u64> {
        self.post_with(payload, &self.credential(payload.sender)?).await
    }

    /// The same with a secret that nobody has.
    pub(crate) async fn post_forged(&self, payload: &Payload) -> anyhow::Result<u64> {
        let guessed = SecretString::from(Uuid::new_v4().to_string());
        let credential = match self.credential(payload.sender)? {
            Credential::AppSecret(_) => Credential::AppSecret(guessed),
            Credential::BearerToken(_) => Credential::BearerToken(guessed),
        };
        self.post_with(payload, &credential).await
    }

    async fn post_with(&self, payload: &Payload, credential: &Credential) -> anyhow::Result<u64> {
        let tag = Uuid::new_v4().to_string();
        let url = format!("{}{}", self.url, payload.sender.path());
        let mut request = self.http.post(url).header(TAG, &tag).body(payload.body.clone());
        for (name, value) in payload.headers(credential) {
            request = request.header(name, value);
        }
        request.send().await.context("the stack does not answer")?;
        self.flows.tagged(&tag).context("the request was not seen")
    }

    fn credential(&self, sender: Sender) -> anyhow::Result<Credential> {
        let text = |name: &str, field: &str| {
            let value = self
                .secrets
                .get(name)
                .and_then(|secret| secret.get(field)?.as_str());
            let value = value.with_context(|| format!("the secret {name} has no {field}"))?;
            anyhow::Ok(SecretString::from(value))
        };
        Ok(match sender {
            Sender::Whatsapp | Sender::MessengerSend => {
                Credential::BearerToken(text("relay", "inbound_token")?)
            }
            _ => Credential::AppSecret(text("meta", "app_secret")?),
        })
    }
}
