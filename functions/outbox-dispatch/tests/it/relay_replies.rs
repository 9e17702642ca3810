//! Replies that cannot be sent, and those behind them.

use jiff::SignedDuration;
use serde_json::json;
use shared::outbox::Lane;
use testkit::braze::{Campaign, Endpoint, faults};
use testkit::external_system::{Behaviour, Reply};

use super::relay_house::RelayHouse;

#[tokio::test]
async fn a_reply_that_is_given_up_does_not_take_its_attributes_along() {
    let house = RelayHouse::start().await;
    house.knows("42");
    house.system.script(Behaviour::Reply(
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
    house.system.script(Behaviour::Reply(
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
    let house = RelayHouse::start().await;
    house.knows("42");
    house
        .system
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
    let house = RelayHouse::with(&[("TEMPLATE_CAMPAIGN_ID", "template-campaign")]).await;
    house.knows("42");
    let long = "A sentence of words. ".repeat(120);
    house.system.script(Behaviour::text(&long));
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
    let house = RelayHouse::with(&[
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
    let house = RelayHouse::start().await;
    let one_shard = ONE_SHARD.map(|number| format!("user-{number}"));
    let mut answer = Reply::silent();
    for number in 0..20 {
        answer = answer.and(&format!("reply {number}"));
    }
    house.system.set_behaviour(Behaviour::Reply(answer));
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
    house.system.set_behaviour(Behaviour::Echo);
    house.says(last, "me too").await;
    house.tick().await;
    assert_eq!(house.system.texts(&format!("user:{last}")), ["me too"]);
    house.braze.end_outage();
    house.drain().await;
    assert!(blocked.iter().all(|user| house.got(user).len() == 20));
}
