//! Facts and events in, facts and outbox items out.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::Value;

use super::act::Effect;
use super::contact::{Contact, Link, LinkedVia, Referral};
use super::custom_event::{LONGEST_PROPERTY, custom_event, cut, plain};
use super::event::{AccountLinking, Event, EventKind};
use super::key::ContactKey;
use super::proof::{Claim, Judge, Judged, LinkCounts};
use super::send::Lesson;
use super::settings::{MessengerSettings, UnlinkedContacts};
use super::stamped::Stamped;
use super::sync::{self, Others, Stored, Synced};
use super::topic::{Topic, Topics};
use super::user_ref::UserRefLink;
use super::window::{Quiet, Told, moved_enough};
use crate::digest::Digest;
use crate::erase::{Order, Source, Target};
use crate::outbox::{Kind, OutboxItem};

/// No `ref` of Meta's is longer; what is longer is cut, so that a record stays small.
const LONGEST_REFERENCE: usize = 1024;

/// What is to be committed for one person.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Plan {
    /// The record, if it must be written. Its version is the new one: write it under the condition that
    /// the stored version is one less (1 = there is no record yet).
    pub contact: Option<Contact>,
    /// Effects that are still to leave. One that is in the outbox already must be left as it is there.
    pub outbox: Vec<OutboxItem>,
    /// The tokens that the contact is to hold: to be written with the record or not at all.
    pub claims: Vec<Claim>,
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
    judge: Judge<'_>,
    settings: &MessengerSettings,
) -> Plan {
    let mut plan = Plan::default();
    let mut judged = Judged::default();
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
    let subject = key.to_string();
    for event in &events {
        let says = facts(&key, event, settings, |event| {
            link(event, &subject, &mut judged, judge)
        });
        folded.take(says, &event.key);
    }
    for link in derived.iter().filter(|link| link.contact == key) {
        let claimed = link
            .token
            .as_ref()
            .is_none_or(|token| judged.claim(token, &subject, Some(&link.user_ref), judge));
        if !claimed {
            continue;
        }
        // The act that tied the person to the `user_ref` has made the contact, so its first sight counts.
        let first_seen = folded
            .contact
            .as_ref()
            .map_or(link.link.at, |contact| contact.first_seen);
        let mut says = Contact::new(key.clone(), first_seen);
        says.link = Some(link.link.clone());
        folded.take(Some(says), &format!("user_ref:{}", link.link.at.as_millisecond()));
    }

    (plan.counts, plan.claims) = (judged.counts, judged.claims);
    conclude(plan, (stored, synced), folded, &events, settings)
}

/// Decides on what Meta's answer to a message taught about its recipient, at the time `at`.
#[must_use]
pub fn learn(stored: &Stored, lesson: Lesson, at: Timestamp, settings: &MessengerSettings) -> Plan {
    let known = &stored.contact;
    let mut says = Contact::new(known.key.clone(), known.first_seen);
    match lesson {
        Lesson::WindowClosed => says.refused_at = Some(at),
        Lesson::Unreachable => says.unreachable_at = Some(at),
    }
    let mut folded = Folded {
        contact: Some(known.clone()),
        cause: None,
    };
    folded.take(Some(says), &format!("answer:{}", at.as_millisecond()));
    conclude(
        Plan::default(),
        (Some(known), Some(&stored.synced)),
        folded,
        &[],
        settings,
    )
}

/// What has to be committed once the facts are known.
fn conclude(
    mut plan: Plan,
    (stored, synced): (Option<&Contact>, Option<&Synced>),
    folded: Folded,
    events: &[&Event],
    settings: &MessengerSettings,
) -> Plan {
    let Some(mut contact) = folded.contact else {
        return plan;
    };
    let subject = contact.key.to_string();
    let held = settings.unlinked_contacts == UnlinkedContacts::Hold && contact.link.is_none();
    let version = contact.version + 1;
    let sync = !held && is_sync_due(stored, &contact, synced, settings);
    if sync {
        contact.window_queued = Some(contact.window_closes_at().unwrap_or(contact.first_seen));
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
    // What a request holds twice, it asks for once.
    let mut seen = BTreeSet::new();
    let events: Vec<_> = events.iter().filter(|event| seen.insert(&event.key)).collect();
    if !held {
        let listed = events.iter().filter(|event| is_listed(&event.kind, settings));
        plan.outbox.extend(listed.map(|event| OutboxItem {
            subject: subject.clone(),
            event_key: format!("event#{}", event.key.as_str()),
            kind: Kind::ContactEvent,
            payload: custom_event(event),
            not_before: None,
        }));
    }
    let asking = events
        .iter()
        .filter(|event| asks_to_be_erased(&event.kind, settings));
    plan.outbox.extend(asking.map(|event| erasure(&subject, event)));
    if sync || stored.is_none_or(|stored| !stored.same_facts(&contact)) {
        contact.version = version;
        contact.quiet = Some(quiet(&contact, synced, held, settings));
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
    settings: &MessengerSettings,
    link: impl FnOnce(&Event) -> Option<Link>,
) -> Option<Contact> {
    let effect = event.effect();
    if effect == Effect::Nothing {
        return None;
    }
    let at = event.at;
    let mut says = Contact::new(key.clone(), at);
    says.last_interaction = (effect >= Effect::Interaction).then_some(at);
    says.opened_at = (effect == Effect::Window).then_some(at);
    says.opted_out = opted_out(&event.kind, settings).map(|value| Stamped { at, value });
    says.topics = topics(&event.kind, at);
    says.referral = event
        .referral()
        .and_then(referral)
        .map(|value| Stamped { at, value });
    says.link = link(event).map(|value| Stamped { at, value });
    Some(says)
}

fn link(event: &Event, holder: &str, judged: &mut Judged, judge: Judge<'_>) -> Option<Link> {
    if matches!(event.kind, EventKind::AccountLinking(AccountLinking::Unlinked)) {
        judged.counts.unlinked += 1;
        return Some(Link {
            user_id: None,
            via: LinkedVia::AccountLinking,
        });
    }
    let (_, user_id, via) = judged.judge(event, holder, judge)?;
    Some(Link {
        user_id: Some(user_id.into()),
        via,
    })
}

/// What is said of a topic of marketing messages, if the event is about one.
fn topics(kind: &EventKind, at: Timestamp) -> Topics {
    let mut topics = Topics::default();
    let mut say = |title: &Option<String>, topic: &Topic| {
        let value = topic.clone();
        topics.say(title.as_deref(), Stamped { at, value });
    };
    match kind {
        EventKind::Optin(optin) if optin.is_about_marketing() => say(&optin.title, &optin.topic),
        EventKind::Optout(optout) if optout.is_about_marketing() => say(&optout.title, &optout.topic),
        _ => {}
    }
    topics
}

/// Which acts need not be decided on.
fn quiet(contact: &Contact, synced: Option<&Synced>, held: bool, settings: &MessengerSettings) -> Quiet {
    if contact.is_unreachable() || contact.refused_at > contact.opened_at {
        // With the next act the person's id comes back, or the window.
        return Quiet::NONE;
    }
    let told = synced.and_then(|synced| sync::told_window(contact, synced, settings));
    let told = match told.max(contact.window_queued) {
        _ if held || is_silent(contact, synced, settings) => Told::Nothing,
        Some(told) if contact.window_closes_at().is_some() => Told::Window(told),
        _ => Told::NoWindow,
    };
    let last = contact.last_interaction.unwrap_or(contact.first_seen);
    Quiet::of(last.max(contact.first_seen), told, settings)
}

/// Whether no act of the person, however late, makes a difference to what Braze knows.
fn is_silent(contact: &Contact, synced: Option<&Synced>, settings: &MessengerSettings) -> bool {
    let nobody = Synced::default();
    let is_unsent = contact.user_id().is_none()
        && (settings.unlinked_contacts == UnlinkedContacts::Hold || synced.is_some_and(|synced| synced.held));
    let without_window = settings.window_attribute.is_none();
    (is_unsent || without_window)
        && sync::plan(contact, synced.unwrap_or(&nobody), &Others::default(), settings).is_empty()
}

/// When a person acted, if `events` are all of that person and tell nothing but that: the window is opened, and no
/// token, word or listed kind has to be decided on.
#[must_use]
pub fn quiet_act(events: &[Event], settings: &MessengerSettings) -> Option<(ContactKey, Timestamp)> {
    let key = events.first()?.contact_key()?;
    let is_quiet = |event: &Event| {
        event.contact_key().as_ref() == Some(&key)
            && event.effect() == Effect::Window
            && event.referral().is_none()
            && event.user_ref().is_none()
            && !matches!(event.kind, EventKind::Optin(_))
            && opted_out(&event.kind, settings).is_none()
            && !asks_to_be_erased(&event.kind, settings)
            && !is_listed(&event.kind, settings)
    };
    let latest = events.iter().map(|event| event.at).max()?;
    events.iter().all(is_quiet).then_some((key, latest))
}

/// Whether nothing follows from an event: a receipt of a kind that is not listed.
#[must_use]
pub fn is_without_effect(event: &Event, settings: &MessengerSettings) -> bool {
    event.effect() == Effect::Nothing && event.user_ref().is_none() && !is_listed(&event.kind, settings)
}

fn opted_out(kind: &EventKind, settings: &MessengerSettings) -> Option<bool> {
    match kind {
        // Of a type that is not known it is kept for an operator to look at, and is no opt-out of everything.
        EventKind::Optout(optout) => {
            let is_of_everything = optout.optout_type.is_none() && !optout.is_about_marketing();
            is_of_everything.then_some(true)
        }
        EventKind::Message(message) => {
            let text = message.text.as_ref()?.as_str();
            // A keyword in both lists counts as opt-out.
            if is_one_of(text, &settings.opt_out_keywords) {
                Some(true)
            } else if is_one_of(text, &settings.opt_in_keywords) {
                Some(false)
            } else {
                None
            }
        }
        _ => None,
    }
}

/// Whether the text is nothing but one of the keywords, without regard to case and blanks around it.
fn is_one_of(text: &str, keywords: &[String]) -> bool {
    let text = text.trim().to_lowercase();
    let mut keywords = keywords.iter();
    keywords.any(|keyword| keyword.trim().to_lowercase() == text)
}

/// Whether the person asks to be erased. It is their own account that says so, which is proof enough.
fn asks_to_be_erased(kind: &EventKind, settings: &MessengerSettings) -> bool {
    let EventKind::Message(message) = kind else {
        return false;
    };
    let text = message.text.as_ref();
    text.is_some_and(|text| is_one_of(text.as_str(), &settings.erase_keywords))
}

/// The erasure that a person asks for. A redelivery asks for the same one.
fn erasure(subject: &str, event: &Event) -> OutboxItem {
    let code = Digest::of_parts(["erase_keyword", subject, event.key.as_str()]).short();
    let target = Target::Contact(subject.to_owned().into());
    Order::new(target, Source::Keyword, event.at).item(&code)
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

/// Whether Braze must be told of the change: see [`super::sync`] for what it is told.
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
    let reach_changed = stored.is_some_and(Contact::is_unreachable) != contact.is_unreachable();
    let opted_out_changed = stored.and_then(Contact::is_opted_out) != contact.is_opted_out();
    let consent = |contact: &Contact| {
        let token = contact.topics.token().map(str::to_owned);
        (contact.topics.is_subscribed(), token)
    };
    let consent_changed = stored.map(consent).unwrap_or_default() != consent(contact);
    if link_changed || reach_changed || opted_out_changed || consent_changed {
        // Also if Braze seems to know: a sync may be under way that tells it what was true before.
        return true;
    }
    let window_moved = match contact.window_closes_at() {
        Some(closes_at) => moved_enough(queued, closes_at, settings),
        // Without one it is the first sight that was noted.
        None => queued != contact.first_seen,
    };
    window_moved
        && synced.is_none_or(|synced| !sync::plan(contact, synced, &Others::default(), settings).is_empty())
}

fn is_listed(kind: &EventKind, settings: &MessengerSettings) -> bool {
    *kind != EventKind::Unknown
        && settings
            .events
            .iter()
            .any(|name| name.eq_ignore_ascii_case(kind.name()))
}
