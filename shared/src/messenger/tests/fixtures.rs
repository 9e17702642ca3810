//! Every payload of `events/payloads` → events → plans → what Braze is told, as snapshots.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};

use super::super::event::{Event, EventKind, Person, ReferralSource, event_names};
use super::super::{Act, Parsed, UserRefLink, sync};
use super::{by_subject, decide, decide_user_ref, link_keys, parsed, settings};
use crate::personal::Personal;

#[test]
fn messenger_payloads() {
    snapshot_all("messenger");
}

#[test]
fn instagram_payloads() {
    snapshot_all("instagram");
}

fn snapshot_all(sender: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../events/payloads")
        .join(sender);
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    files.sort();
    assert!(files.len() > 10, "the payloads are gone");
    for file in files {
        let case = file.file_stem().unwrap().to_str().unwrap();
        let body = std::fs::read(&file).unwrap();
        insta::with_settings!({ snapshot_path => "../snapshots", prepend_module_to_snapshot => false, omit_expression => true }, {
            insta::assert_yaml_snapshot!(format!("{sender}__{case}"), view(&parsed(body)));
        });
    }
}

#[test]
fn what_is_quarantined_says_the_same_when_it_is_delivered_again() {
    let mut reasons = BTreeSet::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../events/payloads");
    let bodies = ["messenger", "instagram"].map(|sender| {
        let files = std::fs::read_dir(folder.join(sender)).unwrap();
        files.map(|file| std::fs::read(file.unwrap().path()).unwrap())
    });
    let odd = [
        r#"{"object":"page","entry":["text"]}"#,
        r#"{"object":"page","entry":[{"id":"5","time":1763632800}]}"#,
        r#"{"object":"instagram","entry":[{"id":"5","time":1763632800,"messaging":{"a":1}}]}"#,
        r#"{"object":"page","entry":[{"id":"5","time":1763632800,"standby":[{"sender":{"id":"6"},"new":1}]}]}"#,
        r#"{"object":"page","entry":[{"id":"5","changes":[{"field":"standby","value":7}]}]}"#,
        r#"{"object":"page","entry":[{"id":"0","messaging":[{"sender":{"id":"6"},"message":{"mid":"m"}}]}]}"#,
        r#"{"object":"page","entry":[{"id":"5","messaging":[{"message":{"mid":"m"}}]}]}"#,
    ];
    let odd = odd.into_iter().map(|body| body.as_bytes().to_vec());
    for body in bodies.into_iter().flatten().chain(odd) {
        let first = parsed(body);
        for kept in &first.quarantined {
            let again = parsed(kept.raw.0.clone());
            assert_eq!(
                again.quarantined,
                std::slice::from_ref(kept),
                "{}",
                kept.reason.as_str()
            );
            assert!(again.events.len() <= 1, "{}", kept.reason.as_str());
            for event in &again.events {
                assert!(first.events.contains(event), "{}", kept.reason.as_str());
            }
            reasons.insert(kept.reason.as_str());
        }
    }
    assert_eq!(reasons.len(), 12, "{reasons:?}");
}

/// Everything that follows from a webhook, with what `Debug` leaves out.
fn view(parsed: &Parsed) -> Value {
    let quarantined = parsed.quarantined.iter().map(|quarantined| {
        json!({
            "reason": quarantined.reason.as_str(),
            "raw": String::from_utf8_lossy(&quarantined.raw),
        })
    });
    json!({
        "events": parsed.events.iter().map(event_view).collect::<Vec<_>>(),
        "quarantined": quarantined.collect::<Vec<_>>(),
        "ignored": parsed.ignored,
        "dashboard_tests": parsed.dashboard_tests,
        "plans": plans(&parsed.events),
    })
}

fn plans(events: &[Event]) -> Vec<Value> {
    let settings = settings(&[("MESSENGER_EVENTS", &event_names().collect::<Vec<_>>().join(","))]);
    let links = link_keys();
    let (user_refs, people) = by_subject(events);
    let mut plans = Vec::new();
    let mut derived: Vec<UserRefLink> = Vec::new();
    for (key, events) in user_refs {
        let plan = decide_user_ref(None, &events, &links);
        derived.extend(plan.derived);
        plans.push(
            json!({ "user_ref": key.as_str(), "record": plan.record, "counts": outcomes(plan.counts) }),
        );
    }
    for (key, events) in people {
        let derived: Vec<_> = derived
            .iter()
            .filter(|link| link.contact == key)
            .cloned()
            .collect();
        let plan = decide(None, &events, &derived, &links, &settings);
        let told = plan.contact.as_ref().map(|contact| {
            sync::plan(
                contact,
                &sync::Synced::default(),
                &sync::Others::default(),
                &settings,
            )
            .attributes
        });
        let outbox = plan
            .outbox
            .iter()
            .map(|item| json!({ "event_key": item.event_key, "payload": item.payload }));
        plans.push(json!({
            "contact": plan.contact,
            "outbox": outbox.collect::<Vec<_>>(),
            "counts": outcomes(plan.counts),
            "told": told,
        }));
    }
    plans
}

fn outcomes(counts: super::super::LinkCounts) -> Value {
    let named = [
        ("linked", counts.linked),
        ("unlinked", counts.unlinked),
        ("plain", counts.plain),
        ("expired", counts.expired),
        ("foreign", counts.foreign),
        ("malformed", counts.malformed),
        ("refused", counts.refused),
    ];
    named
        .into_iter()
        .filter(|(_, count)| *count > 0)
        .map(|(name, count)| (name.to_owned(), Value::from(count)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

fn event_view(event: &Event) -> Value {
    let person = match &event.person {
        Person::Scoped(id) => id.0.clone(),
        Person::UserRef(user_ref) => format!("user_ref {}", user_ref.as_str()),
        Person::None => "none".to_owned(),
    };
    json!({
        "kind": event.kind.name(),
        "channel": event.channel,
        "account_id": event.account_id,
        "person": person,
        "at": event.at,
        "standby": event.standby,
        "act": format!("{:?}", Act::of(&event.kind)),
        "effect": format!("{:?}", event.effect()),
        "key": event.key,
        "prior_user_ref": shown(event.prior_user_ref.as_ref()),
        "beside": referral(event.referral.as_ref()),
        "details": details(&event.kind),
    })
}

fn shown(text: Option<&Personal<String>>) -> Value {
    text.map(|text| text.as_str()).into()
}

fn referral(referral: Option<&ReferralSource>) -> Value {
    referral.map_or(Value::Null, |referral| {
        json!({ "ref": shown(referral.reference.as_ref()), "source": referral.source, "ad_id": referral.ad_id })
    })
}

fn details(kind: &EventKind) -> Value {
    match kind {
        EventKind::Message(message) => json!({
            "text": shown(message.text.as_ref()),
            "quick_reply": shown(message.quick_reply.as_ref()),
            "attachments": message.attachments,
            "referral": referral(message.referral.as_ref()),
        }),
        EventKind::Postback(postback) => json!({
            "payload": shown(postback.payload.as_ref()),
            "referral": referral(postback.referral.as_ref()),
        }),
        EventKind::Optin(optin) => json!({
            "type": optin.optin_type,
            "ref": shown(optin.reference.as_ref()),
            "user_ref": shown(optin.user_ref.as_ref()),
            "has_one_time_token": optin.has_one_time_token,
            "title": optin.title,
            "topic": optin.topic,
            "notification_status": optin.notification_status,
        }),
        EventKind::Referral(source) => referral(Some(source)),
        other => format!("{other:?}").into(),
    }
}
