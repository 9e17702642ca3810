//! Keeps contacts' Braze profiles up to date.
//!
//! All of a contact's items are settled together from its current state and under a lease, so that two syncs of
//! one person never race at Braze, which keeps no order between requests.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::{self, StreamExt};
use jiff::Timestamp;
use serde_json::{Map, Value};
use shared::clients::braze::{
    AliasToIdentify, Braze, BrazeError, MAX_IDENTIFY, ObjectError, TIMEOUT, UserAlias, track,
};
use shared::config::ContactSettings;
use shared::messenger::sync::{self, Identify, SyncPlan};
use shared::outbox::Kind;
use shared::outbox::dispatch::{Outcome, Worker};
use shared::store::contacts::{Claim, Contacts, Leased};
use shared::store::outbox::{Entry, Outbox};
use tokio::time::Instant;

/// How long a contact is ours. No request to Braze begins so late that it could outlive this, with half a
/// minute left for the table.
const LEASE: Duration = Duration::from_mins(2);

/// When the last request may begin, counted from the claim.
const LAST_START: Duration = LEASE
    .saturating_sub(TIMEOUT)
    .saturating_sub(Duration::from_secs(30));

/// Calls to DynamoDB under way at once.
const CONCURRENCY: usize = 32;

/// `/users/identify` requests under way at once; its limit is shared with other endpoints.
const IDENTIFY_CONCURRENCY: usize = 4;

/// Settles [`Kind::ContactSync`] and [`Kind::ContactEvent`].
#[derive(Debug)]
pub struct ContactWorker {
    contacts: Contacts,
    outbox: Outbox,
    braze: Braze,
    settings: ContactSettings,
}

/// One contact and its items.
struct Job {
    positions: Vec<usize>,
    leased: Box<Leased>,
    plan: SyncPlan,
    user: track::User,
}

impl ContactWorker {
    /// A worker.
    #[must_use]
    pub fn new(contacts: Contacts, outbox: Outbox, braze: Braze, settings: ContactSettings) -> Self {
        Self {
            contacts,
            outbox,
            braze,
            settings,
        }
    }

    /// Takes a contact and says what Braze has to be told, or what became of its items already.
    async fn prepare(
        &self,
        entries: &[Entry],
        subject: String,
        positions: Vec<usize>,
    ) -> (Option<Job>, Vec<(usize, Outcome)>) {
        let all = |outcome: Outcome| {
            (
                None,
                positions
                    .iter()
                    .map(|position| (*position, outcome.clone()))
                    .collect(),
            )
        };
        let leased = match self.contacts.claim(&subject, LEASE).await {
            Ok(Claim::Leased(leased)) => leased,
            Ok(Claim::Busy) => return all(Outcome::Busy),
            // Nobody is left to tell Braze about.
            Ok(Claim::Missing) => return all(Outcome::Done),
            Err(error) => return all(Outcome::from(&error)),
        };
        let plan = sync::plan(&leased.contact, &leased.synced, &self.settings);
        let mut user = track::User {
            attributes: plan.attributes.clone(),
            events: Vec::new(),
        };
        let target = sync::event_target(&leased.contact, &plan.after);
        let (mut kept, mut outcomes) = (Vec::new(), Vec::new());
        for position in positions {
            let Some(entry) = entries.get(position) else {
                continue;
            };
            if entry.kind == Kind::ContactEvent {
                // Events are not idempotent: somebody may have settled this one since we read it.
                match self.outbox.claim(entry, LEASE).await {
                    Ok(Some(_)) => {}
                    Ok(None) => {
                        outcomes.push((position, Outcome::Busy));
                        continue;
                    }
                    Err(error) => {
                        outcomes.push((position, Outcome::from(&error)));
                        continue;
                    }
                }
                if let Some(target) = &target {
                    user.events.push(event(entry.payload(), target));
                }
            }
            kept.push(position);
        }
        (
            Some(Job {
                positions: kept,
                leased,
                plan,
                user,
            }),
            outcomes,
        )
    }

    /// Makes alias-only profiles known users; the result has one entry a job.
    async fn identify(&self, jobs: &[Job], last_start: Instant) -> Vec<Result<(), BrazeError>> {
        let mut fates: Vec<Result<(), BrazeError>> = jobs.iter().map(|_| Ok(())).collect();
        let wanted: Vec<(usize, AliasToIdentify)> = jobs
            .iter()
            .enumerate()
            .filter_map(|(job, Job { plan, .. })| Some((job, alias(plan.identify.as_ref()?))))
            .collect();
        let stop: OnceLock<BrazeError> = OnceLock::new();
        let stop = &stop;
        let answers = stream::iter(wanted.chunks(MAX_IDENTIFY).map(<[_]>::to_vec).collect::<Vec<_>>())
            .map(|chunk| async move {
                if Instant::now() > last_start {
                    stop.get_or_init(|| BrazeError::Transient {
                        reason: "out_of_time".into(),
                        wait: None,
                    });
                }
                if let Some(error) = stop.get() {
                    return (chunk, Err(error.clone()));
                }
                let aliases: Vec<AliasToIdentify> = chunk.iter().map(|(_, alias)| alias.clone()).collect();
                let answer = self.braze.identify(&aliases).await;
                if let Err(error) = &answer
                    && error.is_outage()
                {
                    stop.get_or_init(|| error.clone());
                }
                (chunk, answer)
            })
            .buffer_unordered(IDENTIFY_CONCURRENCY)
            .collect::<Vec<_>>()
            .await;
        for (chunk, answer) in answers {
            let (failed, error) = match answer {
                Ok(taken) => (named(&chunk, &taken.errors), rejected(&taken.errors)),
                Err(BrazeError::Rejected { reason, errors }) if !errors.is_empty() => {
                    // The others were not taken either, and are tried again without these.
                    for (job, _) in &chunk {
                        set(
                            &mut fates,
                            *job,
                            BrazeError::Transient {
                                reason: reason.clone(),
                                wait: None,
                            },
                        );
                    }
                    (named(&chunk, &errors), rejected(&errors))
                }
                Err(error) => (chunk.iter().map(|(job, _)| *job).collect(), error),
            };
            for job in failed {
                set(&mut fates, job, error.clone());
            }
        }
        fates
    }

    async fn finish(&self, job: Job, fate: Result<(), BrazeError>) -> Vec<(usize, Outcome)> {
        let changed = (job.plan.after != job.leased.synced).then_some(&job.plan.after);
        let outcome = match &fate {
            Ok(()) => match self.contacts.release(&job.leased, changed).await {
                Ok(true) => Outcome::Done,
                Ok(false) => Outcome::retry("lease_lost"),
                Err(error) => Outcome::from(&error),
            },
            Err(error) => {
                if let Err(error) = self.contacts.release(&job.leased, None).await {
                    tracing::warn!(%error, "a contact's lease runs out by itself");
                }
                outcome(error)
            }
        };
        job.positions
            .into_iter()
            .map(|position| (position, outcome.clone()))
            .collect()
    }
}

#[async_trait]
impl Worker for ContactWorker {
    fn kinds(&self) -> &'static [Kind] {
        &[Kind::ContactSync, Kind::ContactEvent]
    }

    async fn work(&self, entries: &[Entry], until: Timestamp) -> Vec<Outcome> {
        let left = Duration::try_from(until.duration_since(self.contacts.now())).unwrap_or_default();
        let last_start = Instant::now() + LAST_START.min(left.saturating_sub(TIMEOUT));
        let mut subjects: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (position, entry) in entries.iter().enumerate() {
            subjects.entry(entry.subject.clone()).or_default().push(position);
        }
        let prepared = stream::iter(subjects)
            .map(|(subject, positions)| self.prepare(entries, subject, positions))
            .buffer_unordered(CONCURRENCY)
            .collect::<Vec<_>>()
            .await;
        let mut outcomes: Vec<Outcome> = entries.iter().map(|_| Outcome::Busy).collect();
        let mut jobs = Vec::new();
        for (job, settled) in prepared {
            jobs.extend(job);
            put(&mut outcomes, settled);
        }

        let identified = self.identify(&jobs, last_start).await;
        // Who could not be identified must not get attributes either: they would make a second profile.
        let users: Vec<track::User> = jobs
            .iter()
            .zip(&identified)
            .map(|(job, fate)| {
                if fate.is_ok() {
                    job.user.clone()
                } else {
                    track::User::default()
                }
            })
            .collect();
        let tracked = track::send(&self.braze, &users, last_start).await;

        let finished = stream::iter(jobs.into_iter().zip(identified.into_iter().zip(tracked)))
            .map(|(job, (identified, tracked))| self.finish(job, identified.and(tracked)))
            .buffer_unordered(CONCURRENCY)
            .collect::<Vec<_>>()
            .await;
        put(&mut outcomes, finished.into_iter().flatten().collect());
        outcomes
    }
}

fn put(outcomes: &mut [Outcome], settled: Vec<(usize, Outcome)>) {
    for (position, outcome) in settled {
        if let Some(slot) = outcomes.get_mut(position) {
            *slot = outcome;
        }
    }
}

fn set(fates: &mut [Result<(), BrazeError>], job: usize, error: BrazeError) {
    if let Some(fate) = fates.get_mut(job) {
        *fate = Err(error);
    }
}

fn alias(identify: &Identify) -> AliasToIdentify {
    AliasToIdentify {
        external_id: identify.external_id.clone(),
        user_alias: UserAlias {
            alias_name: identify.alias_name.clone(),
            alias_label: identify.alias_label.clone(),
        },
    }
}

fn named(chunk: &[(usize, AliasToIdentify)], errors: &[ObjectError]) -> Vec<usize> {
    errors
        .iter()
        .filter_map(|error| chunk.get(error.index).map(|(job, _)| *job))
        .collect()
}

fn rejected(errors: &[ObjectError]) -> BrazeError {
    BrazeError::Rejected {
        reason: "braze_identify_rejected".to_owned(),
        errors: errors.to_vec(),
    }
}

/// The event object: what the item holds, for whom it is.
fn event(payload: Value, target: &Map<String, Value>) -> Value {
    let mut object = target.clone();
    if let Value::Object(fields) = payload {
        object.extend(fields);
    }
    Value::Object(object)
}

/// What a failed call means for the items it was about.
pub(crate) fn outcome(error: &BrazeError) -> Outcome {
    match error {
        BrazeError::Transient { reason, wait } => Outcome::Retry {
            reason: reason.clone(),
            wait: *wait,
        },
        BrazeError::Configuration { reason } => Outcome::Misconfigured {
            reason: reason.clone(),
            wait: None,
        },
        BrazeError::Rejected { reason, .. } => Outcome::Dead {
            reason: reason.clone(),
        },
        BrazeError::TooLarge => Outcome::Dead {
            reason: error.to_string(),
        },
    }
}
