//! Notifies the partner's platform of what the business is notified of: a signed POST to `PARTNER_WEBHOOK_URL`.
//!
//! A worker of its own: the platform may take its time, and nothing else of a business waits for it. Its notices leave
//! in the order of the changes, business by business.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use jiff::{SignedDuration, Timestamp};
use reqwest::header::CONTENT_TYPE;
use serde::Serialize;
use shared::clients::http;
use shared::clock::Clock;
use shared::digest::Digest;
use shared::fbe::plan::PartnerNotice;
use shared::fbe::view::InstallView;
use shared::outbox::{Entry, Kind, Outbox, Reason};
use shared::secrets::{PartnerSecret, Secret};
use shared::webhook::standard;

use super::FollowUpSettings;
use super::line::Line;
use crate::braze::rate_limit::wait;
use crate::effect::{Group, Task};
use crate::settle::{Outcome, Outcomes, claim};

/// How long the platform has for its answer.
const TIMEOUT: Duration = Duration::from_secs(25);
/// A claim outlasts the call.
const LEASE: Duration = Duration::from_mins(1);
/// No call is begun with less than this left.
const MARGIN: SignedDuration = SignedDuration::from_secs(28);
/// Businesses whose notices are sent at once.
const CONCURRENCY: usize = 8;
/// After so many failures in a row the platform is left alone until the next run.
const MAX_FAILURES: usize = CONCURRENCY;

/// Sends notices to the partner's platform.
pub(crate) struct PartnerWorker {
    /// Where the platform listens; `None`: there is none, and what was planned for it is dropped.
    url: Option<String>,
    secret: Secret<PartnerSecret>,
    client: reqwest::Client,
    outbox: Outbox,
    clock: Clock,
}

/// The body that is posted.
#[derive(Serialize)]
struct Body<'a> {
    r#type: &'static str,
    timestamp: Timestamp,
    data: &'a InstallView,
}

impl PartnerWorker {
    pub(crate) fn new(
        settings: &FollowUpSettings,
        secrets: &aws_sdk_secretsmanager::Client,
        outbox: Outbox,
        clock: Clock,
    ) -> Self {
        Self {
            url: settings.effects.fbe.partner_webhook_url.clone(),
            secret: Secret::new(secrets.clone(), &settings.partner_secret_id, clock.clone()),
            client: http::client(TIMEOUT),
            outbox,
            clock,
        }
    }

    /// Sends notices, and tells of each what became of it.
    pub(crate) async fn work(
        &self,
        groups: Vec<Group<PartnerNotice>>,
        until: Timestamp,
        outcomes: &Outcomes,
    ) {
        let failures = &AtomicUsize::new(0);
        stream::iter(groups)
            .for_each_concurrent(CONCURRENCY, |group| {
                self.business(group, failures, until, outcomes)
            })
            .await;
    }

    /// The notices of one business, oldest first. One that does not arrive holds up those after it.
    async fn business(
        &self,
        mut group: Group<PartnerNotice>,
        failures: &AtomicUsize,
        until: Timestamp,
        outcomes: &Outcomes,
    ) {
        let Some(url) = &self.url else {
            return outcomes.tell_all(group.outcome(&Outcome::Done));
        };
        let read = |entry: &Entry| entry.payload().ok();
        let line = Line::join(
            &self.outbox,
            Kind::FbePartnerNotify,
            &group.subject,
            &mut group.tasks,
            read,
        );
        let mut line = match line.await {
            Ok(line) => line,
            Err(error) => return outcomes.tell_all(group.outcome(&error.into())),
        };
        for Task { entry, effect } in group.tasks {
            let is_late = self.clock.now() + MARGIN > until;
            let outcome = if is_late || failures.load(Ordering::Relaxed) >= MAX_FAILURES {
                Outcome::Busy
            } else {
                let result = self.notice(url, &entry, &effect, &line).await;
                match result.as_ref().err() {
                    None => {
                        failures.store(0, Ordering::Relaxed);
                        line.left(&entry);
                    }
                    Some(Outcome::Retry { .. } | Outcome::Misconfigured { .. }) => {
                        failures.fetch_add(1, Ordering::Relaxed);
                    }
                    Some(_) => {}
                }
                result.map_or_else(|outcome| outcome, |()| Outcome::Done)
            };
            outcomes.tell(entry, outcome);
        }
    }

    async fn notice(
        &self,
        url: &str,
        entry: &Entry,
        notice: &PartnerNotice,
        line: &Line,
    ) -> Result<(), Outcome> {
        line.turn_of(entry, self.clock.now())?;
        claim(&self.outbox, entry, LEASE).await?;
        self.post(url, entry, notice).await
    }

    async fn post(&self, url: &str, entry: &Entry, notice: &PartnerNotice) -> Result<(), Outcome> {
        let secret = self.secret.get().await?;
        let body = Body {
            r#type: "fbe.install.updated",
            timestamp: notice.at,
            data: &notice.data,
        };
        let body = serde_json::to_vec(&body).unwrap_or_default();
        // A repetition carries the same id.
        let id = format!(
            "msg_{}",
            Digest::of_parts(["partner", &entry.subject, &entry.event_key]).short()
        );
        let signed = standard::sign(&secret.signing_secret, &id, self.clock.now(), &body);
        let headers = signed.map_err(|error| {
            tracing::error!(%error, "the partner secret cannot sign");
            Outcome::misconfigured(Reason::PartnerSecretUnusable)
        })?;
        let mut request = self.client.post(url).header(CONTENT_TYPE, "application/json");
        for (name, value) in headers {
            request = request.header(name, value);
        }
        // No error is shown: it would quote the URL, which may hold a credential.
        let response = request.body(body).send().await;
        let response = response.map_err(|_| Outcome::retry(Reason::PartnerUnreachable))?;
        let status = response.status();
        let reason = format!("partner_status_{}", status.as_u16());
        match status.as_u16() {
            200..=299 => Ok(()),
            408 | 429 | 500..=599 => Err(Outcome::Retry {
                reason,
                wait: wait(status, response.headers(), self.clock.now()),
            }),
            // A redirect is not followed: the new address belongs into the setting.
            _ => Err(Outcome::misconfigured(reason)),
        }
    }
}
