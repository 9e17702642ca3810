//! What an FBE payload comes to, as the snapshots show it: only what is set, one line for each feature.

use serde::Serialize;
use serde_json::{Map, Value, json};
use shared::fbe::event::{InstallChange, InstallEvent};
use shared::fbe::payload::Parsed;
use shared::fbe::plan::{Plan, SecretChange};

/// Events with the plans that follow from them, events of integrations, and what was quarantined.
pub(crate) fn view(parsed: &Parsed, plan: impl Fn(&InstallEvent) -> Plan) -> Value {
    let changes = parsed.changes.iter().map(|event| {
        let said = said(event);
        let plan = planned(&plan(event), &said);
        json!({ "event": lines(said), "plan": plan })
    });
    let quarantined = parsed.quarantined.iter().map(|kept| {
        let raw = String::from_utf8_lossy(&kept.raw);
        format!("{}: {raw}", kept.reason.as_str())
    });
    let mut shown = Map::new();
    shown.insert("changes".to_owned(), changes.collect());
    shown.insert("integrations".to_owned(), json!(parsed.integrations));
    shown.insert("quarantined".to_owned(), quarantined.collect());
    Value::Object(lines(shown))
}

fn said(event: &InstallEvent) -> Map<String, Value> {
    let mut said = match &event.change {
        InstallChange::Uninstalled => object(json!({ "change": "uninstalled" })),
        InstallChange::Granted { granted, token } => {
            let mut said = object(granted);
            let token_type = token.as_ref().map(|token| String::from(token.token_type.clone()));
            said.insert("token".to_owned(), json!(token_type));
            said
        }
    };
    said.extend(object(json!({
        "business_id": event.business_id,
        "business_manager_id": event.business_manager_id,
        "flow": event.flow,
        "uid": event.uid,
        "stamp": event.stamp,
    })));
    said
}

/// The plan; of the install, what the event does not say already.
fn planned(plan: &Plan, said: &Map<String, Value>) -> Map<String, Value> {
    let secret = match &plan.secret {
        SecretChange::None => String::new(),
        SecretChange::ScheduleDelete => "schedule deletion".to_owned(),
        other => format!("{other:?}"),
    };
    let outbox = plan.outbox.iter().map(|item| {
        let kind = json!(item.kind);
        let kind = kind.as_str().unwrap_or_default();
        format!("{kind} {} {} {}", item.subject, item.event_key, item.payload)
    });
    let install = plan.install.as_ref().map(|install| {
        let mut install = object(install);
        install.retain(|name, value| said.get(name) != Some(value));
        lines(install)
    });
    lines(object(json!({
        "install": install,
        "outbox": outbox.collect::<Vec<_>>(),
        "outcome": <&str>::from(plan.outcome),
        "secret": secret,
        "wake": plan.wake,
    })))
}

fn object(value: impl Serialize) -> Map<String, Value> {
    match serde_json::to_value(value) {
        Ok(Value::Object(members)) => members,
        other => panic!("not an object: {other:?}"),
    }
}

/// Without what is not set, and every member that is small on one line.
fn lines(members: Map<String, Value>) -> Map<String, Value> {
    let is_set = |value: &Value| match value {
        Value::Null | Value::Bool(false) => false,
        Value::Array(values) => !values.is_empty(),
        Value::Object(members) => !members.is_empty(),
        Value::String(text) => !text.is_empty(),
        Value::Bool(true) | Value::Number(_) => true,
    };
    let members = members.into_iter().filter(|(_, value)| is_set(value));
    let shown = members.map(|(name, value)| match (name.as_str(), value) {
        ("changes" | "event" | "plan" | "install", value) => (name, value),
        // Identifiers of one kind, or what is told by names.
        (_, Value::Array(values)) if values.iter().all(Value::is_string) && name != "outbox" => {
            let texts: Vec<&str> = values.iter().filter_map(Value::as_str).collect();
            let text = texts.join(", ");
            (name, text.into())
        }
        (_, Value::Array(values)) => (name, values.into_iter().map(on_one_line).collect()),
        (_, value @ Value::Object(_)) => (name, on_one_line(value)),
        (_, value) => (name, value),
    });
    shown.collect()
}

fn on_one_line(value: Value) -> Value {
    match value {
        Value::Object(_) | Value::Array(_) => value.to_string().into(),
        other => other,
    }
}
