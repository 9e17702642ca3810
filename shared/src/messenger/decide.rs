//! Facts and events in, facts and outbox items out.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value};

use super::contact::{Contact, Link, LinkedVia, Referral, Stamped};
use super::event::{AccountLinking, Effect, Event, EventKind, Handover, Payment};
use super::key::ContactKey;
use super::link::{LinkError, LinkKeys, has_the_form_of_a_token};
use super::sync::{self, Others, Synced};
use super::user_ref::UserRefLink;
use crate::messenger::settings::{MessengerSettings, UnlinkedContacts};
use crate::outbox::{Kind, OutboxItem};
use crate::personal::Personal;

/// How long after a person's act they may be written to.
const WINDOW: SignedDuration = SignedDuration::from_hours(24);

/// Braze takes property values of 255 characters.
const LONGEST_PROPERTY: usize = 255;

/// No `ref` of Meta's is longer; what is longer is cut, so that a record stays small.
const LONGEST_REFERENCE: usize = 1024;

/// What became of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LinkCounts {
    /// Tokens that proved a user.
    pub linked: u64,
    /// `account_linking: unlinked`.
    pub unlinked: u64,
    /// References that are no tokens.
    pub plain: u64,
    /// Tokens shown after their time, or before it.
    pub expired: u64,
    /// Tokens of another key, algorithm or audience.
    pub foreign: u64,
    /// Tokens of ours without usable claims.
    pub malformed: u64,
}

impl LinkCounts {
    /// Each outcome with its name in metrics.
    #[must_use]
    pub fn outcomes(&self) -> [(&'static str, u64); 6] {
        [
            ("linked", self.linked),
            ("unlinked", self.unlinked),
            ("plain", self.plain),
            ("expired", self.expired),
            ("foreign", self.foreign),
            ("malformed", self.malformed),
        ]
    }

    /// Adds other counts to these.
    pub fn add(&mut self, other: &Self) {
        self.linked += other.linked;
        self.unlinked += other.unlinked;
        self.plain += other.plain;
        self.expired += other.expired;
        self.foreign += other.foreign;
        self.malformed += other.malformed;
    }

    pub(super) fn record(&mut self, verdict: Result<(), LinkError>) {
        *match verdict {
            Ok(()) => &mut self.linked,
            Err(LinkError::NotAToken) => &mut self.plain,
            Err(LinkError::Expired | LinkError::NotYetValid) => &mut self.expired,
            Err(LinkError::BadSignature | LinkError::WrongAlgorithm | LinkError::WrongAudience) => {
                &mut self.foreign
            }
            Err(LinkError::Malformed) => &mut self.malformed,
        } += 1;
    }
}

/// A person's record as it is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored {
    /// The facts.
    pub contact: Contact,
    /// What Braze was last told.
    pub synced: Synced,
}

/// What is to be committed for one person.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Plan {
    /// The record, if it must be written. Its version is the new one: write it under the condition that
    /// the stored version is one less (1 = there is no record yet).
    pub contact: Option<Contact>,
    /// Effects that are still to leave. One that is in the outbox already must be left as it is there.
    pub outbox: Vec<OutboxItem>,
    /// What became of the tokens.
    pub counts: LinkCounts,
}

/// Decides on one person's events.
///
/// * `stored`: the person's record, if there is one.
/// * `events`: in any order, any number of times. Those of other people are left out.
/// * `derived`: links that [`decide_user_ref`](super::user_ref::decide_user_ref) gave for this person.
///
/// The facts in the plan depend only on the set of events that were ever given, not on their order.
#[must_use]
pub fn decide(
    stored: Option<&Stored>,
    events: &[Event],
    derived: &[UserRefLink],
    links: &LinkKeys,
    settings: &MessengerSettings,
) -> Plan {
    let mut plan = Plan::default();
    let synced = stored.map(|stored| &stored.synced);
    let stored = stored.map(|stored| &stored.contact);
    let key = stored
        .map(|contact| contact.key.clone())
        .or_else(|| events.iter().find_map(Event::contact_key))
        .or_else(|| derived.first().map(|link| link.contact.clone()));
    let Some(key) = key else {
        return plan;
    };
    let mut events: Vec<&Event> = events
        .iter()
        .filter(|event| event.contact_key().as_ref() == Some(&key))
        .collect();
    events.sort_by(|a, b| (a.at, &a.key, a.standby).cmp(&(b.at, &b.key, b.standby)));

    let mut folded = Folded {
        contact: stored.cloned(),
        cause: None,
    };
    for event in &events {
        let says = facts(&key, event, links, settings, &mut plan.counts);
        folded.take(says, &event.key);
    }
    for link in derived.iter().filter(|link| link.contact == key) {
        // The message that tied the person to the `user_ref` has made the contact, so its first sight counts.
        let first_seen = folded
            .contact
            .as_ref()
            .map_or(link.link.at, |contact| contact.first_seen);
        let mut says = Contact::new(key.clone(), first_seen);
        says.link = Some(link.link.clone());
        folded.take(Some(says), &format!("user_ref:{}", link.link.at.as_millisecond()));
    }

    let Some(mut contact) = folded.contact else {
        return plan;
    };
    let held = settings.unlinked_contacts == UnlinkedContacts::Hold && contact.link.is_none();
    let version = contact.version + 1;
    let subject = contact.key.to_string();
    let sync = !held && is_sync_due(stored, &contact, synced, settings);
    if sync {
        contact.window_queued = Some(contact.window_closes_at.unwrap_or(contact.first_seen));
        // The version makes the key of each change its own, also when the same event changes the contact twice
        // (a redelivery after its key was configured). The record is written with it or not at all.
        let cause = folded.cause.unwrap_or_else(|| "state".to_owned());
        plan.outbox.push(OutboxItem {
            subject: subject.clone(),
            event_key: format!("sync#{cause}#{version}"),
            kind: Kind::ContactSync,
            payload: Value::Null,
            not_before: None,
        });
    }
    if !held {
        let mut seen = BTreeSet::new();
        let listed = events
            .iter()
            .filter(|event| is_listed(&event.kind, settings) && seen.insert(&event.key));
        plan.outbox.extend(listed.map(|event| OutboxItem {
            subject: subject.clone(),
            event_key: format!("event#{}", event.key.as_str()),
            kind: Kind::ContactEvent,
            payload: custom_event(event),
            not_before: None,
        }));
    }
    if sync || stored.is_none_or(|stored| !stored.same_facts(&contact)) {
        contact.version = version;
        plan.contact = Some(contact);
    }
    plan
}

struct Folded {
    contact: Option<Contact>,
    /// The key of the last event that changed anything.
    cause: Option<String>,
}

impl Folded {
    fn take(&mut self, says: Option<Contact>, cause: &str) {
        let Some(says) = says else {
            return;
        };
        let changed = if let Some(contact) = &mut self.contact {
            let before = contact.clone();
            contact.merge(&says);
            *contact != before
        } else {
            self.contact = Some(says);
            true
        };
        if changed {
            self.cause = Some(cause.to_owned());
        }
    }
}

/// What one event says of its person, as facts to merge; nothing if it makes no contact.
fn facts(
    key: &ContactKey,
    event: &Event,
    links: &LinkKeys,
    settings: &MessengerSettings,
    counts: &mut LinkCounts,
) -> Option<Contact> {
    let effect = event.effect();
    if effect == Effect::Nothing {
        return None;
    }
    let at = event.at;
    let mut says = Contact::new(key.clone(), at);
    says.last_interaction = (effect >= Effect::Interaction).then_some(at);
    says.window_closes_at =
        (effect == Effect::Window).then(|| at.saturating_add(WINDOW).unwrap_or(Timestamp::MAX));
    says.opted_out = opted_out(&event.kind, settings).map(|value| Stamped { at, value });
    says.referral = event
        .kind
        .referral()
        .and_then(referral)
        .map(|value| Stamped { at, value });
    says.link = link(event, links, counts).map(|value| Stamped { at, value });
    Some(says)
}

fn link(event: &Event, links: &LinkKeys, counts: &mut LinkCounts) -> Option<Link> {
    if matches!(event.kind, EventKind::AccountLinking(AccountLinking::Unlinked)) {
        counts.unlinked += 1;
        return Some(Link {
            user_id: None,
            via: LinkedVia::AccountLinking,
        });
    }
    let (token, via) = token_of(&event.kind)?;
    let verdict = links.verify(token, event.at);
    counts.record(verdict.as_ref().map(drop).map_err(|error| *error));
    verdict.ok().map(|user_id| Link {
        user_id: Some(user_id.into()),
        via,
    })
}

/// Whether one of `events` carries a token that none of our keys has signed: they may have been rotated since.
#[must_use]
pub fn asks_for_newer_keys(events: &[Event], links: &LinkKeys) -> bool {
    let mut tokens = events
        .iter()
        .filter_map(|event| Some((token_of(&event.kind)?.0, event.at)));
    tokens.any(|(token, at)| links.verify(token, at) == Err(LinkError::BadSignature))
}

/// Where a kind of event may carry a link token.
pub(super) fn token_of(kind: &EventKind) -> Option<(&str, LinkedVia)> {
    let (token, via) = match kind {
        EventKind::Referral(referral) => (referral.reference.as_ref(), LinkedVia::Ref),
        EventKind::Postback(postback) => {
            let referral = postback.referral.as_ref();
            (
                referral.and_then(|referral| referral.reference.as_ref()),
                LinkedVia::Postback,
            )
        }
        EventKind::Message(message) => {
            let referral = message.referral.as_ref();
            (
                referral.and_then(|referral| referral.reference.as_ref()),
                LinkedVia::Message,
            )
        }
        EventKind::Optin(optin) => (optin.reference.as_ref(), LinkedVia::Optin),
        EventKind::AccountLinking(AccountLinking::Linked { authorization_code }) => {
            (authorization_code.as_ref(), LinkedVia::AccountLinking)
        }
        _ => (None, LinkedVia::Ref),
    };
    token.map(|token| (token.as_str(), via))
}

fn opted_out(kind: &EventKind, settings: &MessengerSettings) -> Option<bool> {
    match kind {
        EventKind::Optout => Some(true),
        EventKind::Message(message) => {
            let text = message.text.as_ref()?.as_str().trim().to_lowercase();
            let is_one_of = |keywords: &[String]| {
                keywords
                    .iter()
                    .any(|keyword| keyword.trim().to_lowercase() == text)
            };
            // Who lists a word in both means to be careful.
            if is_one_of(&settings.opt_out_keywords) {
                Some(true)
            } else if is_one_of(&settings.opt_in_keywords) {
                Some(false)
            } else {
                None
            }
        }
        _ => None,
    }
}

fn referral(source: &super::event::ReferralSource) -> Option<Referral> {
    let referral = Referral {
        source: source
            .source
            .as_deref()
            .map(|source| cut(source, LONGEST_PROPERTY)),
        reference: plain(source.reference.as_ref()).map(|reference| cut(reference, LONGEST_REFERENCE).into()),
        ad_id: source.ad_id.as_deref().map(|ad_id| cut(ad_id, LONGEST_PROPERTY)),
    };
    (referral != Referral::default()).then_some(referral)
}

/// The text, unless it has the form of a token: tokens are credentials, valid or not.
fn plain(text: Option<&Personal<String>>) -> Option<&str> {
    text.map(|text| text.as_str())
        .filter(|text| !has_the_form_of_a_token(text.trim()))
}

fn cut(text: &str, characters: usize) -> String {
    text.chars().take(characters).collect()
}

/// Whether Braze must hear of the change: see [`super::sync`] for what it will hear.
///
/// What was queued before may have been given up since, so with time everything that Braze does not know is due.
fn is_sync_due(
    stored: Option<&Contact>,
    contact: &Contact,
    synced: Option<&Synced>,
    settings: &MessengerSettings,
) -> bool {
    let Some(queued) = contact.window_queued else {
        // New, or held until now.
        return true;
    };
    let link_changed = stored.and_then(Contact::user_id) != contact.user_id();
    let opted_out_changed = stored.and_then(Contact::is_opted_out) != contact.is_opted_out();
    if link_changed || opted_out_changed {
        // Also if Braze seems to know: a sync may be under way that tells it what was true before.
        return true;
    }
    let window_moved = contact
        .window_closes_at
        .is_some_and(|closes_at| moved_enough(queued, closes_at, settings));
    window_moved
        && synced.is_none_or(|synced| !sync::plan(contact, synced, &Others::default(), settings).is_empty())
}

/// Whether a window that was last told as `told` is worth telling again.
pub(super) fn moved_enough(told: Timestamp, now: Timestamp, settings: &MessengerSettings) -> bool {
    let step = SignedDuration::try_from(settings.window_sync).unwrap_or(SignedDuration::MAX);
    now > told && now.duration_since(told) >= step
}

fn is_listed(kind: &EventKind, settings: &MessengerSettings) -> bool {
    *kind != EventKind::Unknown
        && settings
            .events
            .iter()
            .any(|name| name.eq_ignore_ascii_case(kind.name()))
}

/// The custom event without its identifier: `{name, time, properties}`. It never holds what a person wrote,
/// nor a token.
fn custom_event(event: &Event) -> Value {
    let mut properties = Map::new();
    properties.insert("channel".to_owned(), event.channel.as_str().into());
    properties.insert("account_id".to_owned(), event.account_id.clone().into());
    if event.standby {
        properties.insert("standby".to_owned(), true.into());
    }
    for (name, value) in details(&event.kind) {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            properties.insert(name.to_owned(), cut(value, LONGEST_PROPERTY).into());
        }
    }
    if let EventKind::Message(message) = &event.kind
        && !message.attachments.is_empty()
    {
        properties.insert("attachments".to_owned(), message.attachments.clone().into());
    }
    serde_json::json!({
        "name": format!("messenger_{}", event.kind.name()),
        "time": format!("{:.3}", event.at),
        "properties": properties,
    })
}

fn details(kind: &EventKind) -> Vec<(&'static str, Option<&str>)> {
    let mut details = Vec::new();
    if let Some(referral) = kind.referral() {
        details.push(("source", referral.source.as_deref()));
        details.push(("ref", plain(referral.reference.as_ref())));
        details.push(("ad_id", referral.ad_id.as_deref()));
    }
    match kind {
        EventKind::Postback(postback) => details.push(("payload", plain(postback.payload.as_ref()))),
        EventKind::Optin(optin) => {
            details.push(("type", optin.optin_type.as_deref()));
            details.push(("ref", plain(optin.reference.as_ref())));
            details.push(("notification_status", optin.notification_status.as_deref()));
        }
        EventKind::Reaction(reaction) => {
            details.push(("action", Some(if reaction.removed { "unreact" } else { "react" })));
            details.push(("reaction", reaction.reaction.as_deref()));
        }
        EventKind::AccountLinking(linking) => details.push((
            "status",
            Some(match linking {
                AccountLinking::Linked { .. } => "linked",
                AccountLinking::Unlinked => "unlinked",
                AccountLinking::Other(status) => status,
            }),
        )),
        EventKind::Handover(handover) => details.push((
            "action",
            Some(match handover {
                Handover::Pass => "pass",
                Handover::Take => "take",
                Handover::Request => "request",
            }),
        )),
        EventKind::ResponseFeedback { feedback } => details.push(("feedback", feedback.as_deref())),
        EventKind::Payment(payment) => details.push((
            "type",
            Some(match payment {
                Payment::Payment => "payment",
                Payment::CheckoutUpdate => "checkout_update",
                Payment::PreCheckout => "pre_checkout",
            }),
        )),
        _ => {}
    }
    details
}
