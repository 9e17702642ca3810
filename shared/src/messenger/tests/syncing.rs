//! What is planned and what Braze is told, case by case.

use jiff::{SignedDuration, Timestamp};
use secrecy::SecretString;
use serde_json::{Value, json};

use super::super::Stamped;
use super::super::contact::{Link, LinkedVia};
use super::super::sync::{Others, Profile, SyncPlan, Synced, event_target, plan};
use super::super::{Channel, Contact, ContactKey, Event, LinkKeys, Plan, Stored};
use super::{at, decide, link_keys, parsed, settings, token};
use crate::messenger::settings::MessengerSettings;
use crate::outbox::Kind;

const PAGE: &str = "1134597043258171";
const PSID: &str = "5275811702471834";

fn start() -> Timestamp {
    at("2025-11-20T10:00:00.750Z")
}

fn after(minutes: i64) -> Timestamp {
    start() + SignedDuration::from_mins(minutes)
}

fn events(time: Timestamp, list: &str, mut item: Value) -> Vec<Event> {
    item["sender"] = json!({ "id": PSID });
    item["timestamp"] = time.as_millisecond().into();
    let body = json!({ "object": "page", "entry": [{ "id": PAGE, list: [item] }] });
    parsed(body.to_string()).events
}

fn message(minutes: i64) -> Vec<Event> {
    text(minutes, "hi")
}

fn text(minutes: i64, text: &str) -> Vec<Event> {
    events(
        after(minutes),
        "messaging",
        json!({ "message": { "mid": format!("m_{minutes}"), "text": text } }),
    )
}

fn linked(minutes: i64, user: &str) -> Vec<Event> {
    let proof = token(user, after(minutes));
    events(
        after(minutes),
        "messaging",
        json!({ "referral": { "ref": proof, "source": "SHORTLINK" } }),
    )
}

fn unlinked(minutes: i64) -> Vec<Event> {
    events(
        after(minutes),
        "messaging",
        json!({ "account_linking": { "status": "unlinked" } }),
    )
}

/// A contact with its Braze profile, driven event by event.
struct Person {
    settings: MessengerSettings,
    contact: Option<Contact>,
    synced: Synced,
}

impl Person {
    fn new(pairs: &[(&str, &str)]) -> Self {
        Self {
            settings: settings(pairs),
            contact: None,
            synced: Synced::default(),
        }
    }

    fn does(&mut self, events: &[Event]) -> Plan {
        let stored = self.contact.clone().map(|contact| Stored {
            contact,
            synced: self.synced.clone(),
        });
        let plan = decide(stored.as_ref(), events, &[], &link_keys(), &self.settings);
        self.contact = plan.contact.clone().or(self.contact.take());
        plan
    }

    /// Does it and gives what Braze is told, if a sync is queued.
    fn told(&mut self, events: &[Event]) -> Option<SyncPlan> {
        let queued = self
            .does(events)
            .outbox
            .iter()
            .any(|item| item.kind == Kind::ContactSync);
        queued.then(|| {
            let plan = plan(
                self.contact.as_ref().unwrap(),
                &self.synced,
                &Others::default(),
                &self.settings,
            );
            self.synced = plan.after.clone();
            plan
        })
    }

    fn objects(&mut self, events: &[Event]) -> Vec<Value> {
        let plan = self.told(events).expect("a sync is queued");
        assert_eq!(plan.identify, None);
        plan.attributes.0
    }
}

#[test]
fn an_unlinked_person_is_an_alias_only_profile() {
    let mut person = Person::new(&[]);
    assert_eq!(
        person.objects(&message(0)),
        [json!({
            "user_alias": { "alias_label": "messenger:1134597043258171", "alias_name": PSID },
            "_update_existing_only": false,
            "messenger_id": PSID,
            "messenger_window_closes_at": "2025-11-21T10:00:00Z",
        })]
    );
    assert_eq!(person.objects(&text(1, "STOP"))[0]["messenger_opted_out"], true);
    assert_eq!(
        person.objects(&text(2, "start")),
        [json!({
            "user_alias": { "alias_label": "messenger:1134597043258171", "alias_name": PSID },
            "_update_existing_only": false,
            "messenger_opted_out": false,
            "messenger_window_closes_at": "2025-11-21T10:02:00Z",
        })]
    );
}

#[test]
fn ten_messages_an_hour_are_one_request() {
    let mut person = Person::new(&[]);
    assert!(person.told(&message(0)).is_some());
    for minutes in [6, 12, 18, 24, 30, 36, 42, 48, 54, 59] {
        let plan = person.does(&message(minutes));
        assert!(
            plan.contact.is_some() && plan.outbox.is_empty(),
            "only the contact is written"
        );
    }
    let object = &person.objects(&message(60))[0];
    assert_eq!(object["messenger_window_closes_at"], "2025-11-21T11:00:00Z");
    assert_eq!(
        object.get("messenger_id"),
        None,
        "unchanged values are not paid for"
    );
    // The same again, later or earlier, is no news.
    assert_eq!(person.does(&message(60)), Plan::default());
    assert_eq!(person.does(&message(30)), Plan::default());
}

#[test]
fn a_window_that_is_off_is_never_told() {
    let mut person = Person::new(&[("WINDOW_ATTRIBUTE", "")]);
    assert_eq!(person.objects(&message(0))[0].as_object().unwrap().len(), 3);
    assert!(person.told(&message(600)).is_none());
    assert!(person.contact.as_ref().unwrap().window_closes_at().is_some());
}

#[test]
fn what_was_given_up_is_queued_again_with_a_later_message() {
    for window in ["messenger_window_closes_at", ""] {
        let mut person = Person::new(&[("WINDOW_ATTRIBUTE", window)]);
        // Queued, and never told.
        assert_eq!(person.does(&message(0)).outbox.len(), 1);
        assert!(person.does(&message(59)).outbox.is_empty());
        let object = &person.objects(&message(120))[0];
        assert_eq!(object["messenger_id"], PSID, "{window:?}");
    }
}

#[test]
fn standby_makes_a_contact_and_links_and_opens_no_window() {
    let mut person = Person::new(&[]);
    let proof = token("ana", start());
    let looked_on = events(
        start(),
        "standby",
        json!({ "postback": { "mid": "m", "referral": { "ref": proof } } }),
    );
    assert_eq!(
        person.objects(&looked_on),
        [json!({ "external_id": "ana", "messenger_id": PSID })]
    );
    assert_eq!(person.contact.as_ref().unwrap().window_closes_at(), None);
    assert_eq!(person.contact.as_ref().unwrap().last_interaction, Some(start()));
    assert_eq!(
        person.objects(&message(1)),
        [json!({ "external_id": "ana", "messenger_window_closes_at": "2025-11-21T10:01:00Z" })]
    );
}

#[test]
fn a_link_after_an_alias_identifies_first_and_writes_everything() {
    let mut person = Person::new(&[]);
    person.told(&text(0, "STOP"));
    let plan = person.told(&linked(1, "ana")).unwrap();
    assert_eq!(
        json!(plan.identify.unwrap()),
        json!({
            "external_id": "ana",
            "user_alias": { "alias_label": "messenger:1134597043258171", "alias_name": PSID },
        })
    );
    assert_eq!(
        plan.attributes.0,
        [json!({
            "external_id": "ana",
            "messenger_id": PSID,
            "messenger_opted_out": true,
            "messenger_window_closes_at": "2025-11-21T10:01:00Z",
        })]
    );
    // The same user once more is no news.
    assert!(person.told(&linked(2, "ana")).is_none());
    assert_eq!(person.contact.unwrap().link.unwrap().at, after(2));
}

#[test]
fn a_moved_person_leaves_nothing_behind_and_is_not_identified_again() {
    let mut person = Person::new(&[]);
    person.told(&message(0));
    person.told(&linked(1, "ana"));
    assert_eq!(
        person.objects(&linked(2, "bo")),
        [
            json!({
                "external_id": "ana", "_update_existing_only": true,
                "messenger_id": null, "messenger_window_closes_at": null,
            }),
            json!({
                "external_id": "bo",
                "messenger_id": PSID, "messenger_window_closes_at": "2025-11-21T10:02:00Z",
            }),
        ]
    );
}

#[test]
fn an_unlinked_person_is_held_until_linked_again() {
    let mut person = Person::new(&[]);
    person.told(&linked(0, "ana"));
    assert_eq!(
        person.objects(&unlinked(1)),
        [json!({
            "external_id": "ana", "_update_existing_only": true,
            "messenger_id": null, "messenger_window_closes_at": null,
        })]
    );
    assert_eq!(
        event_target(person.contact.as_ref().unwrap(), &person.synced),
        None
    );
    assert!(person.told(&text(200, "STOP")).unwrap().is_empty());
    assert!(person.synced.held);
    assert_eq!(
        person.objects(&linked(300, "bo")),
        [json!({
            "external_id": "bo", "messenger_id": PSID, "messenger_opted_out": true,
            "messenger_window_closes_at": "2025-11-21T15:00:00Z",
        })]
    );
}

#[test]
fn unlinked_before_braze_heard_of_the_link_is_still_an_alias() {
    let mut person = Person::new(&[]);
    person.told(&message(0));
    let both = [linked(1, "ana"), unlinked(2)].concat();
    assert!(
        person.told(&both).is_none(),
        "nothing that Braze knows has changed"
    );
    assert_eq!(person.objects(&message(90))[0]["user_alias"]["alias_name"], PSID);
}

#[test]
fn hold_sends_nothing_of_people_who_never_were_linked() {
    let mut person = Person::new(&[("UNLINKED_CONTACTS", "hold"), ("MESSENGER_EVENTS", "message")]);
    let plan = person.does(&message(0));
    assert!(plan.contact.is_some() && plan.outbox.is_empty());
    assert!(plan_of(&person).is_empty());
    assert_eq!(person.objects(&linked(1, "ana"))[0]["external_id"], "ana");
    assert_eq!(person.does(&message(2)).outbox[0].kind, Kind::ContactEvent);
    assert_eq!(person.objects(&unlinked(3))[0]["messenger_id"], Value::Null);
    assert!(person.told(&message(90)).is_none(), "there is nothing to tell");
}

fn plan_of(person: &Person) -> SyncPlan {
    plan(
        person.contact.as_ref().unwrap(),
        &person.synced,
        &Others::default(),
        &person.settings,
    )
}

#[test]
fn who_was_held_is_told_of_once_the_setting_changes() {
    let mut person = Person::new(&[("UNLINKED_CONTACTS", "hold"), ("WINDOW_ATTRIBUTE", "")]);
    assert!(person.told(&message(0)).is_none());
    person.settings = settings(&[("WINDOW_ATTRIBUTE", "")]);
    assert_eq!(person.objects(&message(1))[0]["messenger_id"], PSID);
}

#[test]
fn instagram_has_attributes_of_its_own_and_names_take_the_account() {
    let settings = settings(&[
        ("INSTAGRAM_ID_ATTRIBUTE", "ig_{account_id}"),
        ("MESSENGER_ID_ATTRIBUTE", "psid_{account_id}"),
        ("WINDOW_ATTRIBUTE", "messenger_window_{account_id}"),
    ]);
    let object = |channel: Channel| {
        let key = ContactKey {
            channel,
            account_id: "178".to_owned(),
            scoped_id: "561".into(),
        };
        let mut contact = Contact::new(key, start());
        contact.opened_at = Some(start());
        contact.opted_out = Some(Stamped {
            at: start(),
            value: true,
        });
        contact.link = Some(Stamped {
            at: start(),
            value: Link {
                user_id: Some("ana".into()),
                via: LinkedVia::Ref,
            },
        });
        plan(&contact, &Synced::default(), &Others::default(), &settings)
            .attributes
            .0
    };
    assert_eq!(
        object(Channel::Instagram),
        [json!({
            "external_id": "ana", "ig_178": "561", "instagram_opted_out": true,
            "instagram_window_178": "2025-11-21T10:00:00Z",
        })]
    );
    assert_eq!(
        object(Channel::Messenger),
        [json!({
            "external_id": "ana", "psid_178": "561", "messenger_opted_out": true,
            "messenger_window_178": "2025-11-21T10:00:00Z",
        })]
    );
}

#[test]
fn listed_kinds_become_custom_events_without_what_was_written() {
    let mut person = Person::new(&[("MESSENGER_EVENTS", "message, Postback,echo")]);
    let proof = token("ana", after(1));
    let both = [
        text(0, "my card is 4111"),
        events(after(1), "messaging", json!({ "postback": { "mid": "p", "payload": "TRACK", "referral": { "ref": proof, "source": "SHORTLINK" } } })),
        events(after(2), "messaging", json!({ "reaction": { "mid": "p", "action": "react" } })),
    ]
    .concat();
    let twice = [both.clone(), both].concat();
    let outbox = person.does(&twice).outbox;
    let events: Vec<_> = outbox
        .iter()
        .filter(|item| item.kind == Kind::ContactEvent)
        .collect();
    assert_eq!(events.len(), 2);
    assert_eq!(
        (events[0].event_key.as_str(), events[1].event_key.as_str()),
        ("event#message:m_0", "event#postback:p")
    );
    assert_eq!(
        events[1].payload,
        json!({
            "name": "messenger_postback", "time": "2025-11-20T10:01:00.750Z",
            "properties": { "channel": "messenger", "account_id": PAGE, "source": "SHORTLINK", "payload": "TRACK" },
        })
    );
    assert!(!format!("{outbox:?}").contains("4111"));
    // A redelivery plans the same events and nothing else; the store knows them by their keys.
    let again = person.does(&twice);
    assert_eq!(again.contact, None);
    assert_eq!(again.outbox.len(), 2);
    // The page's own message counts once there is a contact to put it on.
    let echo = json!({ "object": "page", "entry": [{ "id": PAGE, "messaging": [
        { "sender": { "id": PAGE }, "recipient": { "id": PSID }, "message": { "mid": "e", "is_echo": true } },
    ] }] });
    assert_eq!(
        person.does(&parsed(echo.to_string()).events).outbox[0].payload["name"],
        "messenger_echo"
    );
}

#[test]
fn custom_events_go_to_the_profile_that_braze_knows() {
    let mut person = Person::new(&[]);
    person.told(&message(0));
    let target =
        |person: &Person| event_target(person.contact.as_ref().unwrap(), &person.synced).map(Value::from);
    assert_eq!(
        target(&person),
        Some(json!({ "user_alias": { "alias_label": "messenger:1134597043258171", "alias_name": PSID } }))
    );
    person.told(&linked(1, "ana"));
    assert_eq!(target(&person), Some(json!({ "external_id": "ana" })));
}

#[test]
fn a_key_that_was_set_too_late_links_with_the_redelivery() {
    let settings = settings(&[]);
    let events = linked(0, "ana");
    let wrong = LinkKeys::new(&SecretString::from("not yet the right key"), None);
    let first = decide(None, &events, &[], &wrong, &settings);
    assert_eq!((first.counts.foreign, first.counts.linked), (1, 0));
    let contact = first.contact.unwrap();
    assert_eq!(contact.user_id(), None);
    let stored = Stored {
        contact,
        synced: Synced::default(),
    };
    let second = decide(Some(&stored), &events, &[], &link_keys(), &settings);
    assert_eq!(second.contact.unwrap().user_id(), Some("ana"));
    assert_ne!(
        first.outbox[0].event_key, second.outbox[0].event_key,
        "else the store would drop the second sync"
    );
}

#[test]
fn tokens_are_not_kept_as_referrals() {
    let mut person = Person::new(&[]);
    person.does(&linked(0, "ana"));
    let referral = person.contact.as_ref().unwrap().referral.clone().unwrap().value;
    assert_eq!(
        (referral.source.as_deref(), referral.reference),
        (Some("SHORTLINK"), None)
    );
    person.does(&events(
        after(1),
        "messaging",
        json!({ "referral": { "ref": "summer_sale", "source": "ADS", "ad_id": 6_045_246_247_433_u64 } }),
    ));
    let referral = person.contact.unwrap().referral.unwrap().value;
    assert_eq!(
        referral.reference.as_deref().map(String::as_str),
        Some("summer_sale")
    );
    assert_eq!(referral.ad_id.as_deref(), Some("6045246247433"));
}

#[test]
fn events_of_other_people_are_left_out() {
    let body = json!({ "object": "page", "entry": [{ "id": PAGE, "messaging": [
        { "sender": { "id": "1" }, "timestamp": 1_763_632_800, "message": { "mid": "a", "text": "hi" } },
        { "sender": { "id": "2" }, "timestamp": 1_763_632_801, "message": { "mid": "b", "text": "STOP" } },
    ] }] });
    let plan = decide(
        None,
        &parsed(body.to_string()).events,
        &[],
        &link_keys(),
        &settings(&[]),
    );
    let contact = plan.contact.unwrap();
    assert_eq!(
        (contact.key.scoped_id.as_str(), contact.is_opted_out()),
        ("1", None)
    );
}

#[test]
fn records_survive_storage() {
    let mut person = Person::new(&[]);
    person.told(&linked(0, "ana"));
    person.told(&text(1, "STOP"));
    let contact = person.contact.unwrap();
    let stored: serde_json::Value = serde_json::to_value(&contact).unwrap();
    assert_eq!(stored["key"], format!("messenger#{PAGE}#{PSID}"));
    // How long the next acts are quiet is stored beside the facts.
    let facts = Contact {
        quiet: None,
        ..contact.clone()
    };
    assert_eq!(serde_json::from_value::<Contact>(stored).unwrap(), facts);
    let item: std::collections::HashMap<String, aws_sdk_dynamodb::types::AttributeValue> =
        serde_dynamo::to_item(&contact).unwrap();
    assert_eq!(serde_dynamo::from_item::<_, Contact>(item).unwrap(), facts);
    let item: std::collections::HashMap<String, aws_sdk_dynamodb::types::AttributeValue> =
        serde_dynamo::to_item(&person.synced).unwrap();
    assert_eq!(serde_dynamo::from_item::<_, Synced>(item).unwrap(), person.synced);
    assert_eq!(person.synced.profile, Profile::User("ana".into()));
}
