//! `GET /fbe/webhook`: Meta's handshake. `POST /fbe/webhook`: businesses install, change and remove the app.
//! `GET /fbe/installs`: what the partner's platform may read of them.

mod ingest;
mod installs;

use http::Method;
use lambda_http::Request;
use shared::clock::Clock;
use shared::config::Env;
use shared::fbe::payload;
use shared::fbe::secrets::BusinessSecrets;
use shared::fbe::settings::{FbeSecretSettings, FbeSettings};
use shared::fbe::table::Installs;
use shared::outbox::{Outbox, Reason};
use shared::secrets::{MetaSecret, PartnerSecret, Secret};
use shared::webhook::{Answer, ErrorCode, answer, handshake, meta, secrets_unavailable};

use self::ingest::{Failure, Ingest, Ingested};

/// What the function reads from its environment.
#[derive(Debug)]
pub struct Settings {
    meta_secret_id: String,
    partner_secret_id: String,
    installs_table: String,
    outbox_table: String,
    secrets: FbeSecretSettings,
    fbe: FbeSettings,
}

impl Settings {
    /// Reads the environment.
    pub fn read(env: &mut Env<'_>) -> Self {
        Self {
            meta_secret_id: env.required("META_SECRET_ID"),
            partner_secret_id: env.required("PARTNER_SECRET_ID"),
            installs_table: env.required("INSTALLS_TABLE"),
            outbox_table: env.required("OUTBOX_TABLE"),
            secrets: FbeSecretSettings::read(env),
            fbe: FbeSettings::read(env),
        }
    }
}

/// The function.
#[derive(Debug)]
pub struct App {
    meta: Secret<MetaSecret>,
    partner: Secret<PartnerSecret>,
    ingest: Ingest,
    outbox: Outbox,
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
        let installs = Installs::new(settings.installs_table, outbox.clone());
        Self {
            meta: Secret::new(secrets.clone(), &settings.meta_secret_id, clock.clone()),
            partner: Secret::new(secrets.clone(), &settings.partner_secret_id, clock.clone()),
            ingest: Ingest {
                installs,
                secrets: BusinessSecrets::new(secrets.clone(), settings.secrets),
                configured: settings.fbe.configured(),
                clock: clock.clone(),
            },
            outbox,
            clock,
        }
    }

    /// On `/fbe/webhook`: the handshake, or 200 `EVENT_RECEIVED` once everything that has to be kept is durable; 401,
    /// 413 or 503. On `/fbe/installs`: see [`installs`]. 405 on either.
    pub async fn handle(&self, request: Request) -> Answer {
        match (request.method(), installs::asked(&request)) {
            (&Method::GET, Some(asked)) => self.installs(&request, &asked).await,
            (&Method::GET, None) => {
                handshake::answer(&request, &self.meta, |meta| meta.fbe_verify_token()).await
            }
            (&Method::POST, None) => self.receive(request).await,
            _ => ErrorCode::MethodNotAllowed.answer(),
        }
    }

    async fn receive(&self, request: Request) -> Answer {
        let verified = match meta::accept(request, &self.meta, MetaSecret::fbe_app_secrets).await {
            Ok(verified) => verified,
            Err(answer) => return answer,
        };
        let parsed = payload::parse(&verified, self.clock.now());
        // The dashboard's test button is expected, and no reason for an alarm.
        let (samples, quarantined): (Vec<_>, Vec<_>) = parsed
            .quarantined
            .into_iter()
            .partition(|one| one.reason == Reason::Sample);
        if !samples.is_empty() {
            tracing::info!(samples = samples.len(), "the app dashboard sent its sample");
        }
        // All of it is tried: what one business fails with must not cost the others.
        let (quarantined, ingested) = futures_util::join!(
            self.outbox.quarantine(&quarantined),
            self.ingest.all(parsed.changes, parsed.integrations),
        );
        let made_durable = async {
            quarantined?;
            if ingested? == Ingested::AllButUnreadable {
                let whole = payload::whole(&verified, Reason::UnreadableInstall);
                self.outbox.quarantine(&[whole]).await?;
            }
            Ok::<_, Failure>(())
        };
        match made_durable.await {
            Ok(()) => answer::text("EVENT_RECEIVED"),
            Err(Failure::Secret(error)) => secrets_unavailable(&error),
            Err(Failure::Store(error)) => {
                tracing::error!(%error, "a webhook could not be made durable");
                ErrorCode::StoreUnavailable.answer()
            }
        }
    }
}
