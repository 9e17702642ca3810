//! From events to what is stored. For each business: read what is known, decide, write the token to its secret,
//! commit; and start over after a conflict.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::stream::{self, StreamExt};
use shared::clock::Clock;
use shared::fbe::decide::decide;
use shared::fbe::event::{BusinessIntegrationEvent, InstallEvent, Stamp};
use shared::fbe::install::Install;
use shared::fbe::manager::TokenState;
use shared::fbe::plan::{Outcome, Plan, SecretChange, reconcile_manager_item};
use shared::fbe::secrets::{BusinessSecrets, Expected};
use shared::fbe::settings::Configured;
use shared::fbe::table::Installs;
use shared::outbox::OutboxItem;
use shared::secrets::SecretError;
use shared::store::{Rounds, StoreError};
use shared::telemetry;

/// Why an event is decided anew no longer because the install changed in between.
const CONTENDED: &str = "a business is written too often to keep up with";

/// Businesses that are worked on at once.
const CONCURRENCY: usize = 16;

/// Why something is not durable.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Whether all events were taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ingested {
    All,
    /// All but those of businesses whose record this version cannot read: a newer one has written it.
    AllButUnreadable,
}

#[derive(Debug)]
pub(crate) struct Ingest {
    pub(crate) installs: Installs,
    pub(crate) secrets: BusinessSecrets,
    pub(crate) configured: Configured,
    pub(crate) clock: Clock,
}

impl Ingest {
    /// Makes everything durable. All businesses are tried, also after a failure, which is returned
    /// afterwards, and Meta's redelivery finds the others done.
    pub(crate) async fn all(
        &self,
        changes: Vec<InstallEvent>,
        integrations: Vec<BusinessIntegrationEvent>,
    ) -> Result<Ingested, Failure> {
        let mut businesses: BTreeMap<String, Vec<InstallEvent>> = BTreeMap::new();
        for event in changes {
            businesses
                .entry(event.business_id.clone())
                .or_default()
                .push(event);
        }
        let mut managers: BTreeMap<String, Vec<BusinessIntegrationEvent>> = BTreeMap::new();
        for event in integrations {
            managers.entry(event.record_id()).or_default().push(event);
        }
        let businesses = stream::iter(businesses)
            .map(|(id, events)| self.business(id, events))
            .buffer_unordered(CONCURRENCY)
            .collect::<Vec<_>>();
        let managers = stream::iter(managers)
            .map(|(id, events)| self.business_manager(id, events))
            .buffer_unordered(CONCURRENCY)
            .collect::<Vec<_>>();
        let (businesses, managers) = futures_util::join!(businesses, managers);
        let mut ingested = Ingested::All;
        for ended in businesses.into_iter().chain(managers) {
            match ended {
                // What cannot be read is left alone, and its events with it.
                Err(Failure::Store(error)) if error.is_unreadable() => {
                    error.count_unreadable("install");
                    ingested = Ingested::AllButUnreadable;
                }
                ended => ended?,
            }
        }
        Ok(ingested)
    }

    /// The events of one business, one after the other.
    async fn business(&self, id: String, events: Vec<InstallEvent>) -> Result<(), Failure> {
        let mut stored = self.read(&id).await?;
        for event in &events {
            let mut rounds = Rounds::new(CONTENDED);
            loop {
                let plan = decide(stored.as_ref(), event, self.configured, self.clock.now());
                let manager = event.business_manager_id.as_deref();
                // The token first: a commit must never name one that is not there.
                let secrets = &self.secrets;
                if let Some(token) = displaced(stored.as_ref(), &plan) {
                    secrets.keep(&id, token).await?;
                }
                let written = match &plan.secret {
                    SecretChange::Put(content) if stored.is_none() => Some((content, Expected::Absent)),
                    SecretChange::Put(content) => Some((content, Expected::Present)),
                    SecretChange::RestoreAndPut(content) => Some((content, Expected::Deleted)),
                    SecretChange::PutClaim(content) => Some((content, Expected::Beside)),
                    SecretChange::None | SecretChange::DropClaim | SecretChange::ScheduleDelete => None,
                };
                if let Some((content, expected)) = written {
                    secrets.write(&id, content, manager, expected).await?;
                }
                if let Some(next) = plan.install {
                    if !self.installs.commit(&next, &plan.outbox, plan.wake).await? {
                        rounds.next().await?;
                        stored = self.read(&id).await?;
                        if self.is_late(&id, stored.as_ref(), &event.stamp).await? {
                            // With the token that was just written.
                            secrets.schedule_deletion(&id).await?;
                            break;
                        }
                        continue;
                    }
                    stored = Some(next);
                }
                match plan.secret {
                    SecretChange::ScheduleDelete => secrets.schedule_deletion(&id).await?,
                    SecretChange::DropClaim => secrets.drop_claim(&id, manager, event.stamp.at).await?,
                    _ => {}
                }
                report(&id, plan.outcome);
                break;
            }
        }
        Ok(())
    }

    /// Business Integration events: recorded under their Business Manager, the only thing that they name. Its
    /// businesses are compared with Graph at once.
    async fn business_manager(
        &self,
        id: String,
        events: Vec<BusinessIntegrationEvent>,
    ) -> Result<(), Failure> {
        let mut stored = self.read(&id).await?;
        let mut rounds = Rounds::new(CONTENDED);
        let newest = events.iter().map(|event| &event.stamp).max();
        loop {
            let before = stored.unwrap_or_else(|| Install::unknown(&id));
            let mut next = before.clone();
            for event in &events {
                next.take_integration(event);
            }
            if next == before {
                return Ok(());
            }
            next.version += 1;
            // What has changed for its businesses, Graph says.
            let mut seen: BTreeSet<&Stamp> = before.integrations.iter().map(|known| &known.stamp).collect();
            let follow_ups: Vec<OutboxItem> = events
                .iter()
                .filter(|event| seen.insert(&event.stamp))
                .map(|event| reconcile_manager_item(&event.business_manager_id, &event.stamp))
                .collect();
            if self.installs.commit(&next, &follow_ups, false).await? {
                tracing::info!(events = events.len(), "business integration events were recorded");
                return Ok(());
            }
            rounds.next().await?;
            stored = self.read(&id).await?;
            if let Some(stamp) = newest
                && self.is_late(&id, stored.as_ref(), stamp).await?
            {
                return Ok(());
            }
        }
    }

    /// Whether an event was refused because what it is about was erased since, and has not come back.
    async fn is_late(&self, id: &str, stored: Option<&Install>, stamp: &Stamp) -> Result<bool, StoreError> {
        let is_late = stored.is_none() && self.installs.is_erased(id, stamp.at).await?;
        if is_late {
            let business = telemetry::pseudonym(id);
            tracing::info!(
                fbe.business = business,
                "an event from before an erasure is left out"
            );
        }
        Ok(is_late)
    }

    async fn read(&self, id: &str) -> Result<Option<Install>, StoreError> {
        Ok(self.installs.read(id).await?.map(|stored| stored.install))
    }
}

/// The token in force that becomes a claim's by the plan, and is about to lose its place as the secret's current version.
fn displaced<'a>(stored: Option<&'a Install>, plan: &Plan) -> Option<&'a TokenState> {
    let token = stored?.token.as_ref()?;
    let claims = plan.install.as_ref()?.claims();
    let mut kept = claims.iter().filter_map(|claim| claim.token.as_ref());
    kept.any(|kept| kept.version == token.version).then_some(token)
}

fn report(id: &str, outcome: Outcome) {
    let foreign = matches!(
        outcome,
        Outcome::UnknownUninstall | Outcome::ForeignBusinessManager
    );
    metrics::counter!(telemetry::FBE_FOREIGN_REMOVALS).increment(u64::from(foreign));
    let (business, outcome_name) = (telemetry::pseudonym(id), <&str>::from(outcome));
    if matches!(outcome, Outcome::Claimed | Outcome::OwnerChanged) {
        metrics::counter!(telemetry::FBE_MANAGER_CHANGES).increment(1);
        tracing::warn!(
            fbe.business = business,
            fbe.outcome = outcome_name,
            "more than one Business Manager has installed the app for a business; `bridge fbe show` names them"
        );
        return;
    }
    tracing::info!(
        fbe.business = business,
        fbe.outcome = outcome_name,
        "an install webhook was taken in"
    );
}
