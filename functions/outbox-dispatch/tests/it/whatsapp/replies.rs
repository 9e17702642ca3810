//! Replies that cannot be sent, and those behind them.

use jiff::SignedDuration;
use serde_json::json;
use shared::outbox::Lane;
use testkit::braze::{Campaign, Canvas, Endpoint, faults};
use testkit::external_system::{Behaviour, Reply};

use super::house::House;

#[tokio::test]
async fn a_reply_that_is_given_up_does_not_take_its_attributes_along() {
    let house = House::start().await;
    house.knows("42");
    house.external_system.script(Behaviour::Reply(
        Reply::silent()
            .and_through("one moment", "misspelt")
            .and("two")
            .handoff(true)
            .attributes(json!({"topic": "orders"})),
    ));
    house.braze.set_campaign(Campaign::live("reply-campaign"));
    house.says("42", "a human, please").await;
    house.tick().await;
    assert_eq!(house.rows("dead").await[0].0, "reply#0000000001");
    assert_eq!(house.rows("pending").await, []);
    assert_eq!(house.attribute("42", "whatsapp_human_agent"), Some(json!(true)));
    assert_eq!(house.attribute("42", "topic"), Some(json!("orders")));
    assert_eq!(house.got("42"), ["two"]);
    drop(house.braze.take_refusals());

    // Redriven, it brings the text alone: the profile may say something else by now.
    house.braze.set_campaign(Campaign::live("misspelt"));
    house.external_system.script(Behaviour::Reply(
        Reply::silent().attributes(json!({"topic": "refunds"})),
    ));
    house.says("42", "and a refund").await;
    house.tick().await;
    let dead = house.outbox().list_dead(Lane::Relay, 10).await.unwrap();
    assert!(house.outbox().redrive(&dead[0]).await.unwrap());
    house.tick().await;
    assert_eq!(house.got("42"), ["two", "one moment"]);
    assert_eq!(house.attribute("42", "topic"), Some(json!("refunds")));
}

#[tokio::test]
async fn attributes_outlive_a_reply_that_is_too_late() {
    let house = House::start().await;
    house.knows("42");
    house
        .external_system
        .script(Behaviour::Reply(Reply::text("one").handoff(true)));
    house.braze.begin_outage(faults::unavailable(503));
    house.says("42", "hi").await;
    house.tick().await;
    house.later(SignedDuration::from_hours(25));
    house.braze.end_outage();
    house.drain().await;
    assert_eq!(house.rows("dead").await[0].1, "window_closed");
    assert_eq!(house.attribute("42", "whatsapp_human_agent"), Some(json!(true)));
}

#[tokio::test]
async fn pieces_of_a_reply_keep_their_order_when_one_has_to_wait() {
    let house = House::with(&[("TEMPLATE_CAMPAIGN_ID", "template-campaign")]).await;
    house.knows("42");
    let long = "A sentence of words. ".repeat(120);
    house.external_system.script(Behaviour::text(&long));
    house.braze.begin_outage(faults::unavailable(503));
    house.says("42", "hi").await;
    house.tick().await;
    house.later(SignedDuration::from_hours(25));
    house.braze.end_outage();
    house
        .braze
        .script(Endpoint::TriggerSend, faults::unavailable(503));
    house.tick().await;
    house.drain().await;
    assert_eq!(house.got("42").join(" "), long.trim());
}

#[tokio::test]
async fn without_a_campaign_replies_wait() {
    let routes =
        r#"[{"name":"shop","keywords":["hi"],"match":"prefix","reply_campaign_id":"shop-campaign"}]"#;
    let house = House::with(&[
        ("RELAY_ROUTES", routes),
        ("EXTERNAL_SYSTEM_URL", ""),
        ("REPLY_CAMPAIGN_ID", ""),
    ])
    .await;
    house.knows("42");
    house.says("42", "hello").await;
    let reply = json!({"conversation_id": "user:42", "replies": [{"text": "later"}]});
    assert_eq!(house.answers_signed(&reply, "msg_1").await.0, 202);
    house.tick().await;
    assert_eq!(house.rows("dead").await, []);
    let reasons: Vec<String> = house.rows("pending").await.into_iter().map(|row| row.1).collect();
    assert_eq!(reasons, ["no_external_system", "no_campaign"]);
}

/// Users whose conversations lie in the same partition of the index of what is due.
const ONE_SHARD: [u32; 21] = [
    11, 12, 21, 26, 27, 43, 45, 46, 53, 54, 62, 106, 108, 115, 121, 125, 126, 135, 140, 141, 143,
];

#[tokio::test]
async fn replies_behind_blocked_ones_are_in_nobodys_way() {
    let house = House::start().await;
    let one_shard = ONE_SHARD.map(|number| format!("user-{number}"));
    let mut answer = Reply::silent();
    for number in 0..20 {
        answer = answer.and(&format!("reply {number}"));
    }
    house.external_system.set_behaviour(Behaviour::Reply(answer));
    house.braze.begin_outage(faults::unavailable(503));
    for user in &one_shard {
        house.knows(user);
    }
    let (last, blocked) = one_shard.split_last().unwrap();
    for user in blocked {
        house.says(user, "hi").await;
    }
    assert!(house.shards().await.values().all(|shard| shard == "relay#0"));
    house.tick().await;
    assert_eq!(house.rows("pending").await.len(), 400);
    house.external_system.set_behaviour(Behaviour::Echo);
    house.says(last, "me too").await;
    house.tick().await;
    assert_eq!(house.external_system.texts(&format!("user:{last}")), ["me too"]);
    house.braze.end_outage();
    house.drain().await;
    assert!(blocked.iter().all(|user| house.got(user).len() == 20));
}

#[tokio::test]
async fn a_canvas_is_entered_in_its_turn() {
    let house = House::start().await;
    house.knows("42");
    house.says("42", "hi").await;
    house.drain().await;
    let step = json!({
        "conversation_id": "user:42", "attributes": {"topic": "orders"},
        "replies": [{"text": "one"}, {"canvas": "v", "properties": {"order": "4711"}}, {"text": "two"}],
    });
    // Also a day later: what is named goes as it is named, whatever the window.
    for (hours, webhook_id) in [(0, "msg_1"), (23, "msg_2")] {
        house.later(SignedDuration::from_hours(hours));
        assert_eq!(house.answers_signed(&step, webhook_id).await.0, 202);
        house.tick().await;
    }
    let entries = house.braze.canvas_entries();
    assert_eq!((entries.len(), entries[0].canvas_id.as_str()), (2, "v"));
    let context = serde_json::Value::from(entries[0].context.clone());
    assert_eq!(context, json!({"order": "4711"}));
    assert_eq!(house.attribute("42", "topic"), Some(json!("orders")));
    assert_eq!(house.got("42")[1..], ["one", "two", "one", "two"]);
    let paths = house.braze.requests().into_iter().map(|request| request.path);
    let step: Vec<bool> = paths
        .skip(1)
        .map(|path| path == Endpoint::CanvasSend.path())
        .collect();
    assert_eq!(step[..3], [false, true, false], "in the order of the answer");
}

#[tokio::test]
async fn a_canvas_that_is_not_live_is_dead_and_the_next_goes_on() {
    let house = House::start().await;
    house.knows("42");
    house.braze.set_canvas(Canvas::live("v").paused());
    house.says("42", "hi").await;
    house.drain().await;
    let step = json!({"conversation_id": "user:42", "replies": [{"canvas": "v"}, {"text": "two"}]});
    assert_eq!(house.answers_signed(&step, "msg_1").await.0, 202);
    house.tick().await;
    assert_eq!(house.rows("dead").await[0].1, "canvas_not_live");
    assert_eq!(house.got("42")[1..], ["two"]);
    house.braze.set_canvas(Canvas::live("v"));
    let dead = house.outbox().list_dead(Lane::Relay, 10).await.unwrap();
    assert!(house.outbox().redrive(&dead[0]).await.unwrap());
    house.tick().await;
    assert_eq!(house.braze.canvas_entries().len(), 1);
}
