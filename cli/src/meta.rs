//! What Meta tells by webhook, its Graph API knows too. The fake Graph learns it from the webhooks that pass by.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use shared::json;
use testkit::graph::{FakeGraph, Install};
use testkit::lambda::{Handler, handler};

/// When the last webhook of each install was sent, by business and Business Manager: an older one that comes late changes
/// nothing.
type LatestWebhooks = HashMap<(String, Option<String>), i64>;

/// The function, with a Graph behind it that knows what the accepted webhooks told of installs.
pub(crate) fn learning(function: Handler, graph: Arc<FakeGraph>) -> Handler {
    let latest: Arc<Mutex<LatestWebhooks>> = Arc::default();
    handler(move |event: Value| {
        let (function, graph, latest) = (function.clone(), graph.clone(), latest.clone());
        async move {
            // Before the function is asked, as its follow-ups may be quicker than its answer; a forged request
            // teaches the fake something untrue and changes nothing that is stored.
            for (time, value) in installs(&event) {
                let business = value.get("business_id").and_then(Value::as_str);
                let Some(business) = business else { continue };
                let mut latest = latest.lock().unwrap_or_else(PoisonError::into_inner);
                let manager = value.get("business_manager_id").and_then(Value::as_str);
                let install = (business.to_owned(), manager.map(str::to_owned));
                let last = latest.entry(install).or_insert(time);
                if time < *last {
                    continue;
                }
                *last = time;
                drop(latest);
                match (Install::from_webhook(&value), manager) {
                    (Some(install), _) => graph.set_install(install),
                    (None, Some(manager)) => graph.remove_install(business, manager),
                    (None, None) => graph.change_install(business, None),
                }
            }
            function(event).await
        }
    })
}

/// What a webhook tells of installs, with the time that stands closest above it.
fn installs(event: &Value) -> Vec<(i64, Value)> {
    let Some(body) = event.get("body").and_then(Value::as_str) else {
        return Vec::new();
    };
    let encoded = event.get("isBase64Encoded") == Some(&Value::Bool(true));
    let bytes = if encoded {
        STANDARD.decode(body).unwrap_or_default()
    } else {
        body.as_bytes().to_vec()
    };
    let body: Value = json::read(&bytes).unwrap_or_default();
    let mut found = Vec::new();
    // What names no time happens now.
    let received = event.pointer("/requestContext/timeEpoch").and_then(Value::as_i64);
    find(&body, received.unwrap_or_default() / 1000, &mut found);
    found
}

/// Looks at any depth, as Meta's own shapes differ.
fn find(value: &Value, time: i64, found: &mut Vec<(i64, Value)>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| find(item, time, found)),
        Value::Object(fields) => {
            let time = fields.get("time").and_then(Value::as_i64).unwrap_or(time);
            let tells = |name: &str| fields.contains_key(name);
            if tells("business_id") && (tells("fbe_event") || tells("access_token")) {
                found.push((time, value.clone()));
            } else {
                fields.values().for_each(|field| find(field, time, found));
            }
        }
        _ => {}
    }
}
