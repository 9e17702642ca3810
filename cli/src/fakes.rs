//! Braze, Graph, the external system and the partner's platform, played on this machine where no real one is named.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context as _;
use secrecy::ExposeSecret as _;
use serde::de::DeserializeOwned;
use serde_json::Value;
use shared::clock::Clock;
use shared::secrets::{BrazeSecret, MetaSecret, PartnerSecret, RelaySecret};
use testkit::braze::{self, FakeBraze};
use testkit::external_system::{self, ExternalSystem};
use testkit::graph::{self, FakeGraph};
use testkit::partner::FakePartner;

use crate::output::usage;

/// Requests that a fake remembers: enough to look at, and no leak in a stack that runs for days.
const HISTORY: usize = 10_000;

/// The fakes that run; `None` where a real service is configured.
pub struct Fakes {
    /// Braze.
    pub braze: Option<FakeBraze>,
    /// Meta's Graph API.
    pub graph: Option<Arc<FakeGraph>>,
    /// The brand's chatbot or agent desk. It echoes.
    pub external_system: Option<ExternalSystem>,
    /// The partner's platform.
    pub partner: Option<FakePartner>,
}

impl Fakes {
    /// Starts a fake for every address that `settings` does not name, and names it there. The fakes take the
    /// credentials of `secrets` and no others.
    ///
    /// # Errors
    ///
    /// When a secret lacks what the real service needs too, or no port is free.
    pub(crate) async fn start(
        secrets: &BTreeMap<String, Value>,
        settings: &mut BTreeMap<String, String>,
        clock: &Clock,
    ) -> anyhow::Result<Self> {
        let mut fakes = Self {
            braze: None,
            graph: None,
            external_system: None,
            partner: None,
        };
        let missing = |settings: &BTreeMap<String, String>, name: &str| !settings.contains_key(name);
        if missing(settings, "BRAZE_REST_ENDPOINT") {
            let secret: BrazeSecret = read(secrets, "braze")?;
            let mut options = braze::Options::new(secret.api_key.expose_secret())
                .clock(clock)
                .history(HISTORY)
                .drained(false);
            if let Some(key) = &secret.trigger_api_key {
                options = options.trigger_api_key(key.expose_secret());
            }
            let fake = FakeBraze::start(options).await?;
            settings.insert("BRAZE_REST_ENDPOINT".to_owned(), fake.url());
            fakes.braze = Some(fake);
        }
        if missing(settings, "PARTNER_WEBHOOK_URL") {
            let secret: PartnerSecret = read(secrets, "partner")?;
            let fake = FakePartner::start(secret.signing_secret.expose_secret(), false).await?;
            settings.insert("PARTNER_WEBHOOK_URL".to_owned(), fake.url());
            fakes.partner = Some(fake);
        }
        if missing(settings, "GRAPH_API_URL") {
            let secret: MetaSecret = read(secrets, "meta")?;
            let (app_id, app_secret) = secret.fbe_app();
            let mut options = graph::Options::new(app_id, app_secret.expose_secret())
                .any_token(true)
                .clock(clock)
                .history(HISTORY)
                .drained(false);
            if let Some(token) = &secret.partner_system_user_token {
                options = options.partner_token(token.expose_secret());
            }
            let fake = FakeGraph::start(options).await?;
            fake.add_page(recorded_page());
            settings.insert("GRAPH_API_URL".to_owned(), fake.url());
            fakes.graph = Some(Arc::new(fake));
        }
        // Its answers go out through a campaign, and to the fake Braze every campaign id is a live one. A real
        // Braze needs a real campaign.
        if fakes.braze.is_some() {
            default(settings, "REPLY_CAMPAIGN_ID", "local-reply-campaign");
        }
        if missing(settings, "EXTERNAL_SYSTEM_URL") && settings.contains_key("REPLY_CAMPAIGN_ID") {
            let secret: RelaySecret = read(secrets, "relay")?;
            let mut options = external_system::Options::new(secret.signing_secret.expose_secret())
                .clock(clock)
                .history(HISTORY)
                .drained(false);
            if let Some(token) = &secret.external_system_token {
                options = options.bearer_token(token.expose_secret());
            }
            if let Some(key) = &secret.openai_api_key {
                options = options.openai_api_key(key.expose_secret());
            }
            let fake = ExternalSystem::start(options).await?;
            let openai = settings
                .get("EXTERNAL_SYSTEM_KIND")
                .is_some_and(|kind| kind == "openai");
            let url = if openai { fake.openai_url() } else { fake.url() };
            settings.insert("EXTERNAL_SYSTEM_URL".to_owned(), url);
            if openai {
                default(settings, "OPENAI_MODEL", "local-model");
                default(settings, "OPENAI_SYSTEM_PROMPT", "You answer customers.");
            }
            fakes.external_system = Some(fake);
        }
        Ok(fakes)
    }

    /// What the fakes refused since this was last asked: a request that the real service would refuse too.
    #[must_use]
    pub fn take_refusals(&self) -> Vec<String> {
        let of = |name: &str, refusals: Option<Vec<String>>| {
            refusals
                .into_iter()
                .flatten()
                .map(|refusal| format!("the fake {name} refused a request: {refusal}"))
                .collect::<Vec<_>>()
        };
        [
            of("Braze", self.braze.as_ref().map(FakeBraze::take_refusals)),
            of(
                "partner's platform",
                self.partner.as_ref().map(FakePartner::take_refusals),
            ),
            of("Graph", self.graph.as_ref().map(|fake| fake.take_refusals())),
            of(
                "external system",
                self.external_system.as_ref().map(ExternalSystem::take_refusals),
            ),
        ]
        .concat()
    }
}

/// The page, and the Instagram account linked to it, that most recorded payloads come from.
pub(crate) fn recorded_page() -> graph::Page {
    graph::Page::new("1134597043258171", "Recorded Page").instagram("17841452691600098", "recorded.account")
}

fn default(settings: &mut BTreeMap<String, String>, name: &str, value: &str) {
    settings
        .entry(name.to_owned())
        .or_insert_with(|| value.to_owned());
}

/// A secret as the functions read it.
fn read<T: DeserializeOwned>(secrets: &BTreeMap<String, Value>, name: &str) -> anyhow::Result<T> {
    let value = secrets
        .get(name)
        .with_context(|| format!("the secret {name} is missing"))?;
    // serde_json's own message may quote a value; its first words name the field at fault.
    serde_json::from_value(value.clone()).map_err(|error| {
        let text = error.to_string();
        let field = text
            .strip_prefix("missing field ")
            .map_or_else(String::new, |field| format!(": missing field {field}"));
        usage(format!(
            "the secret {name} does not have the expected fields{field}"
        ))
    })
}
