//! What Meta might send, and what nobody should: nothing of it may panic or cost a neighbour.

use std::fmt::Write;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::Channel;
use super::super::Effect;
use super::super::event::{EventKind, Person};
use super::{at, decide, link_keys, parsed, received_at, settings};
use crate::outbox::Reason;

const PAGE: &str = "1134597043258171";

fn item(psid: &str, mid: &str) -> Value {
    json!({
        "sender": { "id": psid }, "recipient": { "id": PAGE }, "timestamp": 1_763_632_800_000_u64,
        "message": { "mid": mid, "text": "hi" },
    })
}

fn entry(items: &[Value]) -> Value {
    json!({ "object": "page", "entry": [{ "id": PAGE, "time": 1_763_632_800_000_u64, "messaging": items }] })
}

fn reasons(body: impl Into<Vec<u8>>) -> Vec<Reason> {
    let parsed = parsed(body);
    assert!(parsed.events.is_empty());
    parsed
        .quarantined
        .iter()
        .map(|quarantined| quarantined.reason)
        .collect()
}

// Others read `entry[0]`, `messaging[0]` or return from inside the loop.
#[test]
fn every_item_of_every_entry_is_read() {
    let entry = |page: &str| {
        let item = |n: u32| json!({ "sender": { "id": format!("77{n}") }, "message": { "mid": format!("{page}.{n}") } });
        json!({ "id": page, "messaging": [item(1), item(2)], "standby": [item(3), item(4)], "changes": [
            { "field": "feed", "value": {} },
            { "field": "messages", "value": item(5) },
            { "field": "standby", "value": item(6) },
        ] })
    };
    let body = json!({ "object": "page", "entry": [entry("1001"), entry("1002"), entry("1003")] });
    let parsed = parsed(body.to_string());
    let seen: Vec<_> = parsed
        .events
        .iter()
        .map(|event| {
            (
                event.account_id.as_str(),
                event.key.rsplit('.').next().unwrap(),
                event.standby,
            )
        })
        .collect();
    let of_one = |page: &'static str| {
        [
            ("1", false),
            ("2", false),
            ("3", true),
            ("4", true),
            ("5", false),
            ("6", true),
        ]
        .map(|(n, standby)| (page, n, standby))
    };
    assert_eq!(seen, [of_one("1001"), of_one("1002"), of_one("1003")].concat());
    assert_eq!((parsed.ignored, parsed.quarantined.len()), (3, 0));
}

// Others lose a payload to one item that they do not know or cannot read.
#[test]
fn a_broken_item_costs_only_itself() {
    let mut items: Vec<Value> = (0..1000)
        .map(|n| item(&format!("52758{n}"), &format!("m_{n}")))
        .collect();
    for (position, broken) in [
        (0, json!("text")),
        (1, json!(null)),
        (2, json!([])),
        (3, json!({ "message": { "mid": "m" } })),
        (4, json!({ "sender": { "id": 1.5 }, "message": {} })),
        (5, json!({ "sender": { "id": "" }, "message": {} })),
        (6, json!({ "sender": { "id": "1 2" }, "message": {} })),
        (7, json!({ "sender": { "id": "x".repeat(129) }, "message": {} })),
        (8, json!({ "sender": { "id": "1" }, "message": [] })),
        (9, json!({ "sender": { "id": "1" }, "never_seen_before": {} })),
        (999, json!({})),
    ] {
        items[position] = broken;
    }
    let parsed = parsed(entry(&items).to_string());
    let messages = parsed
        .events
        .iter()
        .filter(|event| matches!(event.kind, EventKind::Message(_)));
    assert_eq!(messages.count(), 1000 - 11);
    let reasons: Vec<_> = parsed
        .quarantined
        .iter()
        .map(|quarantined| quarantined.reason)
        .collect();
    assert_eq!(
        reasons,
        [
            Reason::MalformedItem,
            Reason::MalformedItem,
            Reason::MalformedItem,
            Reason::NoPerson,
            Reason::BadId,
            Reason::BadId,
            Reason::BadId,
            Reason::BadId,
            Reason::MalformedItem,
            Reason::UnknownKind,
            Reason::UnknownKind,
        ]
    );
    assert_eq!(
        parsed.quarantined[0].raw.0,
        format!(
            r#"{{"object":"page","entry":[{{"id":"{PAGE}","time":1763632800000,"messaging":["text"]}}]}}"#
        )
    );
}

#[test]
fn a_broken_entry_costs_only_itself() {
    let good = json!({ "id": PAGE, "messaging": [item("1", "m")] });
    let body = json!({ "object": "page", "entry": [
        good, "text", { "id": PAGE }, { "id": PAGE, "messaging": {} }, { "id": PAGE, "standby": 7, "messaging": [item("2", "n")] },
        { "id": PAGE, "messaging": null, "changes": [{ "field": "feed" }] },
    ] });
    let parsed = parsed(body.to_string());
    assert_eq!((parsed.events.len(), parsed.ignored), (2, 1));
    let reasons: Vec<_> = parsed
        .quarantined
        .iter()
        .map(|quarantined| quarantined.reason)
        .collect();
    assert_eq!(
        reasons,
        [
            Reason::MalformedEntry,
            Reason::NoItems,
            Reason::MalformedList,
            Reason::MalformedList
        ]
    );
}

#[test]
fn a_body_that_cannot_be_read_is_kept_whole() {
    assert_eq!(reasons(""), [Reason::NotJson]);
    assert_eq!(reasons("EVENT"), [Reason::NotJson]);
    assert_eq!(
        reasons("{\"object\":\"page\",\"entry\":[]} trailing"),
        [Reason::NotJson]
    );
    assert_eq!(
        reasons("{\"object\":\"page\",\"entry\":[\"\0\"]}"),
        [Reason::NotJson]
    );
    assert_eq!(reasons("[]"), [Reason::MalformedBody]);
    assert_eq!(reasons("7"), [Reason::MalformedBody]);
    assert_eq!(reasons(r#"{"object":"page"}"#), [Reason::MalformedBody]);
    assert_eq!(
        reasons(r#"{"object":"page","entry":{}}"#),
        [Reason::MalformedBody]
    );
    assert_eq!(
        reasons(r#"{"object":"page","object":"instagram","entry":[]}"#),
        [Reason::MalformedBody]
    );
    assert_eq!(reasons(r#"{"entry":[]}"#), [Reason::UnknownObject]);
    assert_eq!(
        reasons(r#"{"object":["page"],"entry":[]}"#),
        [Reason::UnknownObject]
    );
    assert_eq!(
        reasons(r#"{"object":"whatsapp_business_account","entry":[{}]}"#),
        [Reason::UnknownObject]
    );
    let body = r#"{"object":"user","entry":[{"id":"1"}]}"#;
    assert_eq!(parsed(body).quarantined[0].raw.0, body);
}

#[test]
fn what_json_allows_and_others_refuse_costs_nothing() {
    for (item, person) in [
        (
            r#"{"sender":{"id":"P"},"message":{"mid":"m","text":"see you \ud83d"}}"#,
            "P",
        ),
        (
            r#"{"sender":{"id":"P"},"message":{"mid":"m"},"unused \ud83d":["\ude00",1e400]}"#,
            "P",
        ),
        (
            r#"{"sender":{"id":10000002479028556077430},"message":{"mid":"m"}}"#,
            "10000002479028556077430",
        ),
    ] {
        let body =
            format!("\u{FEFF}{{\"object\":\"page\",\"entry\":[{{\"id\":\"1\",\"messaging\":[{item}]}}]}}");
        let parsed = parsed(body);
        assert_eq!(parsed.quarantined, [], "{item}");
        assert_eq!(parsed.events[0].person, Person::Scoped(person.into()), "{item}");
    }
    let bytes = b"{\"object\":\"page\",\"entry\":[{\"id\":\"1\",\"messaging\":[{\"sender\":{\"id\":\"P\"},\"message\":{\"text\":\"\xE9\"}}]}]}";
    assert_eq!(parsed(bytes).events.len(), 1);
}

#[test]
fn depth_is_no_danger() {
    let deep = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    assert_eq!(reasons(deep(1_000_000)), [Reason::MalformedBody]);
    assert_eq!(reasons("[".repeat(1_000_000)), [Reason::NotJson]);
    assert_eq!(reasons("{\"a\":".repeat(200_000)), [Reason::NotJson]);
    // Under a key that nobody reads it is skipped, and under one that is read it costs the item.
    let body = format!(
        r#"{{"object":"page","entry":[{{"id":"9","messaging":[
            {{"sender":{{"id":"1"}},"message":{{"mid":"a","extra":{0}}}}},
            {{"sender":{{"id":"2"}},"message":{0}}},
            {{"sender":{{"id":"3"}},"message":{{"mid":"c","text":{0}}}}},
            {0},
            {{"sender":{{"id":"5"}},"message":{{"mid":"e"}}}}
        ]}}]}}"#,
        deep(100_000)
    );
    let parsed = parsed(body);
    let people: Vec<_> = parsed.events.iter().map(|event| event.person.clone()).collect();
    assert!(people.contains(&Person::Scoped("1".into())) && people.contains(&Person::Scoped("5".into())));
    assert_eq!(parsed.events.len() + parsed.quarantined.len(), 5);
}

#[test]
fn times_are_read_in_seconds_milliseconds_and_text() {
    let time = |timestamp: Value, entry_time: Value| {
        let body = json!({ "object": "page", "entry": [{ "id": PAGE, "time": entry_time, "messaging": [
            { "sender": { "id": "1" }, "timestamp": timestamp, "message": { "mid": "m" } },
        ] }] });
        parsed(body.to_string()).events[0].at
    };
    let own = at("2025-11-20T10:00:00.250Z");
    let entry = json!(1_763_632_900_000_u64);
    assert_eq!(time(json!(1_763_632_800_250_u64), entry.clone()), own);
    assert_eq!(time(json!("1763632800250"), entry.clone()), own);
    assert_eq!(time(json!(1_763_632_800.25), entry.clone()), own);
    assert_eq!(
        time(json!(1_763_632_800), entry.clone()),
        at("2025-11-20T10:00:00Z")
    );
    assert_eq!(
        time(json!("1763632800"), entry.clone()),
        at("2025-11-20T10:00:00Z")
    );
    for missing in [
        json!(null),
        json!(""),
        json!("soon"),
        json!(-5),
        json!(0),
        json!({}),
        json!(1e300),
    ] {
        assert_eq!(time(missing, entry.clone()), at("2025-11-20T10:01:40Z"));
    }
    assert_eq!(time(json!(null), json!(null)), received_at());
    // A date that cannot be would keep the window open for good.
    assert_eq!(
        time(json!(4_102_444_800_000_u64), json!(4_102_444_800_000_u64)),
        received_at()
    );
    let ahead = received_at().as_millisecond() + 60_000;
    assert_eq!(time(json!(ahead), json!(null)).as_millisecond(), ahead);
}

#[test]
fn ids_are_read_as_numbers_and_text() {
    let body = r#"{"object":"instagram","entry":[{"id":17841452691600098,"messaging":[
        {"sender":{"id":5614879045272581},"recipient":{"id":17841452691600098},"read":{"mid":7}},
        {"sender":{"id":12345678901234567890123},"message":{"mid":"m"}},
        {"sender":{"id":1.5e3},"message":{"mid":"m"}}]}]}"#;
    let parsed = parsed(body);
    let keys: Vec<_> = parsed
        .events
        .iter()
        .map(|event| event.contact_key().unwrap().to_string())
        .collect();
    assert_eq!(
        keys,
        [
            "instagram#17841452691600098#5614879045272581",
            "instagram#17841452691600098#12345678901234567890123"
        ]
    );
    // A fraction has lost digits: another person's, for all we know.
    assert_eq!(parsed.quarantined[0].reason, Reason::BadId);
}

// Others take their own page for a contact that writes to them.
#[test]
fn what_the_page_says_makes_no_contact() {
    let echo = |sender: &str, recipient: &str, flag: Value| {
        let body = entry(&[json!({
            "sender": { "id": sender }, "recipient": { "id": recipient },
            "message": { "mid": "m_1", "text": "STOP", "is_echo": flag },
        })]);
        parsed(body.to_string()).events.remove(0)
    };
    for event in [
        echo(PAGE, "527", json!(true)),
        echo(PAGE, "527", json!("true")),
        echo(PAGE, "527", json!(null)),
        echo("527", PAGE, json!(true)),
    ] {
        assert_eq!(event.kind.name(), "echo");
        assert_eq!(event.person, Person::Scoped("527".into()));
        assert_eq!(event.effect(), Effect::Nothing);
        let plan = decide(
            None,
            &[event],
            &[],
            &link_keys(),
            &settings(&[("MESSENGER_EVENTS", "echo,message")]),
        );
        assert_eq!(plan, super::super::Plan::default());
    }
}

#[test]
fn the_same_item_has_the_same_key_in_every_delivery_and_every_kind_its_own() {
    let items = [
        json!({ "message": { "mid": "m_1", "text": "a" } }),
        json!({ "message": { "mid": "m_1", "is_deleted": true } }),
        json!({ "message_edit": { "mid": "m_1", "num_edit": 1 } }),
        json!({ "message_edit": { "mid": "m_1", "num_edit": "2" } }),
        json!({ "reaction": { "mid": "m_1", "action": "react" } }),
        json!({ "reaction": { "mid": "m_1", "action": "unreact" } }),
        json!({ "delivery": { "mids": ["m_1"], "watermark": 5 } }),
        json!({ "delivery": { "mids": ["m_1", "m_2"], "watermark": 5 } }),
        json!({ "read": { "watermark": 5 } }),
        json!({ "postback": { "mid": "m_1" } }),
        json!({ "postback": { "payload": "A" } }),
        json!({ "postback": { "payload": "B" } }),
        json!({ "postback": {} }),
        json!({ "optin": { "ref": "a" } }),
        json!({ "optin": { "ref": "b" } }),
        json!({ "referral": { "ref": "a" } }),
        json!({ "account_linking": { "status": "linked" } }),
        json!({ "account_linking": { "status": "unlinked" } }),
        json!({ "take_thread_control": {} }),
        json!({ "pass_thread_control": {} }),
        json!({ "message": { "mid": "m".repeat(5000) } }),
        json!({ "message": { "mid": format!("{}n", "m".repeat(5000)) } }),
        json!({ "message": { "mid": "with space" } }),
    ]
    .map(|mut item| {
        item["sender"] = json!({ "id": "527" });
        item["timestamp"] = json!(1_763_632_800_000_u64);
        item
    });
    let keys_of = |items: &[Value], entry_time: u64| -> Vec<String> {
        let body =
            json!({ "object": "page", "entry": [{ "id": PAGE, "time": entry_time, "messaging": items }] });
        parsed(body.to_string())
            .events
            .into_iter()
            .map(|event| event.key.0)
            .collect()
    };
    let mut without_times = items.clone();
    for item in &mut without_times {
        item.as_object_mut().unwrap().remove("timestamp");
    }
    for items in [items, without_times] {
        let first = keys_of(&items, 1_763_632_800_001);
        assert_eq!(
            first,
            keys_of(&items, 1_763_632_899_999),
            "the entry's time differs between deliveries"
        );
        assert_eq!(first.len(), items.len());
        let distinct: std::collections::BTreeSet<_> = first.iter().collect();
        assert_eq!(distinct.len(), first.len(), "{first:#?}");
        assert!(first.iter().all(|key| key.len() < 500 && key.is_ascii()));
    }
}

// Others write tokens and bodies to their logs.
#[test]
fn debug_shows_nobody_and_nothing_said() {
    let token = super::token("user-secret", at("2025-11-20T10:00:00Z"));
    let body = json!({ "object": "page", "entry": [{ "id": PAGE, "time": 1_763_632_800_000_u64, "messaging": [
        { "sender": { "id": "5275811702" }, "message": { "mid": "m_secret", "text": "my text", "quick_reply": { "payload": "my choice" } } },
        { "sender": { "id": "5275811702" }, "referral": { "ref": token, "source": "SHORTLINK" } },
        { "sender": { "id": "5275811702" }, "postback": { "payload": "my payload", "referral": { "ref": "my ref" } } },
        { "sender": { "id": "5275811702" }, "account_linking": { "status": "linked", "authorization_code": token } },
        { "optin": { "ref": token, "user_ref": "my user ref" } },
        { "sender": { "id": "5275811702" }, "message": { "mid": "m_2", "text": "x" }, "prior_message": { "identifier": "my user ref" } },
        { "sender": { "id": "5275811702" }, "mystery": "my mystery" },
    ] }] });
    let parsed = parsed(body.to_string());
    assert_eq!(parsed.events.len(), 7);
    let (user_refs, people) = super::by_subject(&parsed.events);
    let mut shown = format!("{parsed:?} {:?} {:?}", link_keys(), user_refs.keys());
    let mut derived = Vec::new();
    for events in user_refs.values() {
        let plan = super::decide_user_ref(None, events, &link_keys());
        write!(shown, "{plan:?}").unwrap();
        derived.extend(plan.derived);
    }
    for (key, events) in &people {
        let plan = decide(None, events, &derived, &link_keys(), &settings(&[]));
        let contact = plan.contact.as_ref().unwrap();
        assert_eq!(contact.user_id(), Some("user-secret"));
        let sync = super::super::sync::plan(
            contact,
            &super::super::sync::Synced::default(),
            &super::super::sync::Others::default(),
            &settings(&[]),
        );
        write!(shown, "{key:?} {:?} {sync:?}", plan.contact).unwrap();
    }
    for secret in [
        "5275811702",
        "my ",
        "m_secret",
        "user-secret",
        &token,
        &token[30..60],
    ] {
        assert!(!shown.contains(secret), "{secret} in {shown}");
    }
}

#[test]
fn contact_keys_come_back_from_their_text_and_have_one_spelling() {
    use super::super::ContactKey;
    let key = ContactKey {
        channel: Channel::Messenger,
        account_id: "1#2%3:4".to_owned(),
        scoped_id: "a#%23:".into(),
    };
    assert_eq!(key.to_string(), "messenger#1%232%253%3A4#a%23%2523%3A");
    assert_eq!(key.to_string().parse(), Ok(key));
    for no_key in [
        "",
        "messenger#1",
        "messenger#1#2#3",
        "sms#1#2",
        "messenger##2",
        "messenger#1#",
        "messenger#1#%",
        "messenger#1#%2",
        "messenger#1#%41",
        "messenger#1#a:b",
        "messenger#1#é",
        "messenger#1#user_ref:a",
    ] {
        assert!(no_key.parse::<ContactKey>().is_err(), "{no_key}");
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let keys = prop::sample::select(vec![
        "object",
        "entry",
        "id",
        "time",
        "messaging",
        "standby",
        "changes",
        "field",
        "value",
        "sender",
        "recipient",
        "timestamp",
        "message",
        "mid",
        "text",
        "is_echo",
        "referral",
        "ref",
        "optin",
        "user_ref",
        "postback",
        "payload",
        "read",
        "watermark",
        "delivery",
        "mids",
        "reaction",
        "account_linking",
        "status",
        "prior_message",
        "attachments",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
        Just(json!("page")),
        Just(json!("1134597043258171")),
        Just(json!("messages")),
        Just(json!("unlinked")),
    ];
    leaf.prop_recursive(8, 64, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::hash_map(keys.clone().prop_map(str::to_owned), inner, 0..6)
                .prop_map(|object| Value::Object(object.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let parsed = parsed(bytes.clone());
        prop_assert_eq!(parsed.events.len() + parsed.quarantined.len(), 1);
        prop_assert_eq!(&parsed.quarantined[0].raw.0, &bytes);
    }

    #[test]
    fn no_json_panics_and_no_item_is_lost(items in prop::collection::vec(any_json(), 0..8), whole in any_json()) {
        drop(parsed(whole.to_string()));
        let parsed = parsed(entry(&items).to_string());
        let kept = parsed.quarantined.iter().filter(|kept| ![Reason::UnknownKind].contains(&kept.reason)).count();
        prop_assert_eq!(parsed.events.len() + kept, items.len());
        let (user_refs, people) = super::by_subject(&parsed.events);
        for events in user_refs.values() {
            drop(super::decide_user_ref(None, events, &link_keys()));
        }
        for events in people.values() {
            drop(decide(None, events, &[], &link_keys(), &settings(&[("MESSENGER_EVENTS", "message")])));
        }
    }

    #[test]
    fn cut_payloads_are_quarantined(cut in 0_usize..380) {
        let body = include_str!("../../../../events/payloads/messenger/message_text_unicode.json");
        prop_assert_eq!(reasons(&body[..cut]), [Reason::NotJson]);
    }
}
