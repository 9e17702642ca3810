//! From events to what is stored: read what is known, decide for each person, write, and start over for those
//! that somebody else wrote in between.

use std::collections::{BTreeMap, HashSet};

use shared::messenger::decide::{LinkCounts, decide};
use shared::messenger::event::Event;
use shared::messenger::key::{ContactKey, UserRefKey};
use shared::messenger::link::LinkKeys;
use shared::messenger::settings::MessengerSettings;
use shared::messenger::table::{Contacts, Known, Record, Unit};
use shared::messenger::user_ref::{UserRefLink, decide_user_ref};
use shared::store::{Rounds, StoreError};
use shared::telemetry;

/// The subject of a decision.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Subject {
    UserRef(UserRefKey),
    Contact(ContactKey),
}

/// Whether everything was made durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ingested {
    All,
    /// But for people whose record this version cannot read.
    AllButUnreadable,
}

/// Makes `events` durable.
pub(crate) async fn events(
    contacts: &Contacts,
    events: Vec<Event>,
    links: &LinkKeys,
    settings: &MessengerSettings,
) -> Result<Ingested, StoreError> {
    let mut open = by_subject(events);
    let mut ingested = Ingested::All;
    if open.is_empty() {
        return Ok(ingested);
    }
    let mut rounds = Rounds::new("a contact is written too often to keep up with");
    let mut is_first = true;
    loop {
        let left_out;
        (open, left_out) = write(contacts, open, links, settings, is_first).await?;
        if left_out {
            ingested = Ingested::AllButUnreadable;
        }
        if open.is_empty() {
            return Ok(ingested);
        }
        is_first = false;
        rounds.next().await?;
    }
}

/// One round; gives back what has to be decided again, and whether somebody had to be left out.
async fn write(
    contacts: &Contacts,
    mut open: BTreeMap<Subject, Vec<Event>>,
    links: &LinkKeys,
    settings: &MessengerSettings,
    first: bool,
) -> Result<(BTreeMap<Subject, Vec<Event>>, bool), StoreError> {
    let (mut keys, mut user_refs) = (Vec::new(), Vec::new());
    for subject in open.keys() {
        match subject {
            Subject::UserRef(key) => user_refs.push(key.clone()),
            Subject::Contact(key) => keys.push(key.clone()),
        }
    }
    let mut known = contacts.read(&keys, &user_refs).await?;
    open.retain(|subject, _| match subject {
        Subject::UserRef(key) => !known.unreadable_user_refs.contains(key),
        Subject::Contact(key) => !known.unreadable_contacts.contains(key),
    });
    let mut units: Vec<(Subject, Unit)> = Vec::new();
    let mut counts = LinkCounts::default();
    let mut derived = decide_user_refs(&open, &known, links, &mut units, &mut counts);
    read_linked(contacts, &keys, &derived, &mut known).await?;
    derived.retain(|link| !known.unreadable_contacts.contains(&link.contact));
    let left_out = !(known.unreadable_contacts.is_empty() && known.unreadable_user_refs.is_empty());

    let mut people: BTreeMap<&ContactKey, (&[Event], Vec<UserRefLink>)> = BTreeMap::new();
    for (subject, events) in &open {
        if let Subject::Contact(key) = subject {
            people.entry(key).or_default().0 = events;
        }
    }
    for link in &derived {
        people.entry(&link.contact).or_default().1.push(link.clone());
    }
    let mut created = 0;
    for (key, (events, derived)) in people {
        let stored = known.contacts.get(key);
        let plan = decide(stored, events, &derived, links, settings);
        counts.add(&plan.counts);
        created += u64::from(stored.is_none() && plan.contact.is_some());
        if plan.contact.is_some() || !plan.outbox.is_empty() {
            let unit = Unit {
                record: plan.contact.map(Record::Contact),
                outbox: plan.outbox,
            };
            units.push((Subject::Contact(key.clone()), unit));
        }
    }

    let refused: HashSet<Subject> = contacts.write(units).await?.into_iter().collect();
    if first {
        report(&counts, created);
    }
    // A derived link whose contact was contended comes from its `user_ref` again.
    let is_contended = |link: UserRefLink| refused.contains(&Subject::Contact(link.contact));
    let again = derived.into_iter().any(is_contended);
    open.retain(|subject, _| refused.contains(subject) || again && matches!(subject, Subject::UserRef(_)));
    Ok((open, left_out))
}

fn decide_user_refs(
    open: &BTreeMap<Subject, Vec<Event>>,
    known: &Known,
    links: &LinkKeys,
    units: &mut Vec<(Subject, Unit)>,
    counts: &mut LinkCounts,
) -> Vec<UserRefLink> {
    let mut derived = Vec::new();
    for (subject, events) in open {
        let Subject::UserRef(key) = subject else { continue };
        let plan = decide_user_ref(known.user_refs.get(key), events, links);
        counts.add(&plan.counts);
        derived.extend(plan.derived);
        if let Some(record) = plan.record {
            let unit = Unit {
                record: Some(Record::UserRef(key.clone(), record)),
                outbox: Vec::new(),
            };
            units.push((subject.clone(), unit));
        }
    }
    derived
}

/// A `user_ref` may link somebody of whom this request says nothing else.
async fn read_linked(
    contacts: &Contacts,
    read: &[ContactKey],
    derived: &[UserRefLink],
    known: &mut Known,
) -> Result<(), StoreError> {
    let read: HashSet<&ContactKey> = read.iter().collect();
    let missing: HashSet<&ContactKey> = derived
        .iter()
        .map(|link| &link.contact)
        .filter(|key| !read.contains(key))
        .collect();
    if !missing.is_empty() {
        let missing: Vec<ContactKey> = missing.into_iter().cloned().collect();
        let read = contacts.read(&missing, &[]).await?;
        known.contacts.extend(read.contacts);
        known.unreadable_contacts.extend(read.unreadable_contacts);
    }
    Ok(())
}

fn by_subject(events: Vec<Event>) -> BTreeMap<Subject, Vec<Event>> {
    let mut subjects: BTreeMap<Subject, Vec<Event>> = BTreeMap::new();
    for event in events {
        if let Some(key) = event.user_ref_key() {
            subjects
                .entry(Subject::UserRef(key))
                .or_default()
                .push(event.clone());
        }
        if let Some(key) = event.contact_key() {
            subjects.entry(Subject::Contact(key)).or_default().push(event);
        }
    }
    subjects
}

fn report(counts: &LinkCounts, created: u64) {
    metrics::counter!(telemetry::CONTACTS_CREATED).increment(created);
    metrics::counter!(telemetry::LINKS).increment(counts.linked);
    let failed = counts.expired + counts.foreign + counts.malformed;
    metrics::counter!(telemetry::LINK_FAILURES).increment(failed);
    if failed > 0 {
        tracing::warn!(?counts, "link tokens did not link");
    }
}
