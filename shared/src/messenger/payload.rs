//! Meta's envelopes, taken apart one item at a time.
//!
//! Reading is lenient ([`json`](crate::json)), as Meta's payloads differ from its documentation and change without
//! notice: lists may be missing, unknown keys and values are no error. Each item is cut out unread and then read on
//! its own, so a broken one costs only itself. What is signed and yet not understood is handed back raw: see
//! [`Quarantined`].

mod item;
mod wire;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::event::{Event, EventKind};
use super::key::{Channel, is_id};
use crate::json::{self, List, Members, Object, Scalar};
use crate::outbox::{Quarantined, Reason};
use crate::webhook::Verified;
use wire::{Flat, Item};

/// How far clocks may be apart. Times further ahead of the receipt are taken for a mistake: facts keep the latest time,
/// so one in the future would hold a contact's window and link until then.
const FUTURE: SignedDuration = SignedDuration::from_mins(5);

const MESSAGING: &str = "messaging";
const STANDBY: &str = "standby";
const CHANGES: &str = "changes";

/// What a webhook said.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Parsed {
    /// Its items, in their order.
    pub events: Vec<Event>,
    /// What was not understood.
    pub quarantined: Vec<Quarantined>,
    /// How many changes were understood and are not about messaging (`feed`, `leadgen`, `comments`, …).
    pub ignored: usize,
    /// How many samples the *Test* button of the app dashboard has sent. They leave nothing behind.
    pub dashboard_tests: usize,
}

/// Who is named as the source of what is quarantined.
const SOURCE: &str = "messenger";

/// Takes a webhook apart. `received_at` stands in for times that are missing or cannot be.
///
/// Never fails: what cannot be read is in [`Parsed::quarantined`].
#[must_use]
pub fn parse(verified: &Verified, received_at: Timestamp) -> Parsed {
    let mut parsed = Parsed::default();
    let body = verified.body();
    let whole = |reason| Quarantined {
        source: SOURCE,
        reason,
        raw: body.clone().into(),
    };
    if let Err(reason) = read_bodies(body, received_at, &mut parsed) {
        parsed.quarantined.push(whole(reason));
    }
    parsed
}

#[derive(Deserialize, Default)]
#[serde(default, bound(deserialize = "'de: 'a"))]
struct Body<'a> {
    object: Scalar<'a>,
    entry: List<&'a RawValue>,
    /// Of a sample that the app dashboard shows, and some tools send: a change without an entry around it.
    field: Scalar<'a>,
    value: Option<&'a RawValue>,
}

#[derive(Deserialize, Default)]
#[serde(default, bound(deserialize = "'de: 'a"))]
struct Entry<'a> {
    id: Scalar<'a>,
    time: Scalar<'a>,
    messaging: Option<&'a RawValue>,
    standby: Option<&'a RawValue>,
    changes: Option<&'a RawValue>,
    changed_fields: Option<&'a RawValue>,
    /// Of a change that stands in the entry itself, as Meta's documents show comments on Instagram.
    field: Scalar<'a>,
}

#[derive(Deserialize, Default)]
#[serde(default, bound(deserialize = "'de: 'a"))]
struct Change<'a> {
    field: Scalar<'a>,
    value: Option<&'a RawValue>,
}

fn read_bodies(body: &[u8], received_at: Timestamp, parsed: &mut Parsed) -> Result<(), Reason> {
    let text = json::text(body);
    // Meta's documents show Instagram's webhooks in a list.
    let is_list = text.trim_start().starts_with('[');
    let bodies = is_list
        .then(|| json::parse::<Vec<&RawValue>>(&text).ok())
        .flatten();
    let Some(bodies) = bodies.filter(|bodies| !bodies.is_empty()) else {
        return read_body(&text, received_at, parsed);
    };
    for body in bodies {
        if let Err(reason) = read_body(body.get(), received_at, parsed) {
            parsed.quarantined.push(Quarantined {
                source: SOURCE,
                reason,
                raw: Bytes::from(body.get().to_owned()).into(),
            });
        }
    }
    Ok(())
}

fn read_body(text: &str, received_at: Timestamp, parsed: &mut Parsed) -> Result<(), Reason> {
    let body: Object<Body<'_>> = json::parse(text).map_err(|error| match error {
        json::Error::Shape { .. } => Reason::MalformedBody,
        json::Error::Syntax { .. } => Reason::NotJson,
    })?;
    let body = body.get().ok_or(Reason::MalformedBody)?;
    let is_sample = || body.value.is_some() || is_name_alone(text);
    if body.object.is_absent() && body.field.text().is_some() && is_sample() {
        parsed.dashboard_tests += 1;
        return Ok(());
    }
    let object = body.object.text().unwrap_or_default();
    let channel = Channel::of_object(object).ok_or(Reason::UnknownObject)?;
    let List::Is(entries) = &body.entry else {
        return Err(Reason::MalformedBody);
    };
    for raw in entries {
        let Ok(Object::Is(entry)) = json::parse::<Object<Entry<'_>>>(raw.get()) else {
            parsed.quarantined.push(Quarantined {
                source: SOURCE,
                reason: Reason::MalformedEntry,
                raw: body_of(object, raw.get()).into(),
            });
            continue;
        };
        let context = Context {
            object,
            channel,
            account_id: entry.id.id().filter(|id| is_id(id) && id != "0"),
            entry_time: entry.time.time(),
            received_at,
        };
        context.read_entry(&entry, raw, parsed);
    }
    Ok(())
}

fn body_of(object: &str, entry: &str) -> Bytes {
    format!(r#"{{"object":{},"entry":[{entry}]}}"#, Value::from(object)).into()
}

/// What an item inherits from its entry.
struct Context<'a> {
    /// As Meta spells it.
    object: &'a str,
    channel: Channel,
    /// Missing in samples that the app dashboard sends: their entry's id is 0.
    account_id: Option<String>,
    entry_time: Option<Timestamp>,
    received_at: Timestamp,
}

impl Context<'_> {
    fn read_entry(&self, entry: &Entry<'_>, raw: &RawValue, parsed: &mut Parsed) {
        if let Some(fields) = entry.changed_fields {
            let whole = self.entry("changed_fields", fields.get());
            self.quarantine(Reason::ValuesNotIncluded, &whole, parsed);
        } else if entry.messaging.is_none() && entry.standby.is_none() && entry.changes.is_none() {
            match entry.field.text() {
                Some(_) => self.read_change(raw, parsed),
                None => self.quarantine(Reason::NoItems, raw.get(), parsed),
            }
        }
        for item in self.list(MESSAGING, entry.messaging, parsed) {
            self.read_item(item, false, (MESSAGING, item), parsed);
        }
        for item in self.list(STANDBY, entry.standby, parsed) {
            self.read_item(item, true, (STANDBY, item), parsed);
        }
        for change in self.list(CHANGES, entry.changes, parsed) {
            self.read_change(change, parsed);
        }
    }

    fn list<'a>(&self, name: &str, raw: Option<&'a RawValue>, parsed: &mut Parsed) -> Vec<&'a RawValue> {
        let Some(raw) = raw else {
            return Vec::new();
        };
        json::parse(raw.get()).unwrap_or_else(|_| {
            let whole = self.entry(name, raw.get());
            self.quarantine(Reason::MalformedList, &whole, parsed);
            Vec::new()
        })
    }

    /// Reads an item; `kept` is the list and the member of it that is quarantined if it is not understood.
    fn read_item(&self, raw: &RawValue, standby: bool, kept: (&str, &RawValue), parsed: &mut Parsed) {
        let read = match json::parse(raw.get()) {
            Ok(Object::<Item<'_>>::Is(item)) if is_dashboard_test(&item) => {
                parsed.dashboard_tests += 1;
                return;
            }
            Ok(Object::<Item<'_>>::Is(item)) => item::read(&item, raw.get(), standby, self),
            _ => Err(Reason::MalformedItem),
        };
        self.take(read, kept, parsed);
    }

    fn take(&self, read: Result<Event, Reason>, (list, member): (&str, &RawValue), parsed: &mut Parsed) {
        let mut keep = |reason| {
            self.quarantine(reason, &self.entry_of_one(list, member), parsed);
        };
        match read {
            Ok(event) => {
                match event.kind {
                    EventKind::Unknown => keep(Reason::UnknownKind),
                    EventKind::Optout(_) => keep(Reason::UnconfirmedShape),
                    _ => {}
                }
                parsed.events.push(event);
            }
            Err(reason) => keep(reason),
        }
    }

    fn read_change(&self, raw: &RawValue, parsed: &mut Parsed) {
        let kept = (CHANGES, raw);
        let Ok(Object::Is(change)) = json::parse::<Object<Change<'_>>>(raw.get()) else {
            self.take(Err(Reason::MalformedItem), kept, parsed);
            return;
        };
        let field = change.field.text().unwrap_or_default();
        if NOT_MESSAGING.contains(&field) {
            parsed.ignored += 1;
            return;
        }
        // Of a field without a sample the Test button sends the name alone.
        if !field.is_empty() && change.value.is_none() && is_name_alone(raw.get()) {
            parsed.dashboard_tests += 1;
            return;
        }
        if let Some(kind) = EventKind::of_field(field) {
            // Without a value the fields stand in the change itself.
            let flat = change.value.unwrap_or(raw);
            let read = match json::parse(flat.get()) {
                Ok(Object::<Flat<'_>>::Is(value)) => item::read_flat(kind, &value, flat.get(), self),
                _ => Err(Reason::MalformedItem),
            };
            if read == Err(Reason::NoAccount) {
                // A sample: each real one names its page.
                parsed.dashboard_tests += 1;
            } else {
                self.take(read, kept, parsed);
            }
            return;
        }
        match change.value {
            Some(value) if is_messaging_field(field) => self.read_item(value, field == STANDBY, kept, parsed),
            _ => self.take(Err(Reason::UnknownField), kept, parsed),
        }
    }

    fn entry_of_one(&self, list: &str, item: &RawValue) -> String {
        self.entry(list, &format!("[{}]", item.get()))
    }

    /// This entry with `value` under `key` alone.
    fn entry(&self, key: &str, value: &str) -> String {
        let id = self.account_id.as_deref().map(Value::from);
        let id = id.map(|id| format!(r#""id":{id},"#)).unwrap_or_default();
        let time = self.entry_time.map(Timestamp::as_millisecond);
        let time = time.map(|time| format!(r#""time":{time},"#)).unwrap_or_default();
        format!(r#"{{{id}{time}"{key}":{value}}}"#)
    }

    fn quarantine(&self, reason: Reason, entry: &str, parsed: &mut Parsed) {
        parsed.quarantined.push(Quarantined {
            source: SOURCE,
            reason,
            raw: body_of(self.object, entry).into(),
        });
    }

    /// The item's own time if it can be, else its entry's, else the time of receipt.
    fn time(&self, own: Option<Timestamp>) -> Timestamp {
        let latest = self.received_at.saturating_add(FUTURE).unwrap_or(Timestamp::MAX);
        own.into_iter()
            .chain(self.entry_time)
            .find(|time| *time <= latest)
            .unwrap_or(self.received_at)
    }
}

/// Whether a change holds nothing but its field's name.
fn is_name_alone(change: &str) -> bool {
    let members = json::parse::<Members>(change);
    members.is_ok_and(|Members(members)| {
        members
            .iter()
            .all(|(name, value)| name == "field" || value.is_null())
    })
}

/// The parties of every sample that the app dashboard sends.
const TEST_PARTIES: [&str; 2] = ["12334", "23245"];

fn is_dashboard_test(item: &Item<'_>) -> bool {
    let id = |party: &Object<wire::Party<'_>>| party.get().and_then(|party| party.id.id());
    let parties = [id(&item.sender), id(&item.recipient)];
    TEST_PARTIES
        .iter()
        .all(|test| parties.iter().flatten().any(|party| party == test))
}

/// Fields whose value is an item: the form in which the app dashboard's "Test" button sends its samples.
fn is_messaging_field(field: &str) -> bool {
    field.starts_with("message_")
        || field.starts_with("messaging_")
        || matches!(field, "messages" | STANDBY | "response_feedback")
}

/// Fields of pages and Instagram accounts that are about other things than conversations. Who subscribes to
/// them as well does so for another reader.
const NOT_MESSAGING: [&str; 24] = [
    "affiliation",
    "attire",
    "comments",
    "conversations",
    "feed",
    "follow",
    "group_feed",
    "leadgen",
    "leadgen_fat",
    "leadgen_update",
    "live_comments",
    "live_videos",
    "location",
    "mention",
    "mentions",
    "merchant_review",
    "name",
    "page_change_proposal",
    "page_upcoming_change",
    "picture",
    "product_review",
    "ratings",
    "story_insights",
    "videos",
];
