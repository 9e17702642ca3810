//! Many messages at once, of one person and of many.

use std::time::Duration;

use futures_util::future::join_all;
use jiff::SignedDuration;
use testkit::external_system::Behaviour;
use testkit::time::PATIENCE;

use super::relay_house::RelayHouse;

#[tokio::test]
async fn a_burst_that_waits_is_handed_over_at_once_and_in_order() {
    let house = RelayHouse::start().await;
    house.knows("42");
    for text in ["1", "2", "3", "4", "5"] {
        house.says("42", text).await;
        house.later(SignedDuration::from_millis(300));
    }
    house.tick().await;
    assert_eq!(house.system.handovers().len(), 1);
    assert_eq!(house.system.texts("user:42"), ["1", "2", "3", "4", "5"]);
    assert_eq!(house.rows("pending").await, []);
}

#[tokio::test]
async fn five_messages_at_the_same_moment_are_all_taken() {
    let house = RelayHouse::start().await;
    house.knows("42");
    let texts: Vec<String> = (0..5).map(|number| format!("message {number}")).collect();
    join_all(texts.iter().map(|text| house.says("42", text))).await;
    house.drain().await;
    let mut handed = house.system.texts("user:42");
    handed.sort();
    assert_eq!(handed, texts);
    assert_eq!(house.system.handover_count(), 1);
}

#[tokio::test]
async fn a_burst_while_the_answer_is_made_takes_a_second_call_and_no_more() {
    let house = RelayHouse::live(&[]).await;
    house.knows("42");
    house
        .system
        .set_behaviour(Behaviour::slow(Duration::from_millis(1500)));
    house.says("42", "1").await;
    let asked = house
        .system
        .until(PATIENCE, |system| system.handover_count() == 1);
    assert!(asked.await);
    for text in ["2", "3", "4", "5"] {
        house.says("42", text).await;
    }
    let answered = house
        .braze
        .until(PATIENCE, |braze| braze.sent_messages().len() == 2);
    assert!(answered.await, "{:?}", house.got("42"));
    assert_eq!(house.system.texts("user:42"), ["1", "2", "3", "4", "5"]);
    assert_eq!(house.system.handover_count(), 2);
    assert!(house.system.overlapping().is_empty());
}

#[tokio::test]
async fn with_a_burst_window_there_is_one_call() {
    let house = RelayHouse::live(&[("BURST_WINDOW_SECONDS", "1")]).await;
    house.knows("42");
    for text in ["1", "2", "3", "4", "5"] {
        house.says("42", text).await;
        house.later(SignedDuration::from_millis(200));
    }
    let answered = house
        .braze
        .until(PATIENCE, |braze| !braze.sent_messages().is_empty());
    assert!(answered.await);
    assert_eq!(house.system.handover_count(), 1);
    assert_eq!(house.system.texts("user:42"), ["1", "2", "3", "4", "5"]);
}

#[tokio::test]
async fn more_messages_than_one_call_takes_go_in_order() {
    let house = RelayHouse::start().await;
    house.knows("42");
    house
        .system
        .begin_outage(testkit::fault::Fault::CutBeforeProcessing);
    let texts: Vec<String> = (0..130).map(|number| format!("message {number}")).collect();
    for text in &texts {
        house.says("42", text).await;
        house.later(SignedDuration::from_millis(10));
    }
    house.tick().await;
    house.system.end_outage();
    house.system.forget_handovers();
    house.drain().await;
    assert_eq!(house.system.texts("user:42"), texts);
    assert_eq!(house.got("42").len(), 7);
}

#[tokio::test]
async fn two_hundred_conversations_are_answered_side_by_side() {
    let house = RelayHouse::start().await;
    house
        .system
        .set_behaviour(Behaviour::slow(Duration::from_millis(300)));
    let users: Vec<String> = (0..200).map(|number| format!("user-{number}")).collect();
    for user in &users {
        house.knows(user);
    }
    for chunk in users.chunks(20) {
        join_all(chunk.iter().map(|user| house.says(user, "hi"))).await;
    }
    house.aws.reset_calls();
    let report = house.tick().await;
    assert_eq!(report["done"], 200, "{report}");
    assert!(users.iter().all(|user| house.got(user) == ["You said: hi"]));
    assert!(
        house.system.most_at_once() >= 60,
        "{} at once",
        house.system.most_at_once()
    );
    assert!(house.system.overlapping().is_empty());
    let calls = house.aws.dynamodb_calls();
    // Eight a conversation, and what the tick itself reads and writes for all of them.
    assert!(calls.total() <= 200 * 8 + 40, "{calls:?}");
}

#[tokio::test]
async fn one_slow_conversation_holds_up_no_other() {
    let house = RelayHouse::start().await;
    house.system.script(Behaviour::slow(Duration::from_secs(1)));
    for user in ["1", "2", "3"] {
        house.knows(user);
        house.says(user, "hi").await;
    }
    house.tick().await;
    // Whoever was asked first met the slow answer.
    let slow = house.system.handovers()[0].conversation_id().replace("user:", "");
    let sent = house.braze.sent_messages();
    assert_eq!(sent.len(), 3);
    assert_eq!(sent[2].braze_id, house.braze.profile(&slow).unwrap().braze_id);
}
