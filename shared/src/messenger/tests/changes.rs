//! Changes of pages, the dashboard's samples, and items without parties.

use serde_json::{Value, json};

use super::super::event::{EventKind, Person, event_names};
use super::{decide, link_keys, parsed, settings};
use crate::outbox::Reason;

fn changes(changes: &Value) -> String {
    json!({ "object": "page", "entry": [{ "id": "101", "time": 1_763_632_800, "changes": changes }] })
        .to_string()
}

#[test]
fn a_change_is_kept_with_its_field() {
    let value = json!({ "sender": { "id": "6" }, "something": "new" });
    let both = ["messaging_in_thread_lead_form_submit", "messaging_integrity"];
    let both = both.map(|field| json!({ "field": field, "value": value }));
    let read = parsed(changes(&json!(both)));
    assert_eq!(read.quarantined.len(), 2);
    assert_ne!(read.quarantined[0].raw, read.quarantined[1].raw);
    for (kept, change) in read.quarantined.iter().zip(&both) {
        let body: Value = serde_json::from_slice(&kept.raw).unwrap();
        assert_eq!(body["entry"][0]["changes"], json!([change]));
        assert_eq!(parsed(kept.raw.0.clone()).quarantined, std::slice::from_ref(kept));
    }
}

#[test]
fn marketing_messages_and_templates_are_known_kinds() {
    let flat = json!({
        "recipient_id": 123_123_123_123_u64, "page_id": 101, "app_id": 789, "timestamp": 1_763_632_801, "mid": "mid.$c1",
        "marketing_message_tracking_id": "98ecd977", "messenger_subscription_token": "7186", "message_id": "238",
    });
    for field in [
        "marketing_message_echoes",
        "marketing_message_deliveries",
        "marketing_message_reads",
        "marketing_message_clicks",
        "marketing_message_delivery_failed",
        "message_template_status_update",
    ] {
        assert!(event_names().any(|name| name == field), "{field}");
        let mut inline = flat.clone();
        inline["field"] = field.into();
        for change in [json!({ "field": field, "value": flat }), inline] {
            let read = parsed(changes(&json!([change])));
            assert_eq!((read.events.len(), read.quarantined.len()), (1, 0), "{change}");
            assert_eq!(read.events[0].kind.name(), field);
            assert_eq!(read.events[0].person, Person::Scoped("123123123123".into()));
            assert_eq!(read.events, parsed(changes(&json!([change]))).events);
            let plan = decide(
                None,
                &read.events,
                &[],
                &link_keys(),
                &settings(&[("MESSENGER_EVENTS", field)]),
            );
            assert_eq!(plan.contact, None, "none of them makes a contact");
        }
        let nobody = json!({ "field": field, "value": { "page_id": 101, "recipient_id": null } });
        assert_eq!(parsed(changes(&json!([nobody]))).events[0].person, Person::None);
    }
}

#[test]
fn an_instagram_edit_without_parties_is_about_nobody() {
    let body = |item: Value| {
        json!({ "object": "instagram", "entry": [{ "id": "178", "messaging": [item] }] }).to_string()
    };
    let edit = json!({ "timestamp": 1_767_963_330_889_u64, "message_edit": { "mid": "x", "num_edit": 0 } });
    let read = parsed(body(edit));
    assert!(read.quarantined.is_empty());
    assert_eq!(read.events[0].person, Person::None);
    // What the page does in its own inbox is about nobody either.
    for own in [
        json!({ "reaction": { "mid": "m", "action": "react" } }),
        json!({ "read": { "mid": "m" } }),
        json!({ "message_edit": { "mid": "m", "num_edit": 1 } }),
        json!({ "pass_thread_control": {} }),
    ] {
        let mut item = own;
        item["sender"] = json!({ "id": "178" });
        let read = parsed(body(item.clone()));
        assert!(read.quarantined.is_empty(), "{item}");
        assert_eq!(read.events[0].contact_key(), None, "{item}");
    }
}

#[test]
fn samples_of_the_dashboard_are_counted() {
    let item = json!({ "sender": { "id": 12334 }, "recipient": { "id": 23245 }, "message": { "mid": "x" } });
    let change = json!({ "field": "messages", "value": item });
    let flipped = json!({ "sender": { "id": "23245" }, "recipient": { "id": "12334" }, "message": { "is_echo": true } });
    for body in [
        changes(&json!([change])),
        change.to_string(),
        json!({ "object": "page", "entry": [{ "id": "101", "messaging": [item] }] }).to_string(),
        json!({ "object": "page", "entry": [{ "id": "101", "standby": [flipped] }] }).to_string(),
    ] {
        let read = parsed(body.clone());
        assert_eq!(
            (read.dashboard_tests, read.events.len(), read.quarantined.len()),
            (1, 0, 0),
            "{body}"
        );
    }
    // One of the two is an id like any other.
    let item =
        json!({ "sender": { "id": "12334" }, "recipient": { "id": "101" }, "message": { "mid": "x" } });
    let read =
        parsed(json!({ "object": "page", "entry": [{ "id": "101", "messaging": [item] }] }).to_string());
    assert_eq!((read.dashboard_tests, read.events.len()), (0, 1));
}

#[test]
fn ids_beyond_64_bits_keep_their_digits_and_half_an_emoji_loses_nothing_else() {
    let body = r#"{"object":"page","entry":[{"id":101,"messaging":[
        {"sender":{"id":10000002479028556077430},"message":{"mid":"m","text":"see you \ud83d","unused\ude00":"\ud83d"}}]}]}"#;
    let read = parsed(body);
    assert_eq!(read.quarantined, []);
    assert_eq!(
        read.events[0].person,
        Person::Scoped("10000002479028556077430".into())
    );
    let EventKind::Message(message) = &read.events[0].kind else {
        panic!("not a message")
    };
    assert_eq!(message.text.as_ref().unwrap().as_str(), "see you \u{fffd}");
}

#[test]
fn what_is_not_understood_is_still_kept() {
    let read = parsed(changes(&json!([{ "field": "something_new", "value": {} }, 7])));
    let reasons: Vec<_> = read.quarantined.iter().map(|kept| kept.reason).collect();
    assert_eq!(reasons, [Reason::UnknownField, Reason::MalformedItem]);
}

#[test]
fn a_sample_that_holds_a_name_alone_leaves_nothing_behind() {
    for id in ["0", "101"] {
        for field in [
            "messages",
            "message_template_status_update",
            "marketing_message_reads",
            "send_cart",
        ] {
            for change in [
                json!({ "field": field }),
                json!({ "field": field, "value": null }),
            ] {
                let body =
                    json!({ "object": "page", "entry": [{ "id": id, "time": 1, "changes": [change] }] });
                let read = parsed(body.to_string());
                assert_eq!((read.dashboard_tests, read.quarantined.len()), (1, 0), "{body}");
            }
        }
    }
    let unnamed = json!({ "field": "message_template_status_update", "value": { "event": "APPROVED" } });
    let body = json!({ "object": "page", "entry": [{ "id": "0", "time": 1, "changes": [unnamed] }] });
    let read = parsed(body.to_string());
    assert_eq!((read.dashboard_tests, read.quarantined.len()), (1, 0));
}

#[test]
fn bodies_in_a_list_and_changes_in_the_entry_are_read_as_the_documents_show_them() {
    let item = json!({ "sender": { "id": "7001" }, "recipient": { "id": "178" }, "message": { "mid": "m" } });
    let body = json!({ "object": "instagram", "entry": [{ "id": "178", "messaging": [item] }] });
    let comment = json!({ "object": "instagram", "entry": [
        { "id": "178", "time": 1, "field": "comments", "value": { "id": "1", "text": "x" } }] });
    let read = parsed(json!([body, comment, { "object": "zoo" }, 7]).to_string());
    assert_eq!((read.events.len(), read.ignored), (1, 1));
    let reasons: Vec<_> = read.quarantined.iter().map(|kept| kept.reason).collect();
    assert_eq!(reasons, [Reason::UnknownObject, Reason::MalformedBody]);
    let flat = json!({ "object": "instagram", "entry": [
        { "id": "178", "time": 1, "field": "messages", "value": item },
        { "id": "178", "time": 1, "field": "something_new", "value": {} }] });
    let read = parsed(flat.to_string());
    assert_eq!((read.events.len(), read.quarantined.len()), (1, 1));
    assert_eq!(read.quarantined[0].reason, Reason::UnknownField);
    for alone in [
        json!({ "field": "send_cart" }),
        json!({ "field": "send_cart", "value": null }),
    ] {
        let read = parsed(alone.to_string());
        assert_eq!((read.dashboard_tests, read.quarantined.len()), (1, 0), "{alone}");
    }
    let read = parsed(json!({ "field": "messages", "sender": { "id": "7001" } }).to_string());
    assert_eq!((read.dashboard_tests, read.quarantined.len()), (0, 1));
}

#[test]
fn a_kind_that_is_not_known_is_kept_also_beside_a_referral() {
    let item = |known: &str| {
        let referral = json!({ "source": "SHORTLINK", "ref": "x" });
        json!({ "sender": { "id": "7001" }, "recipient": { "id": "101" }, "timestamp": 1, "referral": referral,
                known: { "a": 1 } })
    };
    let read = |item: &Value| {
        parsed(json!({ "object": "page", "entry": [{ "id": "101", "messaging": [item] }] }).to_string())
    };
    let new = read(&item("lead_form_submit"));
    assert_eq!(new.events[0].kind, EventKind::Unknown);
    assert!(new.events[0].referral.is_some());
    assert_eq!(new.quarantined[0].reason, Reason::UnknownKind);
    let known = read(&item("prior_message"));
    assert!(matches!(known.events[0].kind, EventKind::Referral(_)));
    assert_eq!(known.quarantined, []);
}

#[test]
fn a_time_in_the_future_is_not_believed() {
    let received = super::received_at();
    for (minutes, believed) in [(4, true), (6, false), (23 * 60, false)] {
        let time = received + jiff::SignedDuration::from_mins(minutes);
        let body = json!({ "object": "page", "entry": [{ "id": "101", "messaging": [{
            "sender": { "id": "7001" }, "timestamp": time.as_millisecond(), "message": { "mid": "m" },
        }] }] });
        let at = parsed(body.to_string()).events[0].at;
        assert_eq!(at, if believed { time } else { received }, "{minutes}");
    }
}
