//! One order at work: what it holds, and what it deletes.

use std::collections::BTreeSet;

use jiff::Timestamp;
use shared::erase::{Counts, EraseInBraze};
use shared::fbe::plan::subject;
use shared::messenger::key::ContactKey;
use shared::messenger::sync::{Others, Profile};
use shared::messenger::table::Whole;
use shared::store::{Claim, Lease, StoreError};
use shared::whatsapp::ConversationId;
use shared::whatsapp::table::Stored as Conversation;

use super::braze::Told;
use super::find::conversations;
use super::{EraseWorker, Held, LEASE};
use crate::messenger::add_others;
use crate::settle::{Outcome, given_back};

/// An order with everything that it is about under our lease, and what Braze is to be told.
pub(super) struct Job {
    pub(super) held: Held,
    pub(super) told: Told,
    contacts: Vec<HeldContact>,
    /// By id; without a lease there is no record of the user.
    users: Vec<(String, Option<Lease>)>,
    conversations: Vec<HeldConversation>,
}

/// A contact. Without a lease there is no record of it any more.
struct HeldContact {
    key: ContactKey,
    leased: Option<(Whole, Lease)>,
}

impl HeldContact {
    /// Whether the person was erased before, and has come back since.
    fn is_newer(&self, began_at: Timestamp) -> bool {
        let stored = self.leased.as_ref().and_then(|(whole, _)| whole.stored.as_ref());
        stored.is_some_and(|stored| stored.contact.first_seen > began_at)
    }
}

struct HeldConversation {
    id: ConversationId,
    leased: Option<(Option<Conversation>, Lease)>,
}

impl HeldConversation {
    fn is_newer(&self, began_at: Timestamp) -> bool {
        let stored = self.leased.as_ref().and_then(|(stored, _)| stored.as_ref());
        let first = stored.and_then(|stored| stored.conversation.first_inbound_at);
        first.is_some_and(|first| first > began_at)
    }
}

/// What was claimed; `None` if it is not there. What another worker is at is tried again later.
fn leased<T>(claimed: Result<Claim<T>, StoreError>) -> Result<Option<(T, Lease)>, Outcome> {
    match claimed? {
        Claim::Leased(what, lease) => Ok(Some((what, lease))),
        Claim::Missing => Ok(None),
        Claim::Busy => Err(Outcome::Busy),
    }
}

impl EraseWorker {
    /// Claims what an order is about, and plans what Braze is told. What other workers are at is tried again later.
    pub(super) async fn prepare(&self, held: Held) -> Result<Job, Outcome> {
        let mut job = Job {
            held,
            told: Told::default(),
            contacts: Vec::new(),
            users: Vec::new(),
            conversations: Vec::new(),
        };
        match Box::pin(self.claim_all(&mut job)).await {
            Ok(()) => Ok(job),
            Err(outcome) => {
                self.release(&job).await;
                // Not ours to wait for: the schedule comes back to it in a minute.
                given_back(self.records().outbox.release(&job.held.lease).await, "erasure");
                Err(outcome)
            }
        }
    }

    async fn claim_all(&self, job: &mut Job) -> Result<(), Outcome> {
        let records = self.records();
        let found = job.held.progress.found.clone();
        let began_at = job.held.progress.began_at;
        for key in found.contacts.iter() {
            let Ok(parsed) = key.parse::<ContactKey>() else {
                continue;
            };
            let leased = leased(records.contacts.claim_whole(key, LEASE).await)?;
            job.contacts.push(HeldContact { key: parsed, leased });
        }
        for id in conversations(&found) {
            let leased = leased(records.conversations.claim_whole(&id, LEASE).await)?;
            job.conversations.push(HeldConversation { id, leased });
        }
        let others = self.claim_users(job, began_at).await?;
        self.plan(job, &others, began_at);
        Ok(())
    }

    /// Claims the users on whose profiles the contacts are: their attributes may be other contacts' as well.
    async fn claim_users(&self, job: &mut Job, began_at: Timestamp) -> Result<Others, Outcome> {
        let contacts = &self.records().contacts;
        let erased: BTreeSet<ContactKey> = job.contacts.iter().map(|contact| contact.key.clone()).collect();
        let mut users: BTreeSet<String> = job.held.progress.found.users.iter().cloned().collect();
        for contact in job.contacts.iter().filter(|contact| !contact.is_newer(began_at)) {
            let Some((whole, _)) = &contact.leased else {
                continue;
            };
            users.extend(whole.users().map(str::to_owned));
            let Some(stored) = &whole.stored else { continue };
            users.extend(stored.contact.user_id().map(str::to_owned));
            users.extend(stored.synced.tried.keys().cloned());
            if let Profile::User(user) = &stored.synced.profile {
                users.insert(user.as_str().to_owned());
            }
        }
        let mut on_profiles: Vec<(String, Vec<ContactKey>)> = Vec::new();
        for user in users {
            let leased = leased(contacts.claim_known_user(&user, LEASE).await)?;
            let lease = leased.map(|(mut keys, lease)| {
                keys.retain(|key| !erased.contains(key));
                on_profiles.push((user.clone(), keys));
                lease
            });
            job.users.push((user, lease));
        }
        let mut others = Others::default();
        for (user, keys) in on_profiles {
            add_others(&mut others, contacts, &user, keys).await?;
        }
        Ok(others)
    }

    fn plan(&self, job: &mut Job, others: &Others, began_at: Timestamp) {
        let in_braze = job.held.order.braze.unwrap_or(self.in_braze);
        let told = &mut job.told;
        for contact in job.contacts.iter().filter(|contact| !contact.is_newer(began_at)) {
            if let Some((whole, lease)) = &contact.leased
                && let Some(stored) = &whole.stored
            {
                told.contact(stored, lease.interrupted(), others, in_braze, &self.settings);
            }
        }
        for conversation in job.conversations.iter().filter(|one| !one.is_newer(began_at)) {
            if let Some((Some(stored), _)) = &conversation.leased {
                let told_of_agent = stored.conversation.human_agent_told;
                told.person(&stored.conversation.person, told_of_agent, in_braze);
            }
        }
        let came_back = job.contacts.iter().any(|contact| contact.is_newer(began_at))
            || job.conversations.iter().any(|one| one.is_newer(began_at));
        // At the second look the profile is gone, or it is that of somebody who came back.
        if job.held.progress.swept_at.is_none() && !came_back {
            let found = &job.held.progress.found;
            for user in found.users.iter().chain(&found.businesses) {
                told.user(user, in_braze);
            }
        }
        if in_braze == EraseInBraze::Keep {
            *told = Told::default();
        }
        told.dedup();
    }

    /// Deletes what an order is about. What is newer than the order stays.
    pub(super) async fn delete(&self, job: &Job) -> Result<Counts, Outcome> {
        let mut removed = Box::pin(self.delete_records(job)).await?;
        // An install that is there at the second look has passed the tombstone: the business came back.
        let is_second = job.held.progress.swept_at.is_some();
        let installs = &self.records().installs;
        for business in &job.held.progress.found.businesses {
            let outbox = &self.records().outbox;
            let until = is_second.then_some(job.held.progress.began_at);
            if !is_second || !installs.exists(business).await? {
                self.secrets.schedule_deletion(business).await?;
            }
            if !is_second {
                removed.installs += installs.erase(business).await?;
            }
            removed.outbox += outbox.erase(&subject(business), until).await?;
        }
        Ok(removed)
    }

    async fn delete_records(&self, job: &Job) -> Result<Counts, StoreError> {
        let records = self.records();
        let (progress, mut removed) = (&job.held.progress, Counts::default());
        let began_at = progress.began_at;
        for contact in &job.contacts {
            let subject = contact.key.to_string();
            let is_newer = contact.is_newer(began_at);
            if let Some((whole, _)) = contact.leased.as_ref().filter(|_| !is_newer) {
                let user_refs: Vec<String> = whole.user_refs().cloned().collect();
                records.contacts.bury(&user_refs, began_at).await?;
                for (user, _) in &job.users {
                    records.contacts.leave(user, &contact.key).await?;
                }
                removed.records += records.contacts.erase(&contact.key, whole).await?;
                removed.contacts += 1;
            }
            let until = is_newer.then_some(began_at);
            removed.outbox += records.outbox.erase(&subject, until).await?;
        }
        let came_back = job.contacts.iter().any(|contact| contact.is_newer(began_at));
        for user in progress.found.users.iter().filter(|_| !came_back) {
            removed.records += records
                .contacts
                .erase_user(user, &progress.found.user_refs)
                .await?;
        }
        for conversation in &job.conversations {
            let until = conversation.is_newer(began_at).then_some(began_at);
            removed.add(records.conversations.erase(&conversation.id, until).await?);
            removed.outbox += records.outbox.erase(conversation.id.as_str(), until).await?;
        }
        Ok(removed)
    }

    /// Gives back what was claimed; what is deleted has no lease any more.
    pub(super) async fn release(&self, job: &Job) {
        let records = self.records();
        for (_, lease) in job.contacts.iter().filter_map(|contact| contact.leased.as_ref()) {
            given_back(records.contacts.release(lease, None).await, "contact");
        }
        for lease in job.users.iter().filter_map(|(_, lease)| lease.as_ref()) {
            given_back(records.contacts.release(lease, None).await, "user");
        }
        for (_, lease) in job.conversations.iter().filter_map(|one| one.leased.as_ref()) {
            given_back(records.conversations.give_back(lease).await, "conversation");
        }
    }
}
