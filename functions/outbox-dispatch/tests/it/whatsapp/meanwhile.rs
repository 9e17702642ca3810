//! What happens while an answer is being made.

use serde_json::json;
use testkit::aws::Fault as AwsFault;
use testkit::external_system::{Behaviour, Reply};

use super::house::{House, SIGNING_SECRET, TOKEN, body, inbound_request, reply_request};

/// The desk takes the conversation over just before the answer is stored.
fn a_human_takes_over(house: &House) {
    let (relay, now) = (house.relay.clone(), house.clock.now());
    house.aws.before_next("TransactWriteItems", move |_| {
        Box::pin(async move {
            let takes_over = json!({"conversation_id": "user:42", "replies": [], "handoff": true});
            let headers = testkit::signer::standard_webhooks_headers(
                SIGNING_SECRET,
                "msg_desk",
                now,
                takes_over.to_string().as_bytes(),
            );
            let answer = relay.handle(reply_request(&takes_over, &headers.unwrap())).await;
            assert_eq!(answer.status().as_u16(), 202);
        })
    });
}

#[tokio::test]
async fn a_chatbot_is_not_heard_once_a_human_has_taken_over() {
    let house = House::with(&[("EXTERNAL_SYSTEM_KIND", "openai")]).await;
    house.knows("42");
    house.says("42", "hi").await;
    a_human_takes_over(&house);
    house.tick().await;
    assert_eq!(house.external_system.handover_count(), 1);
    assert_eq!(house.got("42"), Vec::<String>::new());
    assert_eq!(house.attribute("42", "whatsapp_human_agent"), Some(json!(true)));
    assert_eq!(house.rows("pending").await, []);
}

#[tokio::test]
async fn an_answer_from_before_does_not_end_a_hand_off() {
    let house = House::start().await;
    house.knows("42");
    house
        .external_system
        .script(Behaviour::Reply(Reply::text("Welcome back!").handoff(false)));
    house.says("42", "hi").await;
    a_human_takes_over(&house);
    house.tick().await;
    assert_eq!(house.got("42"), ["Welcome back!"]);
    assert_eq!(house.attribute("42", "whatsapp_human_agent"), Some(json!(true)));
    house.says("42", "anybody?").await;
    house.tick().await;
    assert_eq!(house.external_system.handovers()[1].mode(), "human");
}

#[tokio::test]
async fn messages_that_come_in_meanwhile_get_in_the_way_of_no_lease() {
    // DynamoDB refuses updates of an item that a transaction is writing; the SDK does not try these again.
    for conflicts in 1..5 {
        let house = House::start().await;
        house.knows("42");
        house.says("42", "first").await;
        let (relay, parts) = (house.relay.clone(), house.parts.clone());
        house.aws.before_next("TransactWriteItems", move |_| {
            Box::pin(async move {
                let request = inbound_request(&body("42", "second", "d2"), Some(TOKEN));
                assert_eq!(relay.handle(request).await.status().as_u16(), 202);
                parts.aws.fail_next("UpdateItem", conflicts, AwsFault::Conflict);
            })
        });
        house.tick().await;
        assert_eq!(house.got("42"), ["You said: first", "You said: second"]);
        assert_eq!(house.external_system.texts("user:42"), ["first", "second"]);
        assert_eq!(house.rows("pending").await, []);
    }
}
