//! `POST /messenger/webhook`: what happened on Messenger and Instagram.

mod ingest;

use lambda_http::Request;
use shared::clock::Clock;
use shared::config::{ContactSettings, Env, Tables};
use shared::messenger::link::LinkKeys;
use shared::messenger::payload;
use shared::secrets::{LinkSecret, MetaSecret, Secret};
use shared::store::contacts::Contacts;
use shared::store::outbox::{Outbox, Quarantined};
use shared::telemetry;
use shared::webhook::{Answer, ErrorCode, answer, meta};

/// What the function reads from its environment.
#[derive(Debug)]
pub struct Settings {
    meta_secret_id: String,
    link_secret_id: String,
    contacts_table: String,
    outbox_table: String,
    contacts: ContactSettings,
}

impl Settings {
    /// Reads the environment.
    pub fn read(env: &mut Env<'_>) -> Self {
        Self {
            meta_secret_id: env.required("META_SECRET_ID"),
            link_secret_id: env.required("LINK_SECRET_ID"),
            contacts_table: Tables::contacts(env),
            outbox_table: Tables::outbox(env),
            contacts: ContactSettings::read(env),
        }
    }
}

/// The function.
#[derive(Debug)]
pub struct App {
    meta: Secret<MetaSecret>,
    link: Secret<LinkSecret>,
    contacts: Contacts,
    outbox: Outbox,
    settings: ContactSettings,
    clock: Clock,
}

impl App {
    /// Nothing is fetched yet.
    #[must_use]
    pub fn new(
        settings: Settings,
        secrets: &aws_sdk_secretsmanager::Client,
        dynamodb: &aws_sdk_dynamodb::Client,
        clock: Clock,
    ) -> Self {
        let outbox = Outbox::new(dynamodb.clone(), settings.outbox_table, clock.clone());
        let contacts = Contacts::new(
            dynamodb.clone(),
            settings.contacts_table,
            outbox.clone(),
            clock.clone(),
        );
        Self {
            meta: Secret::new(secrets.clone(), &settings.meta_secret_id, clock.clone()),
            link: Secret::new(secrets.clone(), &settings.link_secret_id, clock.clone()),
            contacts,
            outbox,
            settings: settings.contacts,
            clock,
        }
    }

    /// 200 `EVENT_RECEIVED` once everything that has to be kept is durable; 401, 413 or 503.
    pub async fn handle(&self, request: Request) -> Answer {
        let verified = match meta::accept(request, &self.meta, MetaSecret::messenger_app_secrets).await {
            Ok(verified) => verified,
            Err(answer) => return answer,
        };
        let parsed = payload::parse(&verified, self.clock.now());
        // Without the key no token can be judged, and a person who proved who they are would stay unknown.
        let link = match self.link.get().await {
            Ok(link) => link,
            Err(error) => return telemetry::secrets_unavailable(&error),
        };
        let keys = LinkKeys::new(&link.signing_key, link.previous_signing_key.as_ref());
        let quarantined: Vec<Quarantined> = parsed
            .quarantined
            .into_iter()
            .map(|one| Quarantined {
                source: "messenger",
                reason: one.reason,
                raw: one.raw,
            })
            .collect();
        let quarantined = self.outbox.quarantine(&quarantined);
        let ingested = ingest::events(&self.contacts, parsed.events, &keys, &self.settings);
        match futures_util::try_join!(quarantined, ingested) {
            Ok(_) => answer::text("EVENT_RECEIVED"),
            Err(error) => {
                tracing::error!(%error, "a webhook could not be made durable");
                ErrorCode::StoreUnavailable.answer()
            }
        }
    }
}
