//! Consent by topic: what a person opts in to and out of, and what Braze is told of it.

use jiff::SignedDuration;
use serde_json::{Value, json};

use super::super::stamped::Stamped;
use super::super::sync::{Others, Synced, plan};
use super::super::topic::{Topic, Topics};
use super::super::{Contact, Stored};
use super::{at, decide, link_keys, parsed, settings};
use crate::outbox::Kind;
use crate::personal::Personal;

const PAGE: &str = "1134597043258171";
const PSID: &str = "5275811702471834";
const WITH_TOKEN: [(&str, &str); 1] = [("MARKETING_TOKEN_ATTRIBUTE", "messenger_marketing_token")];

fn optin(title: Option<&str>, token: Option<&str>, status: Option<&str>) -> Value {
    json!({ "optin": {
        "type": "notification_messages", "title": title, "notification_messages_token": token,
        "notification_messages_timezone": "Europe/Berlin", "token_expiry_timestamp": 1_795_000_000,
        "user_token_status": "NOT_REFRESHED", "notification_messages_status": status,
    } })
}

const STOP: Option<&str> = Some("STOP NOTIFICATIONS");
const RESUME: Option<&str> = Some("RESUME NOTIFICATIONS");

/// The contact and its profile in Braze after these items, a minute apart, delivered in this order.
fn after(items: &[Value], order: &[usize], pairs: &[(&str, &str)]) -> (Contact, Value) {
    let settings = settings(pairs);
    let mut stored = None::<Stored>;
    for number in order {
        let mut item = items[*number].clone();
        let time = at("2025-11-20T10:00:00Z") + SignedDuration::from_mins(i64::try_from(*number).unwrap());
        item["sender"] = json!({ "id": PSID });
        item["timestamp"] = time.as_millisecond().into();
        let body = json!({ "object": "page", "entry": [{ "id": PAGE, "messaging": [item] }] });
        let events = parsed(body.to_string()).events;
        let decided = decide(stored.as_ref(), &events, &[], &link_keys(), &settings);
        let synced = stored
            .as_ref()
            .map(|stored| stored.synced.clone())
            .unwrap_or_default();
        let contact = decided.contact.or(stored.map(|stored| stored.contact)).unwrap();
        let is_told = decided.outbox.iter().any(|item| item.kind == Kind::ContactSync);
        let told = plan(&contact, &synced, &Others::default(), &settings);
        let synced = if is_told { told.after } else { synced };
        stored = Some(Stored { contact, synced });
    }
    let Stored { contact, synced } = stored.unwrap();
    assert!(
        plan(&contact, &synced, &Others::default(), &settings).is_empty(),
        "something is not told"
    );
    (contact, json!(synced.attributes))
}

fn opted_in(items: &[Value]) -> Value {
    let straight: Vec<usize> = (0..items.len()).collect();
    let (expected, told) = after(items, &straight, &WITH_TOKEN);
    let backwards: Vec<usize> = straight.iter().rev().chain(&straight).copied().collect();
    let (contact, again) = after(items, &backwards, &WITH_TOKEN);
    assert!(contact.same_facts(&expected), "{contact:#?} {expected:#?}");
    for name in ["messenger_marketing_opted_in", "messenger_marketing_token"] {
        assert_eq!(again.get(name), told.get(name), "{name}");
    }
    told
}

#[test]
fn an_opt_in_to_a_topic_is_no_window_and_consent_to_that_topic() {
    let told = opted_in(&[optin(Some("Offers"), Some("K"), None)]);
    assert_eq!(
        told,
        json!({ "messenger_id": PSID, "messenger_marketing_opted_in": true, "messenger_marketing_token": "K" })
    );
    let told = opted_in(&[
        optin(Some("Offers"), Some("K"), None),
        optin(Some("Offers"), Some("K"), STOP),
    ]);
    assert_eq!(
        told,
        json!({ "messenger_id": PSID, "messenger_marketing_opted_in": false })
    );
    let told = opted_in(&[
        optin(Some("Offers"), Some("K"), None),
        optin(Some("Offers"), Some("K"), STOP),
        optin(Some("Offers"), Some("K"), RESUME),
    ]);
    assert_eq!(told["messenger_marketing_opted_in"], true);
}

#[test]
fn any_topic_that_is_subscribed_counts() {
    let both = [
        optin(Some("Offers"), Some("K"), None),
        optin(Some("News"), Some("L"), None),
    ];
    let stopped =
        |title: &str, token: &str| [both.to_vec(), vec![optin(Some(title), Some(token), STOP)]].concat();
    for (title, token, left) in [("Offers", "K", "L"), ("News", "L", "K")] {
        let told = opted_in(&stopped(title, token));
        assert_eq!(told["messenger_marketing_opted_in"], true);
        assert_eq!(told["messenger_marketing_token"], left);
    }
    let none = [stopped("Offers", "K"), vec![optin(Some("News"), Some("L"), STOP)]].concat();
    assert_eq!(opted_in(&none)["messenger_marketing_opted_in"], false);
}

/// Meta's samples leave fields out.
#[test]
fn a_stop_that_does_not_name_the_title_finds_its_topic() {
    let opt_in = optin(Some("Offers"), Some("K"), None);
    for (stop, expected) in [
        (optin(None, Some("K"), STOP), false),
        (optin(None, None, STOP), false),
        (optin(None, Some("another"), STOP), false),
        (optin(Some("Offers"), None, STOP), false),
        (optin(None, Some("K"), Some("stop_notifications")), false),
        (optin(None, Some("K"), Some("something new")), false),
        (
            json!({ "optout": { "type": "notification_messages", "title": "Offers" } }),
            false,
        ),
        (
            json!({ "optout": { "type": "notification_messages", "notification_messages_token": "K" } }),
            false,
        ),
        (json!({ "optout": { "type": "notification_messages" } }), false),
    ] {
        let told = opted_in(&[opt_in.clone(), stop.clone()]);
        assert_eq!(told["messenger_marketing_opted_in"], expected, "{stop}");
        assert_eq!(told.get("messenger_opted_out"), None, "{stop}");
        let again = opted_in(&[
            opt_in.clone(),
            stop.clone(),
            optin(Some("Offers"), Some("K"), RESUME),
        ]);
        assert_eq!(again["messenger_marketing_opted_in"], true, "{stop}");
    }
}

#[test]
fn an_opt_out_of_everything_has_no_type() {
    let (contact, told) = after(&[json!({ "optout": {} })], &[0], &[]);
    assert_eq!(contact.is_opted_out(), Some(true));
    assert_eq!(told["messenger_opted_out"], true);
    for kind in [
        "notification_messages",
        "NOTIFICATION_MESSAGES",
        "one_time_notif_req",
        "something_new",
    ] {
        let (contact, told) = after(&[json!({ "optout": { "type": kind } })], &[0], &[]);
        assert_eq!(contact.is_opted_out(), None, "{kind}");
        assert_eq!(told.get("messenger_opted_out"), None, "{kind}");
    }
}

/// Meta has shown no sample of it: what names a topic is about that topic, with or without a type.
#[test]
fn an_opt_out_without_a_type_that_names_a_topic_is_about_that_topic() {
    for stop in [
        json!({ "optout": { "title": "Offers" } }),
        json!({ "optout": { "notification_messages_token": "K" } }),
    ] {
        let (contact, told) = after(
            &[optin(Some("Offers"), Some("K"), None), stop.clone()],
            &[0, 1],
            &[],
        );
        assert_eq!(contact.is_opted_out(), None, "{stop}");
        assert_eq!(told["messenger_marketing_opted_in"], false, "{stop}");
    }
}

#[test]
fn of_an_opt_in_and_a_stop_at_the_same_time_the_stop_counts() {
    let said = |subscribed| {
        let token = Some(Personal("K".to_owned()));
        let value = Topic {
            subscribed,
            token,
            ..Topic::default()
        };
        Stamped {
            at: at("2025-11-20T10:00:00Z"),
            value,
        }
    };
    for order in [[true, false], [false, true]] {
        let mut topics = Topics::default();
        for subscribed in order {
            topics.say(Some("Offers"), said(subscribed));
        }
        assert_eq!(topics.is_subscribed(), Some(false), "{order:?}");
    }
}

#[test]
fn a_keyword_is_about_everything_and_leaves_topics_alone() {
    let told = opted_in(&[
        optin(Some("Offers"), Some("K"), None),
        json!({ "message": { "mid": "m", "text": "STOP" } }),
    ]);
    assert_eq!(told["messenger_opted_out"], true);
    assert_eq!(told["messenger_marketing_opted_in"], true);
}

#[test]
fn the_token_is_kept_with_its_topic_and_shown_nowhere() {
    let (contact, told) = after(&[optin(Some("Offers"), Some("secret-K"), None)], &[0], &[]);
    assert_eq!(
        told.get("messenger_marketing_token"),
        None,
        "off unless asked for"
    );
    let stored = serde_json::to_value(&contact).unwrap();
    assert_eq!(
        stored["topics"]["title#Offers"],
        json!({ "at": "2025-11-20T10:00:00Z", "value": {
            "subscribed": true, "token": "secret-K", "token_status": "NOT_REFRESHED",
            "time_zone": "Europe/Berlin", "expires_at": "2026-11-18T11:06:40Z",
        } })
    );
    let item: std::collections::HashMap<String, aws_sdk_dynamodb::types::AttributeValue> =
        serde_dynamo::to_item(&contact).unwrap();
    // How long the next acts are quiet is stored beside the facts.
    let facts = Contact {
        quiet: None,
        ..contact.clone()
    };
    assert_eq!(serde_dynamo::from_item::<_, Contact>(item).unwrap(), facts);
    assert!(!format!("{contact:?}").contains("secret-K"));
}

#[test]
fn off_is_off() {
    let (_, told) = after(
        &[optin(Some("Offers"), Some("K"), None)],
        &[0],
        &[("MARKETING_ATTRIBUTE", "")],
    );
    assert_eq!(told, json!({ "messenger_id": PSID }));
    assert_eq!(Synced::default().attributes.len(), 0);
}

#[test]
fn a_record_stays_small_and_keeps_the_latest_topics() {
    let items: Vec<Value> = (0..60)
        .map(|n| optin(Some(&format!("Topic {n}")), Some("K"), None))
        .collect();
    let order: Vec<usize> = (0..60).rev().collect();
    let (contact, _) = after(&items, &order, &[]);
    let stored = serde_json::to_value(&contact).unwrap();
    let topics = stored["topics"].as_object().unwrap();
    assert_eq!(topics.len(), 50);
    assert!(topics.contains_key("title#Topic 59") && !topics.contains_key("title#Topic 9"));
}

#[test]
fn a_stop_whose_topic_cannot_be_told_stops_all_that_it_may_be_about() {
    // An opt-in without a title, and a stop without the token.
    let told = opted_in(&[optin(None, Some("K"), None), optin(Some("Offers"), None, STOP)]);
    assert_eq!(told["messenger_marketing_opted_in"], false);
    // A token that was replaced since.
    let told = opted_in(&[
        optin(Some("Offers"), Some("K1"), None),
        optin(Some("Offers"), Some("K2"), None),
        optin(None, Some("K1"), STOP),
    ]);
    assert_eq!(told["messenger_marketing_opted_in"], false);
    // One that is known stops no other topic.
    let told = opted_in(&[
        optin(Some("Offers"), Some("K1"), None),
        optin(Some("News"), Some("K2"), None),
        optin(None, Some("K1"), STOP),
    ]);
    assert_eq!(told["messenger_marketing_opted_in"], true);
    assert_eq!(told["messenger_marketing_token"], "K2");
}

#[test]
fn a_status_without_a_type_is_about_a_topic_and_opens_no_window() {
    let stop = json!({ "optin": {
        "notification_messages_status": "STOP NOTIFICATIONS", "title": "Offers", "payload": "x",
    } });
    let told = opted_in(&[optin(Some("Offers"), Some("K"), None), stop]);
    assert_eq!(told["messenger_marketing_opted_in"], false);
    assert_eq!(told.get("messenger_window_closes_at"), None);
}
