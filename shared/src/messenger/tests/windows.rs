//! What opens the window, when it is told, and that it is never told where Meta would refuse a message.

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use serde_json::{Value, json};
use strum::IntoEnumIterator;

use super::super::act::{Act, Effect};
use super::super::sync::{Others, Synced, plan};
use super::super::window::Quiet;
use super::super::{Contact, Event, Stored};
use super::{at, decide, link_keys, parsed, settings, token};
use crate::outbox::Kind;

const PAGE: &str = "1134597043258171";
const PSID: &str = "5275811702471834";

fn start() -> Timestamp {
    at("2025-11-20T10:00:00Z")
}

fn after(minutes: i64) -> Timestamp {
    start() + SignedDuration::from_mins(minutes)
}

fn events(minutes: i64, mut item: Value) -> Vec<Event> {
    item["sender"] = json!({ "id": PSID });
    item["recipient"] = json!({ "id": PAGE });
    item["timestamp"] = after(minutes).as_millisecond().into();
    let body = json!({ "object": "page", "entry": [{ "id": PAGE, "messaging": [item] }] });
    parsed(body.to_string()).events
}

/// Every row of Meta's list of what opens the window, and of what does not, but for standby.
#[expect(clippy::too_many_lines, reason = "it is a table")]
fn rows() -> Vec<(Act, bool, Value)> {
    let message = |more: Value| {
        let mut message = json!({ "mid": "m", "text": "hi" });
        message
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        json!({ "message": message })
    };
    let marketing = |status: Value| {
        json!({ "optin": {
            "type": "notification_messages", "title": "Offers", "notification_messages_token": "K",
            "notification_messages_status": status,
        } })
    };
    vec![
        (Act::Message, true, message(json!({}))),
        (
            Act::Message,
            true,
            message(json!({ "quick_reply": { "payload": "x" } })),
        ),
        (
            Act::Message,
            true,
            json!({ "message": { "mid": "m", "attachments": [{ "type": "image" }] } }),
        ),
        (
            Act::Message,
            true,
            json!({ "message": { "mid": "m", "sticker_id": 369_239_263_222_822_u64 } }),
        ),
        (
            Act::Message,
            true,
            message(json!({ "reply_to": { "story": { "id": "s" } } })),
        ),
        (
            Act::Message,
            true,
            message(json!({ "referral": { "source": "ADS", "ad_id": "6" } })),
        ),
        (Act::Message, true, message(json!({ "is_unsupported": true }))),
        (
            Act::Postback,
            true,
            json!({ "postback": { "payload": "GET_STARTED" } }),
        ),
        (
            Act::Postback,
            true,
            json!({ "postback": { "mid": "p", "referral": { "source": "SHORTLINK" } } }),
        ),
        (
            Act::LinkReferral,
            true,
            json!({ "referral": { "source": "SHORTLINK", "ref": "x" } }),
        ),
        (
            Act::LinkReferral,
            true,
            json!({ "referral": { "source": "SHORT-URL" } }),
        ),
        (Act::PluginOptin, true, json!({ "optin": { "ref": "x" } })),
        (
            Act::PluginOptin,
            true,
            json!({ "optin": { "ref": "x", "user_ref": "box" } }),
        ),
        (
            Act::Reaction,
            true,
            json!({ "reaction": { "mid": "m", "action": "react", "reaction": "love" } }),
        ),
        (
            Act::Reaction,
            true,
            json!({ "reaction": { "mid": "m", "reaction": "love" } }),
        ),
        (
            Act::ReactionRemoved,
            false,
            json!({ "reaction": { "mid": "m", "action": "unreact" } }),
        ),
        (
            Act::ReactionRemoved,
            false,
            json!({ "reaction": { "mid": "m", "action": "faded" } }),
        ),
        (
            Act::AdReferral,
            false,
            json!({ "referral": { "source": "ADS", "ad_id": "6" } }),
        ),
        (
            Act::PluginReferral,
            false,
            json!({ "referral": { "source": "CUSTOMER_CHAT_PLUGIN" } }),
        ),
        (
            Act::OtherReferral,
            false,
            json!({ "referral": { "source": "DISCOVER_TAB" } }),
        ),
        (Act::OtherReferral, false, json!({ "referral": { "ref": "x" } })),
        (Act::MarketingOptin, false, marketing(Value::Null)),
        (Act::MarketingOptin, false, marketing(json!("STOP NOTIFICATIONS"))),
        (
            Act::MarketingOptin,
            false,
            marketing(json!("RESUME NOTIFICATIONS")),
        ),
        (
            Act::MarketingOptin,
            false,
            json!({ "optin": { "notification_messages_token": "K" } }),
        ),
        (
            Act::MarketingOptin,
            false,
            json!({ "optin": { "title": "Offers", "user_token_status": "REFRESHED" } }),
        ),
        (
            Act::MarketingOptin,
            false,
            json!({ "optin": { "token_expiry_timestamp": 1_796_083_200 } }),
        ),
        (
            Act::OneTimeOptin,
            false,
            json!({ "optin": { "type": "one_time_notif_req", "one_time_notif_token": "K" } }),
        ),
        (
            Act::OneTimeOptin,
            false,
            json!({ "optin": { "one_time_notif_token": "K" } }),
        ),
        (
            Act::OtherOptin,
            false,
            json!({ "optin": { "type": "something_new" } }),
        ),
        (
            Act::OtherOptin,
            false,
            json!({ "optin": { "message_request": "accept" } }),
        ),
        (
            Act::AccountLinked,
            false,
            json!({ "account_linking": { "status": "linked", "authorization_code": "x" } }),
        ),
        (
            Act::AccountUnlinked,
            false,
            json!({ "account_linking": { "status": "unlinked" } }),
        ),
        (
            Act::CustomerInformation,
            false,
            json!({ "messaging_customer_information": {} }),
        ),
        (Act::Feedback, false, json!({ "messaging_feedback": {} })),
        (
            Act::ResponseFeedback,
            false,
            json!({ "response_feedback": { "feedback": "Good response" } }),
        ),
        (
            Act::Edit,
            false,
            json!({ "message_edit": { "mid": "m", "num_edit": 1 } }),
        ),
        (
            Act::Unsend,
            false,
            json!({ "message": { "mid": "m", "is_deleted": true } }),
        ),
        (Act::Delivery, false, json!({ "delivery": { "watermark": 1 } })),
        (Act::Read, false, json!({ "read": { "watermark": 1 } })),
        (Act::Handover, false, json!({ "pass_thread_control": {} })),
        (Act::GamePlay, false, json!({ "game_play": {} })),
        (
            Act::Echo,
            false,
            json!({ "message": { "mid": "m", "is_echo": true } }),
        ),
        (
            Act::PolicyEnforcement,
            false,
            json!({ "policy_enforcement": { "action": "block" } }),
        ),
        (Act::AppRoles, false, json!({ "app_roles": {} })),
        (Act::Payment, false, json!({ "payment": {} })),
        (Act::Optout, false, json!({ "optout": {} })),
        (
            Act::Optout,
            false,
            json!({ "optout": { "type": "notification_messages" } }),
        ),
        (
            Act::Unknown,
            false,
            json!({ "messaging_in_thread_lead_form_submit": {} }),
        ),
    ]
}

#[test]
fn only_what_meta_lists_opens_the_window() {
    let mut seen = Vec::new();
    for (act, opens, item) in rows() {
        let events = events(0, item.clone());
        assert_eq!(events.len(), 1, "{item}");
        assert_eq!(Act::of(&events[0].kind), act, "{item}");
        let plan = decide(None, &events, &[], &link_keys(), &settings(&[]));
        let window = plan.contact.and_then(|contact| contact.window_closes_at());
        assert_eq!(window, opens.then(|| after(24 * 60)), "{item}");
        seen.push(act);
    }
    let not_items = [Act::MarketingMessage, Act::TemplateStatus];
    for act in Act::iter().filter(|act| !not_items.contains(act)) {
        assert!(seen.contains(&act), "{act:?} has no row");
    }
    assert!(not_items.iter().all(|act| act.row().0 == Effect::Nothing));
    assert!(Act::iter().all(|act| !act.row().1.is_empty()));
}

/// A referral stands beside whatever the person did, and takes nothing away from it.
#[test]
fn a_referral_beside_an_act_opens_what_it_opens_alone() {
    let unreact = json!({ "reaction": { "mid": "m", "action": "unreact" } });
    let react = json!({ "reaction": { "mid": "m", "action": "react" } });
    let read = json!({ "read": { "watermark": 1 } });
    let linking = json!({ "account_linking": { "status": "unlinked" } });
    let echo = json!({ "message": { "mid": "m", "is_echo": true } });
    let optout = json!({ "optout": {} });
    for (act, source, opens, item) in [
        (Act::ReactionRemoved, "SHORTLINK", true, &unreact),
        (Act::ReactionRemoved, "ADS", false, &unreact),
        (Act::Reaction, "ADS", true, &react),
        (Act::Read, "SHORTLINK", true, &read),
        (Act::AccountUnlinked, "SHORTLINK", true, &linking),
        (Act::Optout, "SHORTLINK", true, &optout),
        (Act::Optout, "ADS", false, &optout),
    ] {
        let mut item = item.clone();
        item["referral"] = json!({ "source": source, "ref": "x" });
        let events = events(0, item.clone());
        assert_eq!(Act::of(&events[0].kind), act, "{item}");
        let contact = decide(None, &events, &[], &link_keys(), &settings(&[])).contact;
        let contact = contact.unwrap_or_else(|| panic!("{item}"));
        assert_eq!(contact.window_closes_at().is_some(), opens, "{item}");
        assert_eq!(
            contact.is_opted_out(),
            (act == Act::Optout).then_some(true),
            "{item}"
        );
    }
    let mut echo = echo;
    echo["referral"] = json!({ "source": "SHORTLINK" });
    let body = json!({ "object": "page", "entry": [{ "id": PAGE, "messaging": [{
        "sender": { "id": PAGE }, "recipient": { "id": PSID }, "timestamp": 1, "message": echo["message"],
        "referral": echo["referral"],
    }] }] });
    let echoes = parsed(body.to_string()).events;
    assert_eq!(echoes[0].effect(), Effect::Nothing);
}

#[test]
fn a_referral_that_is_none_costs_nothing_beside_an_act() {
    for item in [
        json!({ "reaction": { "mid": "m", "action": "react" } }),
        json!({ "account_linking": { "status": "unlinked" } }),
        json!({ "optout": {} }),
        json!({ "pass_thread_control": {} }),
    ] {
        let alone = events(0, item.clone());
        let mut item = item;
        item["referral"] = json!("x");
        let beside = events(0, item.clone());
        assert_eq!(beside.len(), 1, "{item}");
        assert_eq!(beside[0].kind, alone[0].kind, "{item}");
    }
}

/// Meta lets a page write once in private to who comments or posts, and no more before they answer.
#[test]
fn comments_and_visitors_posts_open_no_window() {
    for value in [
        json!({ "item": "comment", "verb": "add", "from": { "id": PSID }, "comment_id": "1_2", "message": "hi" }),
        json!({ "item": "post", "verb": "add", "from": { "id": PSID }, "post_id": "1_3", "message": "hi" }),
    ] {
        let change = json!({ "field": "feed", "value": value });
        let body = json!({ "object": "page", "entry": [{ "id": PAGE, "time": 1, "changes": [change] }] });
        assert_eq!(parsed(body.to_string()).events, []);
    }
}

#[test]
fn a_checkbox_without_a_person_opens_no_contacts_window() {
    let body = json!({ "object": "page", "entry": [{ "id": PAGE, "time": 1, "messaging": [{
        "recipient": { "id": PAGE }, "timestamp": 1, "optin": { "ref": "x", "user_ref": "box" },
    }] }] });
    let events = parsed(body.to_string()).events;
    assert_eq!(events.len(), 1);
    let plan = decide(None, &events, &[], &link_keys(), &settings(&[]));
    assert_eq!(plan.contact.and_then(|contact| contact.window_closes_at()), None);
}

#[test]
fn under_standby_nothing_opens_a_window_for_us() {
    for (_, _, mut item) in rows() {
        item["sender"] = json!({ "id": PSID });
        item["recipient"] = json!({ "id": PAGE });
        let body = json!({ "object": "page", "entry": [{ "id": PAGE, "time": 1_763_632_800_000_u64, "standby": [item] }] });
        let events = parsed(body.to_string()).events;
        let plan = decide(None, &events, &[], &link_keys(), &settings(&[]));
        assert_eq!(plan.contact.and_then(|contact| contact.window_closes_at()), None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn no_sequence_without_an_opening_act_yields_a_window(
        acts in prop::collection::vec((0..100_usize, 0..3000_i64), 1..12),
        again in prop::collection::vec(0..12_usize, 0..6),
        size in 1..4_usize,
    ) {
        let closed: Vec<Value> = rows().into_iter().filter(|(_, opens, _)| !opens).map(|(.., item)| item).collect();
        let all: Vec<Event> = acts.iter().flat_map(|(act, minutes)| events(*minutes, closed[act % closed.len()].clone())).collect();
        let repeated = again.iter().map(|number| all[number % all.len()].clone());
        let all: Vec<Event> = all.clone().into_iter().chain(repeated).collect();
        let (settings, mut stored) = (settings(&[]), None::<Stored>);
        for batch in all.chunks(size) {
            let decided = decide(stored.as_ref(), batch, &[], &link_keys(), &settings);
            if let Some(contact) = decided.contact {
                let synced = stored.take().map(|stored| stored.synced).unwrap_or_default();
                let told = plan(&contact, &synced, &Others::default(), &settings);
                for object in told.attributes.iter() {
                    let window = object.get("messenger_window_closes_at");
                    prop_assert!(window.is_none_or(Value::is_null), "{}", object);
                }
                stored = Some(Stored { contact, synced: told.after });
            }
        }
        prop_assert_eq!(stored.and_then(|stored| stored.contact.window_closes_at()), None);
    }
}

/// A contact as the version before has stored it.
fn legacy(closes: i64) -> Contact {
    serde_json::from_value(json!({
        "key": format!("messenger#{PAGE}#{PSID}"), "first_seen": start(), "last_interaction": start(),
        "window_closes_at": after(closes), "window_queued": after(closes), "version": 7,
        "opted_out": { "at": start(), "value": false },
    }))
    .unwrap()
}

fn told(contact: &Contact) -> Stored {
    let told = plan(contact, &Synced::default(), &Others::default(), &settings(&[]));
    Stored {
        contact: contact.clone(),
        synced: told.after,
    }
}

/// What Braze is told after `events`.
fn told_after(stored: &Stored, events: &[Event]) -> Option<Value> {
    let settings = settings(&[]);
    let decided = decide(Some(stored), events, &[], &link_keys(), &settings);
    decided
        .outbox
        .iter()
        .find(|item| item.kind == Kind::ContactSync)?;
    let contact = decided.contact.unwrap();
    let mut plan = plan(&contact, &stored.synced, &Others::default(), &settings);
    let again = super::super::sync::plan(&contact, &plan.after, &Others::default(), &settings);
    assert!(again.is_empty(), "told twice: {again:?}");
    Some(plan.attributes.remove(0)["messenger_window_closes_at"].clone())
}

#[test]
fn a_contact_of_the_version_before_keeps_its_window_until_the_next_event() {
    let contact = legacy(24 * 60);
    assert_eq!(contact.window_closes_at(), Some(after(24 * 60)));
    let stored = serde_json::to_value(&contact).unwrap();
    assert_eq!(stored["window_closes_at"], "2025-11-21T10:00:00Z");
    assert_eq!(serde_json::from_value::<Contact>(stored).unwrap(), contact);
}

#[test]
fn a_window_that_was_told_too_late_corrects_itself_with_the_next_event() {
    // An optin at minute 1500 opened it by the rules of the version before.
    let stored = told(&legacy(1500 + 24 * 60));
    let unlinked = events(1510, json!({ "account_linking": { "status": "unlinked" } }));
    assert_eq!(told_after(&stored, &unlinked), Some(Value::Null));
    // The message that it should have counted from arrives late.
    let message = events(1490, json!({ "message": { "mid": "m" } }));
    assert_eq!(told_after(&stored, &message), Some(json!("2025-11-22T10:50:00Z")));
    // A message after it makes it later, as ever.
    let message = events(1560, json!({ "message": { "mid": "m" } }));
    assert_eq!(told_after(&stored, &message), Some(json!("2025-11-22T12:00:00Z")));
    // Receipts say nothing of the person.
    let read = events(1510, json!({ "read": { "watermark": 1 } }));
    let decided = decide(Some(&stored), &read, &[], &link_keys(), &settings(&[]));
    assert_eq!(decided.contact, None);
}

#[test]
fn the_new_record_no_longer_holds_the_old_window() {
    let stored = told(&legacy(1500 + 24 * 60));
    let message = events(1490, json!({ "message": { "mid": "m" } }));
    let decided = decide(Some(&stored), &message, &[], &link_keys(), &settings(&[]));
    let contact = serde_json::to_value(decided.contact.unwrap()).unwrap();
    assert_eq!(contact.get("window_closes_at"), None);
    assert_eq!(contact["opened_at"], json!(after(1490)));
}

#[test]
fn a_user_does_not_keep_the_window_of_the_contact_before() {
    let settings = settings(&[]);
    let with_window = decide(
        None,
        &events(0, json!({ "message": { "mid": "m" } })),
        &[],
        &link_keys(),
        &settings,
    );
    let mut stored = told(&with_window.contact.unwrap());
    // It closes for good: only acts that open nothing are left of it.
    stored.contact.opened_at = None;
    let proof = token("ana", after(5));
    let linked = events(
        5,
        json!({ "account_linking": { "status": "linked", "authorization_code": proof } }),
    );
    let contact = decide(Some(&stored), &linked, &[], &link_keys(), &settings)
        .contact
        .unwrap();
    let plan = plan(&contact, &stored.synced, &Others::default(), &settings);
    assert!(plan.identify.is_some());
    assert_eq!(plan.attributes[0]["messenger_window_closes_at"], Value::Null);
    assert_eq!(plan.after.attributes.get("messenger_window_closes_at"), None);
}

/// The one conditional write notes an act exactly where the decider would tell nothing of it.
#[test]
fn what_is_noted_without_a_decision_would_not_have_been_told() {
    for (mode, minutes) in [("alias", 60), ("alias", 5), ("alias", 2880), ("hold", 60)] {
        let settings = settings(&[
            ("UNLINKED_CONTACTS", mode),
            ("WINDOW_SYNC_MINUTES", &minutes.to_string()),
        ]);
        let first = decide(
            None,
            &events(0, json!({ "message": { "mid": "m" } })),
            &[],
            &link_keys(),
            &settings,
        );
        let contact = first.contact.unwrap();
        let Quiet { from, until } = contact.quiet.unwrap();
        assert_eq!(from, start().as_millisecond());
        assert_eq!(until, after(minutes).as_millisecond() - 1, "{mode} {minutes}");
        let stored = told(&contact);
        let tells = |time: i64| {
            let mut message = events(0, json!({ "message": { "mid": "n" } }));
            message[0].at = Timestamp::from_millisecond(time).unwrap();
            !decide(Some(&stored), &message, &[], &link_keys(), &settings)
                .outbox
                .is_empty()
        };
        assert!(!tells(until), "{mode} {minutes}");
        assert_eq!(tells(until + 1), mode == "alias", "{mode} {minutes}");
    }
}

/// Without the attribute nothing has to be told of further acts, so they are decided on once in a step.
#[test]
fn with_the_window_switched_off_acts_are_decided_on_once_in_a_step() {
    let settings = settings(&[("WINDOW_ATTRIBUTE", "")]);
    let mut stored = None::<Stored>;
    let mut decided = Vec::new();
    for minute in 0..150 {
        let mut message = events(0, json!({ "message": { "mid": format!("m{minute}") } }));
        message[0].at = after(minute);
        let now = message[0].at.as_millisecond();
        let quiet = stored.as_ref().and_then(|stored| stored.contact.quiet);
        if quiet.is_some_and(|quiet| (quiet.from..=quiet.until).contains(&now)) {
            continue;
        }
        decided.push(minute);
        let plan = decide(stored.as_ref(), &message, &[], &link_keys(), &settings);
        stored = Some(told(&plan.contact.unwrap()));
    }
    assert_eq!(decided, [0, 60, 120]);
}

#[test]
fn without_a_window_the_next_act_is_decided_on() {
    let settings = settings(&[("WINDOW_SYNC_MINUTES", "100000")]);
    let ad = events(0, json!({ "referral": { "source": "ADS" } }));
    let contact = decide(None, &ad, &[], &link_keys(), &settings).contact.unwrap();
    let Quiet { from, until } = contact.quiet.unwrap();
    assert!(until < from);
}
