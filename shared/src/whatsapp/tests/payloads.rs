//! Recorded bodies, each through all rooms: payload → inbound → plan.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{inbound_settings, noon};
use crate::whatsapp::decide::decide_inbound;
use crate::whatsapp::duplicate::message_id;
use crate::whatsapp::inbound::{Inbound, parse};
use crate::whatsapp::route::RouteTable;

fn payloads() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../events/payloads/whatsapp");
    let mut payloads: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    payloads.sort();
    payloads
}

fn through_all_rooms(payload: &Path) -> Value {
    let form = payload.extension().is_some_and(|extension| extension == "form");
    let content_type = if form {
        "application/x-www-form-urlencoded"
    } else {
        "application/json"
    };
    let message = match parse(&fs::read(payload).unwrap(), Some(content_type), noon()) {
        Inbound::Message(message) => message,
        Inbound::Ignored(reason) => return json!({ "ignored": reason.as_str() }),
        Inbound::Quarantined(reason) => return json!({ "quarantined": reason.as_str() }),
    };
    let settings = inbound_settings(&[(
        "RELAY_ROUTES",
        r#"[{"name":"orders","keywords":["order"],"match":"contains"}]"#,
    )]);
    if message.is_keyword(&settings.ignored_keywords) {
        return json!({ "ignored": "keyword" });
    }
    let id = message_id(&message, "nonce");
    let routes = RouteTable::new(&settings.rules.routes);
    let plan = decide_inbound(None, &message, &id, &settings, &routes, noon());
    json!({
        "message": message,
        "conversation": plan.conversation,
        "turn": { "sort_key": plan.turns[0].sort_key(), "status": plan.turns[0].status },
        "guards": plan.guards,
        "outbox": plan.outbox.iter().map(|item| &item.event_key).collect::<Vec<_>>(),
    })
}

#[test]
fn every_payload_goes_its_way() {
    let payloads = payloads();
    assert!(payloads.len() >= 35, "the payloads are missing");
    for payload in payloads {
        let case = payload.file_stem().unwrap().to_string_lossy().into_owned();
        insta::assert_yaml_snapshot!(case, through_all_rooms(&payload));
    }
}

#[test]
fn the_name_of_a_payload_says_what_becomes_of_it() {
    for payload in payloads() {
        let case = payload.file_stem().unwrap().to_string_lossy().into_owned();
        let quarantined = through_all_rooms(&payload).get("quarantined").is_some();
        assert_eq!(quarantined, case.starts_with("quarantined_"), "{case}");
        let broken = case.starts_with("broken_");
        let is_json = serde_json::from_slice::<Value>(&fs::read(&payload).unwrap()).is_ok();
        assert!(!(broken && is_json), "{case} is not broken");
    }
}
