//! What follows from an install: exchange the token, compare with Graph, notify the business, push its catalog.
//!
//! The items of one business are settled one after the other, in the order of their event keys and under a lease
//! on the business; each stands alone, so one that fails does not hold up the next. A crash anywhere leaves the
//! item pending, and every step can be done again: what it had finished already is found and not repeated.

mod access;
mod catalog;
pub mod compare;
mod configuration;
mod daily;
pub(crate) mod effect;
mod exchange;
mod line;
mod notify;
pub(crate) mod partner;
mod reconcile;
pub mod token;

pub(crate) use self::catalog::feed_items;

use std::time::Duration;

use crate::braze::Braze;
use crate::effect::{Group, Task};
use crate::settle::{Outcome, Outcomes, Settler, given_back};
use futures_util::stream::{self, StreamExt};
use jiff::{SignedDuration, Timestamp};
use shared::clients::graph::GraphClient;
use shared::clients::graph::GraphSettings;
use shared::clients::http;
use shared::clock::Clock;
use shared::config::Env;
use shared::fbe::install::Install;
use shared::fbe::plan::{Plan, business_of};
use shared::fbe::secrets::BusinessSecrets;
use shared::fbe::settings::{Configured, FbeSecretSettings, FbeSettings};
use shared::fbe::table::{Installs, Stored};
use shared::outbox::{Entry, Kind, Outbox, Reason};
use shared::secrets::{MetaSecret, Secret};
use shared::store::{Claim, Lease, Rounds, StoreError};
use shared::telemetry;
use tokio::sync::Semaphore;

use self::effect::FbeEffect;
use self::line::Line;

/// The function is stopped after two minutes; a minute later another one may go on.
const LEASE: Duration = Duration::from_mins(3);

/// Businesses that are worked for at once. Graph counts calls an hour, so more would only meet limits sooner.
const CONCURRENCY: usize = 8;

/// Batches of catalogs that are written out and sent at once. Next to the batch that each push gathers, this bounds
/// memory: 8 x 8 MiB and 2 x 8 MiB of the function's 256.
const BATCHES: usize = 2;

/// No call is begun with less than this left.
const MARGIN: SignedDuration = SignedDuration::from_secs(20);

/// Why something is decided anew no longer because the install changed in between.
const CONTENDED: &str = "a business is written too often to keep up with";

/// What the follow-ups read from the environment.
#[derive(Debug)]
pub(crate) struct FollowUpSettings {
    pub(crate) meta_secret_id: String,
    installs_table: String,
    secrets: FbeSecretSettings,
    pub(crate) graph: GraphSettings,
    partner_secret_id: String,
    effects: EffectSettings,
}

/// What the follow-ups do.
#[derive(Debug)]
struct EffectSettings {
    /// Where they lead to.
    fbe: FbeSettings,
    /// `FBE_SCOPES` for the token exchange, as a comma list.
    scopes: Vec<String>,
    /// `CATALOG_REFRESH_HOURS`: how often a catalog is pushed anew if its feed has changed; `None` = never.
    refresh: Option<SignedDuration>,
}

impl FollowUpSettings {
    pub(crate) fn read(env: &mut Env<'_>) -> Self {
        Self {
            meta_secret_id: env.required("META_SECRET_ID"),
            installs_table: env.required("INSTALLS_TABLE"),
            secrets: FbeSecretSettings::read(env),
            graph: GraphSettings::read(env),
            partner_secret_id: env.required("PARTNER_SECRET_ID"),
            effects: EffectSettings {
                fbe: FbeSettings::read(env),
                scopes: env.list("FBE_SCOPES", "manage_business_extension"),
                refresh: refresh_period(env),
            },
        }
    }
}

impl FollowUpSettings {
    /// The businesses and their secrets.
    pub(crate) fn businesses(
        &self,
        secrets: &aws_sdk_secretsmanager::Client,
        outbox: Outbox,
    ) -> (Installs, BusinessSecrets) {
        let installs = Installs::new(self.installs_table.clone(), outbox);
        let secrets = BusinessSecrets::new(secrets.clone(), self.secrets.clone());
        (installs, secrets)
    }
}

/// Settles what follows from an install, but for notices to the partner's platform.
pub(crate) struct FbeWorker {
    installs: Installs,
    outbox: Outbox,
    settler: Settler,
    secrets: BusinessSecrets,
    meta: Secret<MetaSecret>,
    graph: GraphClient,
    feeds: reqwest::Client,
    batches: Semaphore,
    braze: Braze,
    settings: EffectSettings,
    clock: Clock,
}

/// More is no refresh.
const LONGEST_REFRESH_HOURS: u32 = 720;

fn refresh_period(env: &mut Env<'_>) -> Option<SignedDuration> {
    let hours: u32 = env.parsed("CATALOG_REFRESH_HOURS", 24, "a number of hours");
    if hours > LONGEST_REFRESH_HOURS {
        env.problem(format!(
            "CATALOG_REFRESH_HOURS is {hours}, but expects at most {LONGEST_REFRESH_HOURS}"
        ));
    }
    (hours > 0).then(|| SignedDuration::from_hours(hours.into()))
}

impl FbeWorker {
    pub(crate) fn new(
        settings: FollowUpSettings,
        (graph, meta): (GraphClient, Secret<MetaSecret>),
        secrets: &aws_sdk_secretsmanager::Client,
        (outbox, settler): (Outbox, Settler),
        braze: Braze,
        clock: Clock,
    ) -> Self {
        let (installs, secrets) = settings.businesses(secrets, outbox.clone());
        Self {
            installs,
            secrets,
            meta,
            graph,
            feeds: http::client(LEASE),
            batches: Semaphore::new(BATCHES),
            outbox,
            settler,
            braze,
            settings: settings.effects,
            clock,
        }
    }

    /// Works for all businesses, and says of each item what became of it.
    pub(crate) async fn work(&self, groups: Vec<Group<FbeEffect>>, until: Timestamp, outcomes: &Outcomes) {
        stream::iter(groups)
            .map(|group| self.business(group, until))
            .buffer_unordered(CONCURRENCY)
            .for_each(async |settled| outcomes.tell_all(settled))
            .await;
    }

    /// All items of one business.
    async fn business(&self, mut group: Group<FbeEffect>, until: Timestamp) -> Vec<(Entry, Outcome)> {
        let Some(id) = business_of(&group.subject) else {
            return group.outcome(&Outcome::dead(Reason::NotABusiness));
        };
        let line = match self.line(&group.subject, &mut group.tasks).await {
            Ok(line) => line,
            Err(error) => return group.outcome(&error.into()),
        };
        let (stored, lease) = match self.installs.claim(id, LEASE).await {
            Ok(Claim::Leased(stored, lease)) => (stored, lease),
            Ok(Claim::Busy) => return group.outcome(&Outcome::Busy),
            // An item is committed together with its install, so it was erased, or removed by hand.
            Ok(Claim::Missing) => return group.outcome(&Outcome::Gone),
            Err(error) if error.is_unreadable() => {
                error.count_unreadable("install");
                return group.outcome(&Outcome::retry(Reason::UnreadableInstall));
            }
            Err(error) => return group.outcome(&error.into()),
        };
        let mut woken = false;
        if stored.wake {
            match self.outbox.wake(&group.subject, Reason::TokenInvalid).await {
                Ok(items) => {
                    woken = true;
                    tracing::info!(items, "a new token woke what waited for it");
                }
                Err(error) => tracing::warn!(%error, "what waits for a token is not woken yet"),
            }
        }
        let mut visit = Visit {
            worker: self,
            stored,
            lease,
            until,
            token_refused: false,
            line,
        };
        let mut outcomes = Vec::with_capacity(group.tasks.len());
        for Task { entry, effect } in group.tasks {
            let outcome = visit.work(&entry, effect).await;
            outcomes.push((entry, outcome));
        }
        // Before the lease ends: a new token wakes what waits for one then, and what is written later would be missed.
        for (entry, outcome) in &mut outcomes {
            if matches!(outcome, Outcome::Waiting { .. })
                && let Ok(settled) = self.settler.settle(entry, outcome.clone()).await
            {
                *outcome = Outcome::Settled(settled);
            }
        }
        given_back(self.installs.release(&visit.lease, woken).await, "business");
        outcomes
    }

    async fn line(&self, subject: &str, tasks: &mut Vec<Task<FbeEffect>>) -> Result<Line, StoreError> {
        let is_notice = |task: &Task<FbeEffect>| matches!(task.effect, FbeEffect::Notify(_));
        if !tasks.iter().any(is_notice) {
            return Ok(Line::default());
        }
        let read = |entry: &Entry| entry.payload().ok().map(FbeEffect::Notify);
        Line::join(&self.outbox, Kind::FbeNotify, subject, tasks, read).await
    }
}

/// One business under our lease.
struct Visit<'a> {
    worker: &'a FbeWorker,
    /// As we last read or wrote it.
    stored: Stored,
    lease: Lease,
    until: Timestamp,
    /// Graph has refused the token in this visit: it is not tried again.
    token_refused: bool,
    /// The notices of this visit, and those before them.
    line: Line,
}

impl Visit<'_> {
    async fn work(&mut self, entry: &Entry, effect: FbeEffect) -> Outcome {
        if self.is_late() {
            return Outcome::Busy;
        }
        let result = match effect {
            FbeEffect::ExchangeToken(payload) => {
                let exchanged = self.exchange(payload).await;
                exchanged.map_err(|outcome| exchange::once_more(entry, outcome))
            }
            FbeEffect::Reconcile => self.reconcile().await,
            FbeEffect::ReconcileManager => self.reconcile_manager(entry).await,
            FbeEffect::Notify(notice) => self.notify(entry, &notice).await,
            FbeEffect::PushCatalog(push) => self.push(entry, push).await,
        };
        result.map_or_else(|outcome| outcome, |()| Outcome::Done)
    }

    fn id(&self) -> &str {
        &self.stored.install.business_id
    }

    /// The business's stand-in for logs.
    fn pseudonym(&self) -> String {
        telemetry::pseudonym(self.id())
    }

    fn now(&self) -> Timestamp {
        self.worker.clock.now()
    }

    fn is_late(&self) -> bool {
        self.now() + MARGIN > self.until
    }

    /// Commits what was decided. `false`: another writer was faster, and the install was read again.
    async fn commit(&mut self, plan: Plan) -> Result<bool, Outcome> {
        let Some(next) = plan.install else {
            return Ok(true);
        };
        let installs = &self.worker.installs;
        if installs.commit(&next, &plan.outbox, plan.wake).await? {
            self.stored.install = next;
            return Ok(true);
        }
        self.read_again().await?;
        Ok(false)
    }

    /// Commits what `decide` plans for the install as it stands, however often it changes meanwhile. `false`: there was
    /// nothing to plan.
    async fn decide(
        &mut self,
        decide: impl Fn(&Install, Configured, Timestamp) -> Option<Plan>,
    ) -> Result<bool, Outcome> {
        let (mut rounds, configured) = (Rounds::new(CONTENDED), self.worker.settings.fbe.configured());
        while let Some(plan) = decide(&self.stored.install, configured, self.now()) {
            if self.commit(plan).await? {
                return Ok(true);
            }
            rounds.next().await.map_err(|error| contended(&error))?;
        }
        Ok(false)
    }

    async fn read_again(&mut self) -> Result<(), Outcome> {
        match self.worker.installs.read(self.id()).await? {
            Some(stored) => self.stored.install = stored.install,
            // Removed by hand: nothing is left to do.
            None => return Err(Outcome::Done),
        }
        Ok(())
    }

    /// A secret of a business that is not installed has no business being there.
    async fn delete_secret(&self) -> Result<(), Outcome> {
        Ok(self.worker.secrets.schedule_deletion(self.id()).await?)
    }
}

fn contended(error: &StoreError) -> Outcome {
    tracing::warn!(%error, "an outbox item is tried again later");
    Outcome::retry(Reason::InstallContended)
}
