//! How hand-overs are paced, and that a message the external system cannot answer holds up no other.

use jiff::SignedDuration;
use serde_json::json;
use shared::outbox::Lane;
use testkit::external_system::{Behaviour, Reply};
use testkit::fault::{Answer, Fault};

use super::faults::tick_killed_before;
use super::house::{House, TOKEN, body, inbound_request};

const HOUR: SignedDuration = SignedDuration::from_hours(1);

async fn redrive_all(house: &House) {
    for dead in house.outbox().list_dead(Lane::Relay, 10).await.unwrap() {
        assert!(house.outbox().redrive(&dead).await.unwrap());
    }
}

#[tokio::test]
async fn what_makes_it_stumble_holds_up_no_other_message() {
    for status in [500, 200] {
        let house = House::start().await;
        house.knows("42");
        let stumbles = match status {
            500 => Behaviour::failing_at("poison", 500),
            _ => Behaviour::FailsAt(
                "poison".to_owned(),
                Fault::Answer(Answer::json(200, &json!({"answer": true}))),
                Box::new(Behaviour::Echo),
            ),
        };
        house.external_system.set_behaviour(stumbles);
        house.says("42", "poison").await;
        house.says("42", "hello").await;
        for _ in 0..4 {
            house.tick().await;
            house.later(HOUR);
        }
        assert_eq!(house.got("42"), ["You said: hello"], "{status}");
        house.says("42", "again").await;
        house.tick().await;
        assert_eq!(house.got("42")[1..], ["You said: again"], "{status}");
        for _ in 0..36 {
            house.tick().await;
            house.later(HOUR);
        }
        assert_eq!(house.rows("pending").await, []);
        assert_eq!(house.rows("dead").await.len(), 1);
        house.says("42", "still there?").await;
        house.tick().await;
        assert_eq!(house.got("42")[2..], ["You said: still there?"], "{status}");
        // Nor is it told as something that was said.
        let told = house.external_system.handovers().last().unwrap().body["history"].to_string();
        assert!(!told.contains("poison") && told.contains("again"), "{told}");
        house.external_system.set_behaviour(Behaviour::Echo);
        redrive_all(&house).await;
        house.tick().await;
        assert_eq!(house.got("42")[3..], ["You said: poison"], "{status}");
    }
}

#[tokio::test]
async fn an_answer_of_another_kind_is_asked_for_three_times() {
    let house = House::with(&[("FALLBACK_TEXT", "Sorry.")]).await;
    house.knows("42");
    house.external_system.script_times(3, &Behaviour::malformed());
    house.says("42", "hi").await;
    for _ in 0..3 {
        house.tick().await;
        house.later(HOUR);
    }
    assert_eq!(
        (house.rows("pending").await.len(), house.rows("dead").await.len()),
        (0, 1)
    );
    assert_eq!(house.got("42"), ["Sorry."]);
    house.says("42", "hello?").await;
    house.tick().await;
    assert_eq!(house.got("42"), ["Sorry.", "You said: hello?"]);
}

#[tokio::test]
async fn an_answer_of_another_kind_after_an_outage_is_asked_for_three_times_all_the_same() {
    for (bad, answered) in [(2, true), (3, false)] {
        let house = House::start().await;
        house.knows("42");
        house.external_system.script_times(2, &Behaviour::failing(503));
        house.external_system.script_times(bad, &Behaviour::malformed());
        house.says("42", "hi").await;
        for _ in 0..2 + bad {
            house.tick().await;
            house.later(HOUR);
        }
        house.drain().await;
        assert_eq!(!house.got("42").is_empty(), answered);
        assert_eq!(house.rows("dead").await.len(), usize::from(!answered));
    }
}

/// What waits for somebody to mend something has not failed, and keeps its place.
#[tokio::test]
async fn what_has_waited_for_a_setting_is_not_passed_by() {
    let house = House::start().await;
    house.knows("42");
    house.external_system.script_times(5, &Behaviour::failing(401));
    for text in ["a", "b"] {
        house.says("42", text).await;
    }
    for _ in 0..5 {
        house.tick().await;
        house.later(HOUR);
    }
    house.external_system.script(Behaviour::failing(503));
    house.says("42", "c").await;
    house.tick().await;
    house.drain().await;
    assert_eq!(house.got("42"), ["You said: a\nb\nc"]);
}

/// As after a table was restored: nobody counts how often it fails, and it would hold up the others for good.
#[tokio::test]
async fn a_message_without_an_item_holds_up_no_other() {
    let house = House::start().await;
    house.knows("42");
    house
        .external_system
        .set_behaviour(Behaviour::failing_at("poison", 500));
    house.says("42", "poison").await;
    house.tick().await;
    house.forgets_items("user:42").await;
    house.later(HOUR);
    house.says("42", "b").await;
    for _ in 0..6 {
        house.tick().await;
        house.later(HOUR);
    }
    assert_eq!(house.got("42"), ["You said: b"]);
}

#[tokio::test]
async fn a_burst_with_a_message_that_is_refused_loses_no_other() {
    let house = House::start().await;
    house.knows("42");
    house
        .external_system
        .set_behaviour(Behaviour::failing_at("poison", 422));
    for text in ["a", "poison", "b"] {
        house.says("42", text).await;
    }
    house.tick().await;
    assert_eq!(house.got("42"), ["You said: a", "You said: b"]);
    assert_eq!(house.rows("dead").await.len(), 1);
    assert_eq!(house.rows("pending").await, []);
    // Each alone, and what was found is given up as what was given.
    let handed: Vec<Vec<String>> = house.external_system.handovers().iter().map(owned).collect();
    assert_eq!(handed[0], ["a", "poison", "b"]);
    assert_eq!(handed[1..].concat(), ["a", "poison", "b"]);
}

#[tokio::test]
async fn killed_anywhere_a_refused_message_costs_only_itself() {
    for operation in [
        "UpdateItem",
        "Query",
        "TransactWriteItems",
        "BatchWriteItem",
        "GetItem",
    ] {
        for nth in 0.. {
            let house = House::start().await;
            house.knows("42");
            house
                .external_system
                .set_behaviour(Behaviour::failing_at("poison", 422));
            for text in ["a", "poison", "b"] {
                house.says("42", text).await;
            }
            if !tick_killed_before(&house, operation, nth).await {
                break;
            }
            house.drain().await;
            let mut got = house.got("42");
            got.dedup();
            let all = house.got("42").len();
            assert_eq!(house.rows("dead").await.len(), 1, "{operation} {nth}");
            // Once answered alone, or together after the refused one was out of the way.
            assert!(
                got == ["You said: a", "You said: b"] || got == ["You said: a\nb"],
                "{operation} {nth}: {got:?}"
            );
            assert!(
                all == got.len() || operation == "BatchWriteItem",
                "{operation} {nth}"
            );
            house.says("42", "c").await;
            house.drain().await;
            assert_eq!(house.got("42")[all..], ["You said: c"], "{operation} {nth}");
        }
    }
}

fn owned(handover: &testkit::external_system::Handover) -> Vec<String> {
    handover.texts().into_iter().map(str::to_owned).collect()
}

#[tokio::test]
async fn many_messages_of_one_person_wait_together_and_die_together() {
    let house = House::start().await;
    house.knows("42");
    house.external_system.begin_outage(Fault::CutBeforeProcessing);
    for number in 0..25 {
        house.says("42", &format!("message {number}")).await;
    }
    for _ in 0..10 {
        house.tick().await;
        let due = house.outbox().due(Lane::Relay, 100, None).await.unwrap().entries;
        assert_eq!(due.len(), 0, "they are looked at each minute");
        house.later(SignedDuration::from_secs(29));
    }
    // After some pauses that grow; two at a time once each goes alone. It was one each minute.
    let asked = house.external_system.handover_count();
    assert!((3..=16).contains(&asked), "{asked} hand-overs in ten minutes");
    for _ in 0..38 {
        house.later(HOUR);
        house.tick().await;
    }
    assert_eq!(
        (house.rows("pending").await, house.rows("dead").await.len()),
        (vec![], 25)
    );
    house.external_system.end_outage();
    house.says("42", "hello").await;
    house.tick().await;
    assert_eq!(house.got("42"), ["You said: hello"]);
}

#[tokio::test]
async fn after_an_outage_all_are_answered_in_their_order() {
    let house = House::start().await;
    house.knows("42");
    house.external_system.begin_outage(Fault::CutBeforeProcessing);
    for text in ["a", "b", "c"] {
        house.says("42", text).await;
    }
    for _ in 0..6 {
        house.tick().await;
        house.later(HOUR);
    }
    house.external_system.end_outage();
    house.says("42", "d").await;
    house.tick().await;
    assert_eq!(house.got("42"), ["You said: a", "You said: b\nc\nd"]);
    assert_eq!(house.rows("pending").await, []);
}

#[tokio::test]
async fn a_message_is_passed_by_only_if_it_has_failed_three_times_and_then_once_more_alone() {
    for failures in 0..=4 {
        let house = House::start().await;
        house.knows("42");
        house
            .external_system
            .script_times(failures, &Behaviour::failing(503));
        house.says("42", "a").await;
        for _ in 0..failures.min(3) {
            house.tick().await;
            house.later(HOUR);
        }
        house.says("42", "b").await;
        house.drain().await;
        let expected: &[&str] = match failures {
            0..3 => &["You said: a\nb"],
            3 => &["You said: a", "You said: b"],
            _ => &["You said: b", "You said: a"],
        };
        assert_eq!(house.got("42"), expected, "{failures}");
        let passed_by = house.external_system.tries_before_passed_by("user:42", "a", "b");
        assert_eq!(passed_by, (failures == 4).then_some(4));
    }
}

#[tokio::test]
async fn a_message_that_comes_while_another_fails_does_not_pass_it_by() {
    let house = House::with(&[("RETRY_BASE_SECONDS", "1")]).await;
    house.knows("42");
    house.external_system.script(Behaviour::failing(503));
    house.says("42", "a").await;
    // The third update of such a tick notes the failure, after the lease and the note of what is asked.
    for _ in 0..2 {
        house.aws.before_next("UpdateItem", |_| Box::pin(async {}));
    }
    let (relay, parts) = (house.relay.clone(), house.parts.clone());
    house.aws.before_next("UpdateItem", move |call| {
        Box::pin(async move {
            assert!(call.to_string().contains("attempts"), "{call}");
            let request = inbound_request(&body("42", "b", "d2"), Some(TOKEN));
            assert_eq!(relay.handle(request).await.status().as_u16(), 202);
            // By the time the worker looks again, the first might be tried again.
            parts.later(SignedDuration::from_secs(2));
        })
    });
    house.tick().await;
    house.drain().await;
    assert_eq!(house.external_system.texts("user:42"), ["a", "a", "b"]);
    assert_eq!(house.got("42"), ["You said: a\nb"]);
}

#[tokio::test]
async fn a_new_message_keeps_to_the_wait_that_was_asked_for() {
    let house = House::start().await;
    house.knows("42");
    let overloaded = Answer::json(503, &json!({})).header("retry-after", 600);
    house
        .external_system
        .script_times(4, &Behaviour::Fault(Fault::Answer(overloaded)));
    house.says("42", "a").await;
    for failures in 1..=4 {
        house.tick().await;
        house.says("42", &format!("b{failures}")).await;
        for _ in 0..8 {
            house.tick().await;
            house.later(SignedDuration::from_secs(29));
        }
        assert_eq!(house.external_system.handover_count(), failures);
        house.later(SignedDuration::from_mins(3));
    }
    house.drain().await;
    assert_eq!(house.got("42").concat().matches('b').count(), 4);
}

#[tokio::test]
async fn a_message_that_is_handed_over_again_keeps_its_id_whatever_goes_with_it() {
    let house = House::start().await;
    house.knows("42");
    house.external_system.script_times(2, &Behaviour::failing(500));
    house.says("42", "a").await;
    house.tick().await;
    house.later(HOUR);
    house.tick().await;
    house.says("42", "b").await;
    house.later(HOUR);
    house.tick().await;
    let handed = house.external_system.handovers();
    let ids: Vec<_> = handed.iter().map(|handed| handed.webhook_id.clone()).collect();
    assert_eq!((&ids[0], handed[1].repeated), (&ids[1], true));
    assert_eq!((ids[1] == ids[2], handed[2].repeated), (false, false));
    assert_eq!(handed[2].texts(), ["a", "b"]);
    let id = |at: usize| handed[at].body["messages"][0]["id"].clone();
    assert!(id(0) == id(1) && id(1) == id(2));
}

#[tokio::test]
async fn a_refused_message_is_found_again_however_much_was_said_since() {
    let house = House::start().await;
    house.knows("42");
    house.external_system.script(Behaviour::failing(422));
    house.says("42", "poison").await;
    house.tick().await;
    house
        .external_system
        .set_behaviour(Behaviour::Reply(Reply::text("one").and("two")));
    for number in 0..40 {
        house.says("42", &format!("message {number}")).await;
        house.tick().await;
    }
    redrive_all(&house).await;
    house.tick().await;
    assert_eq!(
        house.external_system.handovers().last().unwrap().texts(),
        ["poison"]
    );
    assert_eq!(house.rows("dead").await, []);
}

#[tokio::test]
async fn a_message_whose_turn_is_gone_is_dead_and_not_done() {
    let house = House::start().await;
    house.knows("42");
    house.says("42", "hi").await;
    house.forgets_turns("user:42").await;
    house.tick().await;
    assert_eq!(house.rows("dead").await[0].1, "turn_expired");
    assert_eq!(house.external_system.handover_count(), 0);
}
