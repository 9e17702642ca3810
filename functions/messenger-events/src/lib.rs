//! `POST /messenger/webhook`: what happened on Messenger and Instagram.

mod echo;
mod ingest;

use lambda_http::Request;
use shared::clock::Clock;
use shared::config::Env;
use shared::messenger::event::Event;
use shared::messenger::link::LinkKeys;
use shared::messenger::payload;
use shared::messenger::proof;
use shared::messenger::settings::MessengerSettings;
use shared::messenger::table::Contacts;
use shared::outbox::{Outbox, Quarantined, Reason};
use shared::secrets::{LinkSecret, MetaSecret, Secret, SecretError};
use shared::store::StoreError;
use shared::telemetry;
use shared::webhook::{Answer, ErrorCode, answer, meta, secrets_unavailable};

use self::ingest::Ingested;

/// What the function reads from its environment.
#[derive(Debug)]
pub struct Settings {
    meta_secret_id: String,
    link_secret_id: String,
    contacts_table: String,
    outbox_table: String,
    contacts: MessengerSettings,
}

impl Settings {
    /// Reads the environment.
    pub fn read(env: &mut Env<'_>) -> Self {
        Self {
            meta_secret_id: env.required("META_SECRET_ID"),
            link_secret_id: env.required("LINK_SECRET_ID"),
            contacts_table: env.required("CONTACTS_TABLE"),
            outbox_table: env.required("OUTBOX_TABLE"),
            contacts: MessengerSettings::read(env),
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
    settings: MessengerSettings,
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
        let contacts = Contacts::new(settings.contacts_table, outbox.clone());
        Self {
            meta: Secret::new(secrets.clone(), &settings.meta_secret_id, clock.clone()),
            link: Secret::new(secrets.clone(), &settings.link_secret_id, clock.clone()),
            contacts,
            outbox,
            settings: settings.contacts,
            clock,
        }
    }

    /// Fetches what every request needs, and connects to DynamoDB, at once. To be called before the first request comes;
    /// what fails here, the request finds out by itself.
    pub async fn warm_up(&self) {
        let (secret, connection) = futures_util::join!(self.meta.get(), self.contacts.connect());
        if let Err(error) = secret {
            tracing::warn!(%error, "the meta secret is not there yet");
        }
        if let Err(error) = connection {
            tracing::warn!(%error, "DynamoDB is not there yet");
        }
    }

    /// 200 `EVENT_RECEIVED` once everything that has to be kept is durable; 401, 413 or 503.
    pub async fn handle(&self, request: Request) -> Answer {
        let verified = match meta::accept(request, &self.meta, MetaSecret::messenger_app_secrets).await {
            Ok(verified) => verified,
            Err(answer) => return answer,
        };
        let parsed = payload::parse(&verified, self.clock.now());
        if parsed.dashboard_tests > 0 {
            metrics::counter!(telemetry::DASHBOARD_TESTS).increment(parsed.dashboard_tests as u64);
            tracing::info!(
                tests = parsed.dashboard_tests,
                "the app dashboard sent samples; they leave nothing behind"
            );
        }
        let keys = match self.link_keys(&parsed.events).await {
            Ok(keys) => keys,
            Err(error) => return secrets_unavailable(&error),
        };
        let quarantined = self.outbox.quarantine(&parsed.quarantined);
        let echoes = echo::settle(&self.outbox, echo::own_messages(&parsed.events));
        let ingested = ingest::events(&self.contacts, parsed.events, &keys, &self.settings);
        let durable = async {
            let ((), (), ingested) = futures_util::try_join!(quarantined, echoes, ingested)?;
            if ingested == Ingested::AllButUnreadable {
                // Whole: what the others did is known by then, and does no harm a second time.
                let whole = Quarantined {
                    source: "messenger",
                    // All items were understood.
                    reason: Reason::UnreadableContact,
                    raw: verified.body().clone().into(),
                };
                self.outbox.quarantine(&[whole]).await?;
            }
            Ok::<_, StoreError>(())
        };
        match Box::pin(durable).await {
            Ok(()) => answer::text("EVENT_RECEIVED"),
            Err(error) => {
                tracing::error!(%error, "a webhook could not be made durable");
                ErrorCode::StoreUnavailable.answer()
            }
        }
    }

    /// The keys that judge the tokens of `events`, if there are any: fetched once more if they did not sign one, for they
    /// may have been rotated. Without them no token can be judged, and a person who proved who they are would stay
    /// unknown.
    async fn link_keys(&self, events: &[Event]) -> Result<LinkKeys, SecretError> {
        if !proof::carry_tokens(events) {
            return Ok(LinkKeys::none());
        }
        let of = |link: &LinkSecret| LinkKeys::new(&link.signing_key, link.previous_signing_key.as_ref());
        let keys = of(&*self.link.get().await?);
        if !proof::asks_for_newer_keys(events, &keys) {
            return Ok(keys);
        }
        let fresh = self.link.refresh().await?;
        Ok(fresh.map_or(keys, |link| of(&link)))
    }
}
