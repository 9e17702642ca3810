//! Alarms on the metrics that the functions write.

use std::collections::BTreeSet;

use jiff::SignedDuration;
use serde_json::{Value, json};
use shared::erase::{Erasures, Order, Source, Target};
use shared::outbox::{Kind, Outbox, OutboxItem};
use testkit::graph::{Install, Page};
use testkit::house::{APP_ID, APP_SECRET, INBOUND_TOKEN, VERIFY_TOKEN};

use crate::stack::Stack;
use crate::{Rung, note};

const SHOP: &str = "shop-42-unique-id";
const MANAGER: &str = "973766133343161";

pub(crate) async fn scenes(rung: &mut Rung) {
    braze_is_down(rung).await;
    a_key_is_wrong(rung).await;
    an_item_is_of_another_version(rung).await;
    something_is_given_up(rung).await;
    a_campaign_is_not_filtered(rung).await;
    something_is_not_understood(rung).await;
    somebody_guesses(rung).await;
    a_secret_is_overwritten(rung).await;
    graph_has_another_view(rung).await;
    graph_does_not_know_an_install(rung).await;
    another_manager_installs(rung).await;
    two_businesses_claim_a_pixel(rung).await;
    a_page_is_lost(rung).await;
    callers_are_throttled(rung).await;
    whatsapp_falls_silent(rung).await;
    an_erasure_comes_to_no_end(rung).await;
}

async fn braze_is_down(rung: &mut Rung) {
    let mut stack = Stack::start().await;
    stack
        .house
        .braze
        .begin_outage(testkit::braze::faults::unavailable(503));
    stack.message("7001").await;
    stack.run(16).await;
    note(rung, &stack, &["failing"]);
    let after = stack.rang_after("failing");
    let wanted = SignedDuration::from_mins(10)..=SignedDuration::from_mins(13);
    assert!(wanted.contains(&after), "it rang after {after:#}");
    stack.house.braze.end_outage();
}

async fn a_key_is_wrong(rung: &mut Rung) {
    let mut stack = Stack::start().await;
    stack
        .house
        .braze
        .begin_outage(testkit::braze::faults::unauthorized());
    stack.message("7001").await;
    stack.run(2).await;
    note(rung, &stack, &["configuration-faults"]);
    stack.house.braze.end_outage();
}

/// Puts an item whose payload or kind is not what it should be.
async fn put(stack: &Stack, kind: Kind, another_kind: Option<&str>) {
    let table = stack.house.table("OutboxTable");
    let outbox = Outbox::new(
        stack.house.aws.dynamodb(),
        table.to_owned(),
        stack.house.clock.clone(),
    );
    let item = OutboxItem {
        subject: "messenger#1#2".to_owned(),
        event_key: "1".to_owned(),
        kind,
        payload: json!("of another version"),
        not_before: None,
    };
    assert!(outbox.add(&item).await.unwrap());
    if let Some(kind) = another_kind {
        let text = |text: &str| aws_sdk_dynamodb::types::AttributeValue::S(text.to_owned());
        let update = stack.house.aws.dynamodb().update_item().table_name(table);
        let update = update
            .key("subject", text("messenger#1#2"))
            .key("event_key", text("1"));
        let update = update.update_expression("SET kind = :kind");
        update
            .expression_attribute_values(":kind", text(kind))
            .send()
            .await
            .unwrap();
    }
}

async fn an_item_is_of_another_version(rung: &mut Rung) {
    let mut stack = Stack::start().await;
    put(&stack, Kind::ContactSync, Some("of_the_next_version")).await;
    stack.run(17).await;
    note(rung, &stack, &["oldest-due", "unreadable-items"]);
}

async fn something_is_given_up(rung: &mut Rung) {
    let mut stack = Stack::start().await;
    put(&stack, Kind::ContactEvent, None).await;
    stack.run(2).await;
    note(rung, &stack, &["outbox-dead"]);
}

async fn a_campaign_is_not_filtered(rung: &mut Rung) {
    let mut stack = Stack::start().await;
    stack.message("7001").await;
    stack.run(1).await;
    // The window has closed.
    stack.minutes_later(25 * 60);
    let body = json!({"psid": "7001", "page_id": testkit::house::PAGE, "text": "hello"});
    for _ in 0..2 {
        for _ in 0..100 {
            let path = "/messenger/send";
            let status = stack
                .bearer("MessengerSendFunction", path, INBOUND_TOKEN, &body)
                .await;
            assert_eq!(status, 409);
        }
        stack.run(5).await;
    }
    note(rung, &stack, &["messenger-send-failures"]);
}

async fn something_is_not_understood(rung: &mut Rung) {
    let mut stack = Stack::start().await;
    assert_eq!(stack.meta("/messenger/webhook", b"{", true).await, 200);
    note(rung, &stack, &["quarantined"]);
}

async fn somebody_guesses(rung: &mut Rung) {
    let mut stack = Stack::start().await;
    for _ in 0..2 {
        for _ in 0..10 {
            assert_eq!(stack.meta("/messenger/webhook", b"{}", false).await, 401);
            let body = json!({"user_id": "42", "message": "hi"});
            let path = "/whatsapp/inbound";
            assert_eq!(
                stack.bearer("WhatsAppRelayFunction", path, "guess", &body).await,
                401
            );
        }
        stack.run(5).await;
    }
    note(rung, &stack, &["signature-failures", "token-failures"]);
}

async fn a_secret_is_overwritten(rung: &mut Rung) {
    let mut stack = Stack::start().await;
    stack.message("7001").await;
    let rubbish = json!("not what it should be");
    stack.house.write_secret("MetaSecret", &rubbish).await.unwrap();
    stack.run(6).await;
    assert_eq!(stack.message("7002").await, 200, "the last value serves");
    note(rung, &stack, &["secrets-unreadable"]);
}

/// A recorded webhook of FBE.
fn recorded(case: &str) -> Value {
    let payloads = bridge::payloads::recorded(bridge::payloads::Sender::Fbe);
    let mut found = payloads
        .into_iter()
        .filter(|payload| payload.name == format!("fbe/{case}"));
    serde_json::from_slice(&found.next().unwrap().body).unwrap()
}

/// A business installs the app, and Graph knows it.
async fn install(stack: &mut Stack, body: &Value) {
    let value = &body["entry"][0]["changes"][0]["value"];
    stack
        .house
        .graph
        .set_install(Install::from_webhook(value).unwrap());
    let body = body.to_string();
    assert_eq!(stack.meta("/fbe/webhook", body.as_bytes(), true).await, 200);
    stack.run(3).await;
}

/// The daily comparison with Graph, and the day over which it is spread.
async fn compare(stack: &mut Stack) {
    stack
        .invoke("DispatchSyncFunction", json!({"task": "reconcile"}))
        .await;
    for _ in 0..25 {
        stack.minutes_later(60);
        stack.tick().await;
    }
}

async fn graph_has_another_view(rung: &mut Rung) {
    let mut stack = Stack::start().await;
    install(&mut stack, &recorded("install")).await;
    let mut view = recorded("install")["entry"][0]["changes"][0]["value"].clone();
    view["ad_account_id"] = json!("0");
    let features = view["installed_features"].as_array_mut().unwrap();
    features.retain(|feature| feature["feature_type"] != "ads");
    stack.house.graph.change_install(SHOP, Some(view));
    compare(&mut stack).await;
    note(rung, &stack, &["graph-drift"]);
}

async fn graph_does_not_know_an_install(rung: &mut Rung) {
    let mut stack = Stack::start().await;
    install(&mut stack, &recorded("install")).await;
    stack.house.graph.remove_install(SHOP, MANAGER);
    compare(&mut stack).await;
    note(rung, &stack, &["fbe-unknown-at-graph"]);
}

async fn another_manager_installs(rung: &mut Rung) {
    let mut stack = Stack::start().await;
    install(&mut stack, &recorded("install")).await;
    let other = recorded("install_other_manager").to_string();
    assert_eq!(stack.meta("/fbe/webhook", other.as_bytes(), true).await, 200);
    note(rung, &stack, &["fbe-manager-changes"]);
}

async fn two_businesses_claim_a_pixel(rung: &mut Rung) {
    let mut stack = Stack::start().await;
    install(&mut stack, &recorded("install")).await;
    let other = recorded("install").to_string().replace(SHOP, "shop-43");
    let other = other.replace("EAAB_install_token", "EAAB_other_token");
    install(&mut stack, &serde_json::from_str(&other).unwrap()).await;
    compare(&mut stack).await;
    note(rung, &stack, &["pixel-conflicts"]);
}

async fn a_page_is_lost(rung: &mut Rung) {
    let mut stack = Stack::with(&[("AUTO_RESUBSCRIBE", "false")]).await;
    let meta = json!({
        "app_id": APP_ID, "app_secret": APP_SECRET, "verify_token": VERIFY_TOKEN,
        "page_access_tokens": {"101": "EAAB-page-101"},
    });
    stack.house.write_secret("MetaSecret", &meta).await.unwrap();
    let mut page = Page::new("101", "Shop");
    page.subscribed.insert(APP_ID.to_owned(), BTreeSet::new());
    page.subscribed.clear();
    page.expires_at = (stack.now() + SignedDuration::from_hours(24 * 5 + 1)).as_second();
    stack.house.graph.add_page(page);
    stack
        .invoke("DispatchSyncFunction", json!({"task": "health"}))
        .await;
    stack.run(3).await;
    note(rung, &stack, &["pages-unsubscribed", "token-days-left"]);
}

/// The gateway writes its access log as the template formats it; the filter counts in it.
async fn callers_are_throttled(rung: &mut Rung) {
    let mut stack = Stack::start().await;
    let template = stack.house.template();
    let apis = template.properties_of("AWS::Serverless::HttpApi").unwrap();
    let format = apis["HttpApi"]["AccessLogSettings"]["Format"].as_str().unwrap();
    let line: Value = serde_json::from_str(&format.replace("$context.status", "429")).unwrap();
    let filters = template.properties_of("AWS::Logs::MetricFilter").unwrap();
    let filter = &filters["ThrottledRequestsFilter"];
    let pattern = filter["FilterPattern"].as_str().unwrap();
    let wanted = pattern
        .strip_prefix("{ $.")
        .and_then(|rest| rest.strip_suffix(" }"));
    let (field, value) = wanted.unwrap().split_once(" = ").unwrap();
    assert_eq!(
        line[field],
        serde_json::from_str::<Value>(value).unwrap(),
        "{line}"
    );
    let counted = filter["MetricTransformations"][0].clone();
    let text = |name: &str| counted[name].as_str().unwrap();
    for _ in 0..2 {
        let value = text("MetricValue").parse().unwrap();
        stack.aws_reports(text("MetricNamespace"), text("MetricName"), &[], value);
        stack.run(1).await;
    }
    note(rung, &stack, &["api-throttled"]);
}

async fn whatsapp_falls_silent(rung: &mut Rung) {
    let mut stack = Stack::start().await;
    let body = json!({"user_id": "42", "message": "STOP", "dispatch_id": "d"});
    let path = "/whatsapp/inbound";
    let status = stack
        .bearer("WhatsAppRelayFunction", path, INBOUND_TOKEN, &body)
        .await;
    assert_eq!(status, 202);
    stack.minutes_later(24 * 60);
    assert!(!stack.rung().contains("relay-silent"), "it is not a day yet");
    stack.minutes_later(60);
    note(rung, &stack, &["relay-silent"]);
}

async fn an_erasure_comes_to_no_end(rung: &mut Rung) {
    let mut stack = Stack::start().await;
    stack.message("7001").await;
    stack.run(1).await;
    stack
        .house
        .braze
        .begin_outage(testkit::braze::faults::unavailable(503));
    let table = stack.house.table("OutboxTable").to_owned();
    let clock = stack.house.clock.clone();
    let erasures = Erasures::new(Outbox::new(stack.house.aws.dynamodb(), table, clock));
    let key = format!("messenger#{}#7001", testkit::house::PAGE);
    let order = Order::new(Target::Contact(key.into()), Source::Operator, stack.now());
    assert!(
        erasures
            .order("0123456789abcdef0123456789abcdef", &order)
            .await
            .unwrap()
    );
    stack.run(2).await;
    note(rung, &stack, &[]);
    stack.minutes_later(25 * 60);
    stack.run(2).await;
    stack.minutes_later(60);
    note(rung, &stack, &["erasures-late", "failing"]);
    stack.house.braze.end_outage();
}
