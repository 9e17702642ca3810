//! The house that a function's tests run in, built from `template.yaml`: its tables, the names of its secrets and each
//! function's very environment, around them the embedded AWS and the fakes, all by one clock.
//!
//! A setting is given by the name of its variable. One that no function of the template has is refused, so that a test
//! cannot set what the deployed function would never read.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context as _, ensure};
use aws_sdk_dynamodb::types::AttributeValue;
use jiff::SignedDuration;
use serde_json::{Value, json};
use shared::clock::Clock;

use crate::aws::EmbeddedAws;
use crate::braze::{self, FakeBraze};
use crate::external_system::{self, ExternalSystem};
use crate::graph::{self, FakeGraph, TokenKind};
use crate::signer;
use crate::template::Template;
use crate::time;

/// Meta's app.
pub const APP_ID: &str = "1";
/// Signs what Meta sends.
pub const APP_SECRET: &str = "app-secret-of-the-tests";
/// What Meta's handshake has to bring.
pub const VERIFY_TOKEN: &str = "verify-token-of-the-tests";
/// A page whose token the meta secret holds.
pub const PAGE: &str = "101332922643063";
/// Its token.
pub const PAGE_TOKEN: &str = "EAAB-page";
/// An Instagram account whose token the meta secret holds.
pub const INSTAGRAM: &str = "17841405793187218";
/// Its token.
pub const INSTAGRAM_TOKEN: &str = "EAAB-instagram";
/// The partner's own system user.
pub const PARTNER_TOKEN: &str = "EAAB-partner";
/// Signs link tokens.
pub const LINK_KEY: &str = "link-signing-key-of-the-tests-0000000";
/// Braze's key.
pub const BRAZE_KEY: &str = "braze-key-of-the-tests";
/// What Braze's webhook campaign has to bring.
pub const INBOUND_TOKEN: &str = "inbound-token-of-the-tests";
/// Signs between the relay and the external system.
pub const SIGNING_SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
/// What the external system may bring instead of a signature.
pub const EXTERNAL_TOKEN: &str = "external-token-of-the-tests";
/// The key of an OpenAI-compatible external system.
pub const OPENAI_KEY: &str = "openai-key-of-the-tests";

/// A stack's parts, without the functions: these are made by the tests of each.
pub struct House {
    /// Its tables and secrets.
    pub aws: EmbeddedAws,
    /// `BRAZE_REST_ENDPOINT`
    pub braze: FakeBraze,
    /// `GRAPH_API_URL`
    pub graph: FakeGraph,
    /// `EXTERNAL_SYSTEM_URL`
    pub external_system: ExternalSystem,
    /// The time of the functions and the fakes.
    pub clock: Clock,
    template: Template,
    settings: BTreeMap<String, String>,
}

impl House {
    /// With every setting at the template's default, and a clock that stands at [`time::start`].
    ///
    /// # Errors
    ///
    /// When the template cannot be read, or a part does not start.
    pub async fn start() -> anyhow::Result<Self> {
        Self::with(&[]).await
    }

    /// With these settings instead of the template's. The first of a name counts.
    ///
    /// # Errors
    ///
    /// Those of [`Self::start`], and when no function has one of the settings.
    pub async fn with(settings: &[(&str, &str)]) -> anyhow::Result<Self> {
        Self::with_clock(settings, Clock::fixed(time::start())).await
    }

    /// The same by another clock.
    ///
    /// # Errors
    ///
    /// Those of [`Self::with`].
    pub async fn with_clock(settings: &[(&str, &str)], clock: Clock) -> anyhow::Result<Self> {
        let template = Template::of_the_repository()?;
        for (name, _) in settings {
            let mut functions = template.functions().iter();
            let known = functions.any(|function| function.environment.contains_key(*name));
            ensure!(known, "no function has a setting {name}");
        }
        let aws = EmbeddedAws::in_memory().await?;
        aws.create_tables(&template).await?;
        for (secret, value) in secrets() {
            let name = template.secrets().get(secret).context("a secret is missing")?;
            aws.put_secret(name, &value).await?;
        }
        aws.reset_calls();
        let braze = braze::Options::new(BRAZE_KEY).clock(&clock);
        let graph = graph::Options::new(APP_ID, APP_SECRET)
            .partner_token(PARTNER_TOKEN)
            .clock(&clock);
        let external_system = external_system::Options::new(SIGNING_SECRET)
            .bearer_token(EXTERNAL_TOKEN)
            .openai_api_key(OPENAI_KEY)
            .clock(&clock);
        let mut house = Self {
            aws,
            braze: FakeBraze::start(braze).await?,
            graph: FakeGraph::start(graph.proof_everywhere(true)).await?,
            external_system: ExternalSystem::start(external_system).await?,
            clock,
            template,
            settings: BTreeMap::new(),
        };
        house.graph.add_token(PAGE_TOKEN, TokenKind::Page, Some(PAGE));
        house
            .graph
            .add_token(INSTAGRAM_TOKEN, TokenKind::Page, Some(INSTAGRAM));
        let mut set = |name: &str, value: &str| house.settings.insert(name.to_owned(), value.to_owned());
        set("BRAZE_REST_ENDPOINT", &house.braze.url());
        set("GRAPH_API_URL", &house.graph.url());
        let is_openai = settings.contains(&("EXTERNAL_SYSTEM_KIND", "openai"));
        set(
            "EXTERNAL_SYSTEM_URL",
            &if is_openai {
                house.external_system.openai_url()
            } else {
                house.external_system.url()
            },
        );
        set("REPLY_CAMPAIGN_ID", "reply-campaign");
        for (name, value) in settings.iter().rev() {
            set(name, value);
        }
        Ok(house)
    }

    /// The environment of the function with this logical id: the template's, with the settings of this house in the
    /// place of the variables that it has.
    ///
    /// # Panics
    ///
    /// The template has no such function.
    #[must_use]
    #[expect(clippy::panic, reason = "a test that names no function must fail")]
    pub fn environment(&self, function: &str) -> BTreeMap<String, String> {
        let Some(function) = self.template.function(function) else {
            panic!("the template has no function {function}");
        };
        let mut environment = function.environment.clone();
        for (name, value) in &self.settings {
            // What has no default is in no environment before it is given.
            if environment.contains_key(name) || name == "BRAZE_REST_ENDPOINT" {
                environment.insert(name.clone(), value.clone());
            }
        }
        environment
    }

    /// Looks variables of that environment up.
    pub fn lookup(&self, function: &str) -> impl Fn(&str) -> Option<String> + use<> {
        let environment = self.environment(function);
        move |name| environment.get(name).cloned()
    }

    /// The template that it is built from.
    #[must_use]
    pub fn template(&self) -> &Template {
        &self.template
    }

    /// The name of the table with this logical id.
    ///
    /// # Panics
    ///
    /// The template has no such table.
    #[must_use]
    #[expect(clippy::panic, reason = "a test that names no table must fail")]
    pub fn table(&self, logical_id: &str) -> &str {
        match self.template.table(logical_id) {
            Some(table) => &table.name,
            None => panic!("the template has no table {logical_id}"),
        }
    }

    /// All items of the table with this logical id.
    ///
    /// # Errors
    ///
    /// The table cannot be read.
    pub async fn items(&self, table: &str) -> anyhow::Result<Vec<HashMap<String, AttributeValue>>> {
        let scan = self.aws.dynamodb().scan().table_name(self.table(table));
        let items = scan.consistent_read(true).into_paginator().items().send();
        Ok(items.collect::<Result<_, _>>().await?)
    }

    /// Writes the secret with this logical id anew, as an operator does.
    ///
    /// # Errors
    ///
    /// There is no such secret, or it is not written.
    pub async fn write_secret(&self, secret: &str, value: &Value) -> anyhow::Result<()> {
        let name = self.template.secrets().get(secret).context("no such secret")?;
        self.aws.put_secret(name, value).await
    }

    /// Deletes the secret with this logical id for good.
    ///
    /// # Errors
    ///
    /// There is no such secret, or it is not deleted.
    pub async fn delete_secret(&self, secret: &str) -> anyhow::Result<()> {
        let name = self.template.secrets().get(secret).context("no such secret")?;
        let delete = self.aws.secrets_manager().delete_secret().secret_id(name);
        delete.force_delete_without_recovery(true).send().await?;
        Ok(())
    }

    /// The event of a webhook of Meta's in which a person acts on a page now: `value` under `key`.
    #[must_use]
    pub fn act(&self, page: &str, psid: &str, key: &str, value: Value) -> Value {
        let at = self.clock.now().as_millisecond();
        let mut item = json!({"sender": {"id": psid}, "recipient": {"id": page}, "timestamp": at});
        if let Some(item) = item.as_object_mut() {
            item.insert(key.to_owned(), value);
        }
        self.page_event(page, &item)
    }

    /// The event of a webhook of Meta's with one item about a page.
    #[must_use]
    pub fn page_event(&self, page: &str, item: &Value) -> Value {
        let at = self.clock.now().as_millisecond();
        let body = json!({"object": "page", "entry": [{"id": page, "time": at, "messaging": [item]}]});
        let body = body.to_string();
        let signature = signer::meta_signature(APP_SECRET, body.as_bytes());
        let headers = [("x-hub-signature-256", signature.as_str())];
        signer::gateway_event("POST", "/messenger/webhook", "", &headers, body.as_bytes(), false)
    }

    /// Moves the clock on.
    pub fn later(&self, duration: SignedDuration) {
        self.clock.set(self.clock.now() + duration);
    }
}

/// What the secrets hold, by their logical ids.
#[must_use]
pub fn secrets() -> [(&'static str, Value); 5] {
    [
        (
            "MetaSecret",
            json!({
                "app_id": APP_ID, "app_secret": APP_SECRET, "verify_token": VERIFY_TOKEN,
                "partner_system_user_token": PARTNER_TOKEN,
                "page_access_tokens": { PAGE: PAGE_TOKEN, INSTAGRAM: INSTAGRAM_TOKEN },
            }),
        ),
        ("LinkSecret", json!({ "signing_key": LINK_KEY })),
        (
            "PartnerSecret",
            json!({ "api_token": "partner-api-token-of-the-tests", "signing_secret": SIGNING_SECRET }),
        ),
        ("BrazeSecret", json!({ "api_key": BRAZE_KEY })),
        (
            "RelaySecret",
            json!({
                "inbound_token": INBOUND_TOKEN, "signing_secret": SIGNING_SECRET,
                "external_system_token": EXTERNAL_TOKEN, "openai_api_key": OPENAI_KEY,
            }),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_function_has_the_templates_environment_and_the_settings_that_it_reads() {
        let house = House::with(&[("FALLBACK_TEXT", "Sorry."), ("WINDOW_SYNC_MINUTES", "5")])
            .await
            .unwrap();
        let relay = house.environment("DispatchRelayFunction");
        assert_eq!(relay["OUTBOX_TABLE"], house.table("OutboxTable"));
        assert_eq!(relay["RELAY_SECRET_ID"], "local/relay");
        assert_eq!(relay["EXTERNAL_SYSTEM_URL"], house.external_system.url());
        assert_eq!(relay["FALLBACK_TEXT"], "Sorry.");
        assert_eq!(relay.get("WINDOW_SYNC_MINUTES"), None, "another function's");
    }

    #[tokio::test]
    async fn a_setting_that_no_function_has_is_refused() {
        let error = House::with(&[("FALLBACK", "Sorry.")]).await.err().unwrap();
        assert!(error.to_string().contains("no function has a setting FALLBACK"));
    }
}
