//! From events to what is stored: read what is known, decide for each person, write, and start over for those
//! that another request has written in between.

use std::collections::{BTreeMap, HashSet};

use shared::messenger::decide::{decide, is_without_effect, quiet_act};
use shared::messenger::event::Event;
use shared::messenger::key::{ContactKey, UserRefKey};
use shared::messenger::late;
use shared::messenger::late::Buried;
use shared::messenger::link::LinkKeys;
use shared::messenger::proof::{self, Judge, LinkCounts};
use shared::messenger::settings::MessengerSettings;
use shared::messenger::table::{Acted, Contacts, Known, Record, Unit, token_key};
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

/// A decision takes a claim for a token and a condition for whom it names, and all of it is one transaction of at most 100
/// writes. So many events of a subject that name others are decided on together.
const MOST_THAT_NAME_OTHERS: usize = 20;

/// Makes `events` durable.
///
/// # Errors
///
/// [`StoreError`] if the table does not answer, or others keep writing the same contacts.
pub(crate) async fn events(
    contacts: &Contacts,
    mut events: Vec<Event>,
    keys: &LinkKeys,
    settings: &MessengerSettings,
) -> Result<Ingested, StoreError> {
    events.retain(|event| !is_without_effect(event, settings));
    let mut ingested = Ingested::All;
    for portion in portions(events) {
        if Box::pin(decided_together(contacts, portion, keys, settings)).await? != Ingested::All {
            ingested = Ingested::AllButUnreadable;
        }
    }
    Ok(ingested)
}

/// All of them together, unless a subject has too many that name others.
fn portions(events: Vec<Event>) -> Vec<Vec<Event>> {
    let mut portions: Vec<Vec<Event>> = Vec::new();
    let mut naming: BTreeMap<Subject, usize> = BTreeMap::new();
    for event in events {
        let mut place = 0;
        if event.user_ref_key().is_some() || proof::carry_tokens(std::slice::from_ref(&event)) {
            for subject in subjects(&event) {
                let number = naming.entry(subject).or_default();
                place = place.max(*number / MOST_THAT_NAME_OTHERS);
                *number += 1;
            }
        }
        if portions.len() <= place {
            portions.resize_with(place + 1, Vec::new);
        }
        if let Some(portion) = portions.get_mut(place) {
            portion.push(event);
        }
    }
    portions
}

async fn decided_together(
    contacts: &Contacts,
    events: Vec<Event>,
    keys: &LinkKeys,
    settings: &MessengerSettings,
) -> Result<Ingested, StoreError> {
    let mut ingested = Ingested::All;
    // The commonest event of all, a message of a known contact, takes one call. Where it does not do, its answer
    // brings the contact, so that it takes no more calls than reading first.
    let mut known = None;
    if let Some((contact, at)) = quiet_act(&events, settings) {
        match contacts.acted(&contact, at).await? {
            Acted::Noted => return Ok(ingested),
            Acted::Undecided(read) => known = Some(read),
            Acted::Busy => {}
        }
    }
    let mut open = by_subject(events);
    let mut rounds = Rounds::new("a contact is written too often to keep up with");
    let mut is_first = true;
    loop {
        let left_out;
        let round = Round {
            contacts,
            keys,
            settings,
            is_first,
        };
        (open, left_out) = Box::pin(round.write(open, known.take())).await?;
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

type Open = BTreeMap<Subject, Vec<Event>>;

/// One round of reading, deciding and writing.
struct Round<'a> {
    contacts: &'a Contacts,
    keys: &'a LinkKeys,
    settings: &'a MessengerSettings,
    is_first: bool,
}

/// What was decided, and what became of the tokens by subject.
#[derive(Default)]
struct Decided {
    units: Vec<(Subject, Unit)>,
    counts: Vec<(Subject, LinkCounts)>,
    created: Vec<Subject>,
}

impl Decided {
    fn add(&mut self, subject: Subject, counts: LinkCounts, unit: Unit) {
        self.counts.push((subject.clone(), counts));
        if !unit.is_empty() {
            self.units.push((subject, unit));
        }
    }
}

impl Round<'_> {
    /// Gives back what has to be decided again, and whether a subject had to be left out. `known` is what was read
    /// before, if it was.
    async fn write(&self, mut open: Open, known: Option<Known>) -> Result<(Open, bool), StoreError> {
        let (mut keys, mut user_refs, mut tokens) = (Vec::new(), Vec::new(), Vec::new());
        for (subject, events) in &open {
            match subject {
                Subject::UserRef(key) => user_refs.push(key.clone()),
                Subject::Contact(key) => keys.push(key.clone()),
            }
            tokens.extend(proof::hashes(events));
        }
        tokens.sort_unstable();
        tokens.dedup();
        let buried = self.buried(&open).await?;
        self.leave_out_late(&mut open, &buried);
        let mut known = match known {
            Some(known) => known,
            None => self.contacts.read(&keys, &user_refs, &tokens).await?,
        };
        open.retain(|subject, _| match subject {
            Subject::UserRef(key) => !known.unreadable_user_refs.contains(key),
            Subject::Contact(key) => !known.unreadable_contacts.contains(key),
        });
        let mut decided = Decided::default();
        let mut derived = self.decide_user_refs(&open, &mut known, &mut decided);
        derived.retain(|link| !late::is_late(&late::names_of_link(link), link.at(), &buried));
        self.read_linked(&keys, &derived, &mut known).await?;
        derived.retain(|link| !known.unreadable_contacts.contains(&link.contact));
        let left_out = !(known.unreadable_contacts.is_empty() && known.unreadable_user_refs.is_empty());
        self.decide_contacts(&open, &derived, &mut known, &mut decided);

        let refused: HashSet<Subject> = self.contacts.write(decided.units).await?.into_iter().collect();
        decided.counts.retain(|(subject, _)| !refused.contains(subject));
        decided.created.retain(|subject| !refused.contains(subject));
        report(&decided.counts, decided.created.len());
        // A derived link whose contact was contended comes from its `user_ref` again.
        let is_contended = |link: UserRefLink| refused.contains(&Subject::Contact(link.contact));
        let again = derived.into_iter().any(is_contended);
        open.retain(|subject, _| {
            refused.contains(subject) || again && matches!(subject, Subject::UserRef(_))
        });
        Ok((open, left_out))
    }

    /// Who was erased of those whom the events name. Read only once the write was refused: mostly nobody was, and the
    /// write makes sure of it.
    async fn buried(&self, open: &Open) -> Result<Buried, StoreError> {
        if self.is_first {
            return Ok(Buried::default());
        }
        let names = open
            .values()
            .flatten()
            .flat_map(|event| late::names(event, self.keys));
        let names: HashSet<String> = names.collect();
        self.contacts.buried(&names.into_iter().collect::<Vec<_>>()).await
    }

    fn leave_out_late(&self, open: &mut Open, buried: &Buried) {
        if buried.is_empty() {
            return;
        }
        for events in open.values_mut() {
            events.retain(|event| !late::is_late(&late::names(event, self.keys), event.at, buried));
        }
        let before = open.len();
        open.retain(|_, events| !events.is_empty());
        if open.len() < before {
            tracing::info!(
                subjects = before - open.len(),
                "late events of people who were erased are left out"
            );
        }
    }

    fn decide_user_refs(&self, open: &Open, known: &mut Known, decided: &mut Decided) -> Vec<UserRefLink> {
        let mut derived = Vec::new();
        for (subject, events) in open {
            let Subject::UserRef(key) = subject else { continue };
            let judge = Judge {
                keys: self.keys,
                holders: &known.holders,
            };
            let plan = decide_user_ref(known.user_refs.get(key), events, judge);
            plan.claims.iter().for_each(|claim| known.holders.claim(claim));
            derived.extend(plan.derived);
            let mut unit = Unit {
                record: plan.record.map(|record| Record::UserRef(key.clone(), record)),
                claims: plan.claims,
                ..Unit::default()
            };
            if !unit.is_empty() {
                unit.unless_erased = late::of_user_ref(known.user_refs.get(key), events, self.keys);
            }
            decided.add(subject.clone(), plan.counts, unit);
        }
        derived
    }

    /// The person whose token is the oldest comes first: a token links one contact.
    fn decide_contacts(
        &self,
        open: &Open,
        derived: &[UserRefLink],
        known: &mut Known,
        decided: &mut Decided,
    ) {
        let mut people: BTreeMap<&ContactKey, (&[Event], Vec<UserRefLink>)> = BTreeMap::new();
        for (subject, events) in open {
            if let Subject::Contact(key) = subject {
                people.entry(key).or_default().0 = events;
            }
        }
        for link in derived {
            people.entry(&link.contact).or_default().1.push(link.clone());
        }
        let mut people: Vec<_> = people.into_iter().collect();
        people.sort_by_key(|(_, (events, derived))| {
            let derived = derived.iter().map(UserRefLink::at);
            let first = proof::first_at(events).into_iter().chain(derived).min();
            (first.is_none(), first)
        });
        for (key, (events, derived)) in people {
            let judge = Judge {
                keys: self.keys,
                holders: &known.holders,
            };
            let stored = known.contacts.get(key);
            let plan = decide(stored, events, &derived, judge, self.settings);
            let subject = Subject::Contact(key.clone());
            if stored.is_none() && plan.contact.is_some() {
                decided.created.push(subject.clone());
            }
            plan.claims.iter().for_each(|claim| known.holders.claim(claim));
            let mut unit = Unit {
                record: plan.contact.map(Record::Contact),
                claims: plan.claims,
                outbox: plan.outbox,
                ..Unit::default()
            };
            if !unit.is_empty() {
                let stored = stored.map(|stored| &stored.contact);
                unit.replaces = stored.map(|stored| stored.first_seen);
                let claims = !unit.claims.is_empty();
                unit.unless_erased = late::of_contact(stored, events, &derived, claims, self.keys);
                let user_refs = events.iter().filter_map(Event::user_ref_key);
                let derived = derived.iter().map(|link| link.user_ref.as_str().to_owned());
                unit.beside = user_refs.map(|key| key.to_string()).chain(derived).collect();
                unit.beside
                    .extend(unit.claims.iter().map(|claim| token_key(&claim.token.hash)));
                unit.beside.sort_unstable();
                unit.beside.dedup();
            }
            decided.add(subject, plan.counts, unit);
        }
    }

    /// A `user_ref` may link a contact of which this request says nothing else. Who holds its token is read only once
    /// the write was refused: mostly it is the `user_ref`, and the write makes sure of it.
    async fn read_linked(
        &self,
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
        let tokens = derived.iter().filter_map(|link| link.token.as_ref());
        let tokens: HashSet<&String> = tokens
            .map(|token| &token.hash)
            .filter(|_| !self.is_first)
            .collect();
        if !missing.is_empty() || !tokens.is_empty() {
            let missing: Vec<ContactKey> = missing.into_iter().cloned().collect();
            let tokens: Vec<String> = tokens.into_iter().cloned().collect();
            let read = self.contacts.read(&missing, &[], &tokens).await?;
            known.contacts.extend(read.contacts);
            known.unreadable_contacts.extend(read.unreadable_contacts);
            known.holders.extend(read.holders);
        }
        Ok(())
    }
}

fn by_subject(events: Vec<Event>) -> BTreeMap<Subject, Vec<Event>> {
    let mut subjects: BTreeMap<Subject, Vec<Event>> = BTreeMap::new();
    for event in events {
        let mut of_event = self::subjects(&event);
        let first = of_event.next();
        for subject in of_event {
            subjects.entry(subject).or_default().push(event.clone());
        }
        if let Some(first) = first {
            subjects.entry(first).or_default().push(event);
        }
    }
    subjects
}

/// Whose decisions the event is part of.
fn subjects(event: &Event) -> impl Iterator<Item = Subject> + use<> {
    let user_ref = event.user_ref_key().map(Subject::UserRef);
    user_ref
        .into_iter()
        .chain(event.contact_key().map(Subject::Contact))
}

fn report(counts: &[(Subject, LinkCounts)], created: usize) {
    let mut total = LinkCounts::default();
    for (subject, counts) in counts {
        total.add(counts);
        if counts.refused > 0 {
            let subject = match subject {
                Subject::UserRef(key) => telemetry::pseudonym(key.as_str()),
                Subject::Contact(key) => telemetry::pseudonym(&key.to_string()),
            };
            tracing::warn!(subject, "a link token was refused: it has linked another contact");
        }
    }
    metrics::counter!(telemetry::CONTACTS_CREATED).increment(created as u64);
    metrics::counter!(telemetry::LINKS).increment(total.linked);
    let failed = total.expired + total.foreign + total.malformed + total.refused;
    metrics::counter!(telemetry::LINK_FAILURES).increment(failed);
    if failed > 0 {
        tracing::warn!(counts = ?total, "link tokens did not link");
    }
}
