//! Keeps contacts' Braze profiles up to date.
//!
//! All of a contact's items are settled together from its current state and under a lease, so that two syncs of
//! one person never race at Braze, which keeps no order between requests.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use super::{MessengerEffect, add_others};
use crate::braze::{Braze, BrazeError, Fate, Objects, TIMEOUT, bulk};
use crate::effect::{Group, Task};
use crate::settle::{Outcome, Outcomes, Settled, given_back};
use futures_util::stream::{self, StreamExt};
use jiff::Timestamp;
use serde_json::Value;
use shared::messenger::contact::Contact;
use shared::messenger::key::ContactKey;
use shared::messenger::settings::MessengerSettings;
use shared::messenger::sync::{self, Identify, Others, Stored, SyncPlan, Synced};
use shared::messenger::table::Contacts;
use shared::outbox::{Entry, Outbox, Reason, Status};
use shared::store::{Claim, Lease, Released};
use tokio::time::Instant;

/// How long a contact is ours. No request to Braze begins so late that it could outlive this, with half a
/// minute left for the table.
const LEASE: Duration = Duration::from_mins(2);

/// When the last request may begin, counted from the claim.
const LAST_START: Duration = LEASE
    .saturating_sub(TIMEOUT)
    .saturating_sub(Duration::from_secs(30));

/// What it takes to write down what became of the last request.
const SETTLING: Duration = Duration::from_secs(5);

/// Items whose contacts are claimed at once: as many as fill the requests to Braze that are under way at once, 75 in one.
/// Were they more, a process that dies would leave more contacts claimed, and have settled less.
const TOGETHER: usize = 600;

/// Of these, so many of one contact. With the contact's attributes they fit into one request.
const OF_ONE_CONTACT: usize = 70;

/// Calls to DynamoDB under way at once.
const CONCURRENCY: usize = 32;

/// Settles the items of contacts.
#[derive(Debug)]
pub(crate) struct ContactWorker {
    pub(crate) contacts: Contacts,
    pub(crate) outbox: Outbox,
    pub(crate) braze: Braze,
    pub(crate) settings: MessengerSettings,
}

/// One contact and its items.
struct Job {
    stored: Stored,
    lease: Lease,
    /// What the plan was made from.
    synced: Synced,
    /// The users whom the plan moves it to or from.
    users: Vec<User>,
    plan: SyncPlan,
    user: Objects,
    /// Items that are settled as the profile is.
    with_profile: Vec<Entry>,
    /// Items of the user's events, in their order.
    events: Vec<Entry>,
}

/// A user whose profile the contact is moved to or from, under our lease.
struct User {
    id: String,
    lease: Lease,
    /// The contacts that may ever have been moved there.
    contacts: Vec<ContactKey>,
}

impl ContactWorker {
    /// Claims a contact and plans its requests to Braze; or gives the outcome of items that need none.
    async fn prepare(&self, group: Group<MessengerEffect>) -> (Option<Job>, Vec<(Entry, Outcome)>) {
        let (stored, lease) = match self.contacts.claim(&group.subject, LEASE).await {
            Ok(Claim::Leased(stored, lease)) => (stored, lease),
            Ok(Claim::Busy) => return (None, group.outcome(&Outcome::Busy)),
            Ok(Claim::Missing) => return (None, missing(group)),
            Err(error) => return (None, group.outcome(&error.into())),
        };
        let synced = if lease.interrupted() {
            stored.synced.interrupted(&stored.contact, &self.settings)
        } else {
            stored.synced.clone()
        };
        let mut users = Vec::new();
        let prepared = async {
            let pending = self.pending_events(&group).await?;
            let plan = self.plan(&stored.contact, &lease, &synced, &mut users).await?;
            Ok((pending, plan))
        };
        let (pending, plan) = match prepared.await {
            Ok(prepared) => prepared,
            Err(outcome) => {
                self.release_users(&users).await;
                self.release(&lease, &stored.synced, &synced).await;
                return (None, group.outcome(&outcome));
            }
        };
        let mut user = Objects {
            attributes: plan.attributes.clone(),
            ..Objects::default()
        };
        let target = sync::event_target(&stored.contact, &plan.after);
        let (mut with_profile, mut events, mut outcomes) = (Vec::new(), Vec::new(), Vec::new());
        for Task { entry, effect } in group.tasks {
            let (MessengerEffect::Event(event), Some(target)) = (effect, &target) else {
                with_profile.push(entry);
                continue;
            };
            if !pending.contains(&entry.event_key) {
                outcomes.push((entry, Outcome::Busy));
                continue;
            }
            // For whom it is, and what the item holds.
            let object = target.clone().into_iter().chain(event).collect();
            user.events.push(Value::Object(object));
            events.push(entry);
        }
        let job = Job {
            stored,
            lease,
            synced,
            users,
            plan,
            user,
            with_profile,
            events,
        };
        (Some(job), outcomes)
    }

    /// The keys of events that are pending still. Events are not idempotent, and another run may have settled some since
    /// they were read: it has done so before it let go of the contact, which is ours now.
    async fn pending_events(&self, group: &Group<MessengerEffect>) -> Result<HashSet<String>, Outcome> {
        let events = group.tasks.iter();
        let events = events.filter(|task| matches!(task.effect, MessengerEffect::Event(_)));
        let keys: Vec<String> = events.map(|task| task.entry.event_key.clone()).collect();
        let mut entries = self.outbox.get_all(&group.subject, &keys).await?;
        entries.retain(|entry| entry.status == Status::Pending);
        Ok(entries.into_iter().map(|entry| entry.event_key).collect())
    }

    /// Claims the users whom the contact moves to or from, and plans the requests to Braze. A move is stored before it
    /// is made.
    async fn plan(
        &self,
        contact: &Contact,
        lease: &Lease,
        synced: &Synced,
        users: &mut Vec<User>,
    ) -> Result<SyncPlan, Outcome> {
        let key = &contact.key;
        for (user_id, enters) in sync::users_at_stake(contact, synced) {
            self.claim_user(user_id, enters.then_some(key), users).await?;
        }
        let others = self.others(key, users).await?;
        let mut plan = sync::plan(contact, synced, &others, &self.settings);
        if let Some(user_id) = sync::stands_on(contact, synced).filter(|_| !plan.is_empty())
            && self.stands_with_others(contact, user_id, users).await?
        {
            plan = sync::plan_whole(contact, synced, &self.settings);
        }
        let noted = !plan.enters(synced) || self.contacts.note(lease, &plan.before).await?;
        noted.then_some(plan).ok_or(Outcome::Busy)
    }

    /// Whether other contacts stand on the profile as well. Then the user is claimed, as for a move.
    async fn stands_with_others(
        &self,
        contact: &Contact,
        user_id: &str,
        users: &mut Vec<User>,
    ) -> Result<bool, Outcome> {
        let beside = self.contacts.on_user(user_id).await?;
        if beside.iter().all(|other| *other == contact.key) {
            return Ok(false);
        }
        self.claim_user(user_id.to_owned(), None, users).await?;
        Ok(self.others(&contact.key, users).await?.stand_on(user_id))
    }

    async fn claim_user(
        &self,
        id: String,
        entering: Option<&ContactKey>,
        users: &mut Vec<User>,
    ) -> Result<(), Outcome> {
        let Claim::Leased(contacts, lease) = self.contacts.claim_user(&id, entering, LEASE).await? else {
            return Err(Outcome::Busy);
        };
        users.push(User { id, lease, contacts });
        Ok(())
    }

    /// The other contacts that were ever moved to these users.
    async fn others(&self, key: &ContactKey, users: &[User]) -> Result<Others, Outcome> {
        let mut others = Others::default();
        for user in users {
            let mut keys = user.contacts.clone();
            keys.retain(|other| other != key);
            add_others(&mut others, &self.contacts, &user.id, keys).await?;
        }
        Ok(others)
    }

    /// Releases a partly synced contact.
    async fn release(&self, lease: &Lease, stored: &Synced, synced: &Synced) {
        let changed = (synced != stored).then_some(synced);
        given_back(self.contacts.release(lease, changed).await, "contact");
    }

    async fn release_users(&self, users: &[User]) {
        for user in users {
            given_back(self.contacts.release(&user.lease, None).await, "user");
        }
    }

    /// Makes alias-only profiles known users; the result has one entry a job.
    async fn identify(&self, jobs: &[Job], last_start: Instant) -> Vec<Result<(), BrazeError>> {
        let aliases: Vec<Identify> = jobs.iter().filter_map(|job| job.plan.identify.clone()).collect();
        let answers = bulk::identify(&self.braze, &aliases, last_start).await;
        let mut answers = answers.into_iter();
        let answer = |job: &Job| job.plan.identify.as_ref().and_then(|_| answers.next());
        jobs.iter()
            .map(answer)
            .map(|answer| answer.unwrap_or(Ok(())))
            .collect()
    }

    /// Writes down which events Braze has taken, before their contacts are let go. Gives the outcome of these.
    async fn settle_events(&self, jobs: &[Job], tracked: &[Fate]) -> Outcome {
        let fates = tracked.iter().map(|fate| &fate.events);
        let events = jobs.iter().map(|job| &job.events).zip(fates);
        let events = events.flat_map(|(events, fates)| events.iter().zip(fates));
        let taken = events
            .filter(|(_, fate)| fate.is_ok())
            .map(|(entry, _)| entry.clone());
        match self.outbox.done(&taken.collect::<Vec<_>>()).await {
            Ok(()) => Outcome::Settled(Settled::Done),
            // It is tried once more with the other items.
            Err(_) => Outcome::Done,
        }
    }

    async fn finish(
        &self,
        job: Job,
        fate: Fate,
        identified: bool,
        settled: &Outcome,
    ) -> Vec<(Entry, Outcome)> {
        let profile = match &fate.attributes {
            Ok(()) => {
                let changed = (job.plan.after != job.stored.synced).then_some(&job.plan.after);
                match self.contacts.release(&job.lease, changed).await {
                    Ok(Released::Yes) if job.plan.is_half() => Outcome::retry(Reason::ProfileMoves),
                    Ok(Released::Yes) => Outcome::Done,
                    Ok(Released::Refused | Released::Lost) => Outcome::retry(Reason::LeaseLost),
                    Err(error) => Outcome::from(error),
                }
            }
            Err(error) => {
                let noted = job.plan.enters(&job.synced);
                let stored = if noted {
                    &job.plan.before
                } else {
                    &job.stored.synced
                };
                let nothing_done = error.is_without_effect() && !identified;
                let left = if nothing_done {
                    &job.synced
                } else {
                    &job.plan.before
                };
                self.release(&job.lease, stored, left).await;
                error.into()
            }
        };
        // Not before: the next one to claim them reads this contact's state.
        self.release_users(&job.users).await;
        let with_profile = job.with_profile.into_iter();
        let mut outcomes: Vec<(Entry, Outcome)> =
            with_profile.map(|entry| (entry, profile.clone())).collect();
        // An event that Braze has taken is done, whatever became of the rest.
        for (entry, fate) in job.events.into_iter().zip(fate.events) {
            let outcome = fate.map_or_else(|error| Outcome::from(&error), |()| settled.clone());
            outcomes.push((entry, outcome));
        }
        outcomes
    }

    /// Syncs all contacts, and tells of each item what became of it.
    pub(crate) async fn work(
        &self,
        groups: Vec<Group<MessengerEffect>>,
        until: Timestamp,
        outcomes: &Outcomes,
    ) {
        let mut waiting = VecDeque::from(groups);
        while !waiting.is_empty() {
            let left = Duration::try_from(until.duration_since(self.contacts.now())).unwrap_or_default();
            let Some(spare) = left.checked_sub(TIMEOUT + SETTLING) else {
                break;
            };
            let last_start = Instant::now() + LAST_START.min(spare);
            let (mut together, mut rests, mut items) = (Vec::new(), Vec::new(), 0);
            while items < TOGETHER
                && let Some(mut group) = waiting.pop_front()
            {
                rests.extend(group.split_off(OF_ONE_CONTACT));
                items += group.tasks.len();
                together.push(group);
            }
            let (settled, outage) = self.together(together, last_start).await;
            for (entry, outcome) in settled {
                // What comes after it would overtake it.
                if !outcome.is_settled() {
                    let behind = rests.extract_if(.., |rest| rest.subject == entry.subject);
                    outcomes.tell_all(behind.flat_map(|rest| rest.outcome(&outcome)));
                }
                outcomes.tell(entry, outcome);
            }
            waiting.extend(rests);
            if let Some(outage) = outage {
                let outcome = Outcome::from(&outage);
                outcomes.tell_all(waiting.drain(..).flat_map(|group| group.outcome(&outcome)));
            }
        }
        outcomes.tell_all(
            waiting
                .into_iter()
                .flat_map(|group| group.outcome(&Outcome::Busy)),
        );
    }

    /// Syncs some contacts; gives each item's outcome, and the error if other requests would meet the same.
    async fn together(
        &self,
        groups: Vec<Group<MessengerEffect>>,
        last_start: Instant,
    ) -> (Vec<(Entry, Outcome)>, Option<BrazeError>) {
        let mut prepared = stream::iter(groups)
            .map(|group| self.prepare(group))
            .buffer_unordered(CONCURRENCY);
        let (mut jobs, mut outcomes) = (Vec::new(), Vec::new());
        while let Some((job, settled)) = prepared.next().await {
            jobs.extend(job);
            outcomes.extend(settled);
        }

        let identified = self.identify(&jobs, last_start).await;
        // Attributes of a user who could not be identified would make a second profile.
        let users: Vec<Objects> = jobs
            .iter()
            .zip(&identified)
            .map(|(job, fate)| {
                if fate.is_ok() {
                    job.user.clone()
                } else {
                    Objects::default()
                }
            })
            .collect();
        let tracked = bulk::track(&self.braze, &users, last_start).await;
        let outage = tracked.iter().find_map(Fate::outage).cloned();
        let settled = &self.settle_events(&jobs, &tracked).await;

        let mut finished = stream::iter(jobs.into_iter().zip(identified.into_iter().zip(tracked)))
            .map(|(job, (identified, tracked))| {
                let is_identified = job.plan.identify.is_some() && identified.is_ok();
                let fate = identified.map_or_else(|error| Fate::of_all(&job.user, &Err(error)), |()| tracked);
                self.finish(job, fate, is_identified, settled)
            })
            .buffer_unordered(CONCURRENCY);
        while let Some(settled) = finished.next().await {
            outcomes.extend(settled);
        }
        (outcomes, outage)
    }
}

/// There is no contact to sync. An event waits all the same: of many, some are written before their contact is.
fn missing(group: Group<MessengerEffect>) -> Vec<(Entry, Outcome)> {
    let of = |Task { entry, effect }| match effect {
        MessengerEffect::Event(_) => (entry, Outcome::retry(Reason::ContactMissing)),
        MessengerEffect::Sync => (entry, Outcome::Gone),
    };
    group.tasks.into_iter().map(of).collect()
}
