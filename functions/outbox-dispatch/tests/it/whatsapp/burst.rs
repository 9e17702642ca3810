//! Many messages at once, of one person and of many.

use std::time::Duration;

use futures_util::future::join_all;
use jiff::SignedDuration;
use testkit::external_system::Behaviour;
use testkit::time::PATIENCE;

use super::house::House;

#[tokio::test]
async fn a_burst_that_waits_is_handed_over_at_once_and_in_order() {
    let house = House::start().await;
    house.knows("42");
    for text in ["1", "2", "3", "4", "5"] {
        house.says("42", text).await;
        house.later(SignedDuration::from_millis(300));
    }
    house.tick().await;
    assert_eq!(house.external_system.handovers().len(), 1);
    assert_eq!(house.external_system.texts("user:42"), ["1", "2", "3", "4", "5"]);
    assert_eq!(house.rows("pending").await, []);
}

#[tokio::test]
async fn five_messages_at_the_same_moment_are_all_taken() {
    let house = House::start().await;
    house.knows("42");
    let texts: Vec<String> = (0..5).map(|number| format!("message {number}")).collect();
    join_all(texts.iter().map(|text| house.says("42", text))).await;
    house.drain().await;
    let mut handed = house.external_system.texts("user:42");
    handed.sort();
    assert_eq!(handed, texts);
    assert_eq!(house.external_system.handover_count(), 1);
}

#[tokio::test]
async fn a_burst_while_the_answer_is_made_takes_a_second_call_and_no_more() {
    let house = House::live(&[]).await;
    house.knows("42");
    house
        .external_system
        .set_behaviour(Behaviour::slow(Duration::from_millis(1500)));
    house.says("42", "1").await;
    let asked = house
        .external_system
        .until(PATIENCE, |system| system.handover_count() == 1);
    assert!(asked.await);
    for text in ["2", "3", "4", "5"] {
        house.says("42", text).await;
    }
    let answered = house
        .braze
        .until(PATIENCE, |braze| braze.sent_messages().len() == 2);
    assert!(answered.await, "{:?}", house.got("42"));
    assert_eq!(house.external_system.texts("user:42"), ["1", "2", "3", "4", "5"]);
    assert_eq!(house.external_system.handover_count(), 2);
    assert!(house.external_system.overlapping().is_empty());
}

#[tokio::test]
async fn with_a_burst_window_there_is_one_call() {
    let house = House::live(&[("BURST_WINDOW_SECONDS", "1")]).await;
    house.knows("42");
    for text in ["1", "2", "3", "4", "5"] {
        house.says("42", text).await;
        house.later(SignedDuration::from_millis(200));
    }
    let answered = house
        .braze
        .until(PATIENCE, |braze| !braze.sent_messages().is_empty());
    assert!(answered.await);
    assert_eq!(house.external_system.handover_count(), 1);
    assert_eq!(house.external_system.texts("user:42"), ["1", "2", "3", "4", "5"]);
}

#[tokio::test]
async fn more_messages_than_one_call_takes_go_in_order() {
    let house = House::start().await;
    house.knows("42");
    house
        .external_system
        .begin_outage(testkit::fault::Fault::CutBeforeProcessing);
    let texts: Vec<String> = (0..130).map(|number| format!("message {number}")).collect();
    for text in &texts {
        house.says("42", text).await;
        house.later(SignedDuration::from_millis(10));
    }
    house.tick().await;
    house.external_system.end_outage();
    house.external_system.forget_handovers();
    house.drain().await;
    assert_eq!(house.external_system.texts("user:42"), texts);
    assert_eq!(house.got("42").len(), 7);
}

#[tokio::test]
async fn one_slow_conversation_holds_up_no_other() {
    let house = House::start().await;
    house
        .external_system
        .script(Behaviour::slow(Duration::from_secs(1)));
    for user in ["1", "2", "3"] {
        house.knows(user);
        house.says(user, "hi").await;
    }
    house.tick().await;
    // Whoever was asked first met the slow answer.
    let slow = house.external_system.handovers()[0]
        .conversation_id()
        .replace("user:", "");
    let sent = house.braze.sent_messages();
    assert_eq!(sent.len(), 3);
    assert_eq!(sent[2].braze_id, house.braze.profile(&slow).unwrap().braze_id);
}
