//! Much at once, and what it costs.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use jiff::SignedDuration;
use serde_json::json;
use testkit::external_system::Behaviour;
use testkit::fault::{Answer, Fault};
use testkit::lambda::{Handler, handler};
use testkit::time::PATIENCE;

use super::house::{House, TOKEN, body};

#[tokio::test]
async fn two_hundred_conversations_are_answered_side_by_side() {
    let house = House::start().await;
    house
        .external_system
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
        house.external_system.most_at_once() >= 60,
        "{} at once",
        house.external_system.most_at_once()
    );
    assert!(house.external_system.overlapping().is_empty());
    let calls = house.aws.dynamodb_calls();
    // Seven a conversation, and what the tick itself reads and writes for all of them.
    assert!(calls.total() <= 200 * 7 + 40, "{calls:?}");
}

// `cargo bench` does the same with 200, and says how long they wait.
#[tokio::test]
async fn nobody_waits_for_those_whose_system_is_slow() {
    let house = House::live(&[("EXTERNAL_SYSTEM_TIMEOUT_SECONDS", "25")]).await;
    let slowly = Behaviour::SlowAt(
        "slowly".to_owned(),
        Duration::from_secs(20),
        Box::new(Behaviour::Echo),
    );
    house.external_system.set_behaviour(slowly);
    let slow: Vec<String> = (0..15).map(|number| format!("slow-{number}")).collect();
    let fast: Vec<String> = (0..40).map(|number| format!("fast-{number}")).collect();
    for user in slow.iter().chain(&fast) {
        house.knows(user);
    }
    for user in &slow {
        house.says(user, "slowly").await;
    }
    let asked = house
        .external_system
        .until(PATIENCE, |system| system.handover_count() == 15);
    assert!(asked.await, "{}", house.external_system.handover_count());
    for user in &fast {
        house.says(user, "hi").await;
    }
    let answered = house
        .braze
        .until(PATIENCE, |braze| braze.sent_messages().len() >= 40);
    assert!(answered.await, "{}", house.braze.sent_messages().len());
    // All of them before any of those who came first.
    assert!(slow.iter().all(|user| house.got(user).is_empty()));
    assert!(fast.iter().all(|user| house.got(user) == ["You said: hi"]));
}

#[tokio::test]
async fn a_message_that_a_wake_up_brings_takes_eight_calls() {
    let house = House::start().await;
    house.knows("42");
    house.says("42", "hi").await;
    let pending = house.rows("pending").await.into_iter().map(|(key, _)| key);
    let event = super::house::wake_up("user:42", &pending.collect::<Vec<_>>());
    house.aws.reset_calls();
    house.dispatch.handle_until(event, house.until()).await.unwrap();
    let calls = house.aws.dynamodb_calls();
    assert_eq!(house.got("42"), ["You said: hi"]);
    assert_eq!(house.rows("pending").await, []);
    // How its item stands, twice: before the lease and under it. What was said. The lease, what is asked, the end of
    // the lease. The answer. What is settled.
    let expected = [
        ("BatchGetItem", 2),
        ("BatchWriteItem", 1),
        ("Query", 1),
        ("TransactWriteItems", 1),
        ("UpdateItem", 3),
    ];
    let counted = expected.map(|(operation, _)| (operation, calls.of(operation)));
    assert_eq!((counted, calls.total()), (expected, 8));
}

#[tokio::test]
async fn a_thousand_messages_of_one_person_at_the_same_moment_are_all_taken() {
    let house = House::start().await;
    house.knows("42");
    let sent = (0..1_000).map(|number| {
        let house = &house;
        async move {
            let text = format!("message {number}");
            house
                .inbound(&body("42", &text, &format!("d{number}")), Some(TOKEN))
                .await
        }
    });
    for (status, answer) in join_all(sent).await {
        assert_eq!((status, &answer["status"]), (202, &json!("accepted")));
    }
    house.drain().await;
    let mut handed = house.external_system.texts("user:42");
    handed.sort();
    handed.dedup();
    assert_eq!(handed.len(), 1_000);
    assert_eq!(
        (house.rows("pending").await, house.rows("dead").await),
        (vec![], vec![])
    );
}

#[tokio::test]
#[ignore = "takes a minute: run it by hand"]
async fn what_waits_for_a_system_that_is_down_for_an_hour_is_handed_over_once_and_in_order() {
    let house = House::start().await;
    house.knows("42");
    house.waiting("user:42", 2_500).await;
    let down = Answer::json(503, &json!({}));
    house.external_system.begin_outage(Fault::Answer(down));
    for _ in 0..12 {
        house.tick().await;
        house.later(SignedDuration::from_mins(5));
    }
    let asked = house.external_system.handover_count();
    // Two a tick; on a slow machine a backoff ends while a tick goes on.
    assert!(asked <= 36, "{asked} calls in an hour");
    house.external_system.end_outage();
    house.external_system.forget_handovers();
    house.drain().await;
    let handed = house.external_system.texts("user:42");
    let expected: Vec<String> = (0..2_500).map(|number| format!("message {number}")).collect();
    assert!(handed == expected, "{} messages", handed.len());
    assert_eq!(house.rows("dead").await, []);
}

/// Adds up how long invocations take.
fn timed(function: Handler, billed: Arc<Mutex<Duration>>) -> Handler {
    handler(move |event| {
        let (function, billed) = (function.clone(), billed.clone());
        async move {
            let begun = Instant::now();
            let answer = function(event).await;
            *billed.lock().unwrap() += begun.elapsed();
            answer
        }
    })
}

#[tokio::test]
async fn a_burst_window_is_no_time_of_a_function() {
    let window = Duration::from_secs(5);
    let billed = Arc::new(Mutex::new(Duration::ZERO));
    let around = |function| timed(function, billed.clone());
    let house = House::live_with(&[("BURST_WINDOW_SECONDS", "5")], around).await;
    house.knows("42");
    let begun = Instant::now();
    for text in ["1", "2", "3"] {
        house.says("42", text).await;
    }
    let answered = house
        .braze
        .until(PATIENCE, |braze| !braze.sent_messages().is_empty());
    assert!(answered.await);
    assert_eq!(house.external_system.handovers()[0].texts(), ["1", "2", "3"]);
    assert_eq!(house.external_system.handover_count(), 1);
    let billed = *billed.lock().unwrap();
    assert!(begun.elapsed() >= window && billed < window, "{billed:?}");
}
