//! Messages through Meta: what leaves, what its answers teach, and what becomes of the campaign's next message.

use jiff::SignedDuration;
use serde_json::json;
use testkit::aws::Fault as AwsFault;
use testkit::fault::{Answer, Fault};
use testkit::graph::{Edge, GraphError, Reach, faults};
use testkit::house::{APP_SECRET, PAGE, PAGE_TOKEN};

use super::send_house::{Stack, batch};

fn state(status: &str, reason: &str) -> Vec<(String, String)> {
    vec![(status.to_owned(), reason.to_owned())]
}

#[tokio::test]
async fn a_message_leaves_once_with_the_pages_token_and_our_id() {
    let house = Stack::start().await;
    house.writes("7001").await;
    let (_, answer) = house.sends("7001", json!({"dispatch_id": "d"})).await;
    house.sends("7001", json!({"dispatch_id": "d"})).await;
    house.tick().await;
    house.tick().await;
    let sent = house.house.graph.sent_messages();
    assert_eq!(sent.len(), 1);
    assert_eq!(
        (sent[0].sender.as_str(), sent[0].recipient.as_str()),
        (PAGE, "7001")
    );
    assert_eq!(sent[0].messaging_type, "RESPONSE");
    assert_eq!(
        sent[0].message,
        json!({"text": "hello", "metadata": answer["send_id"]})
    );
    assert_eq!(house.states().await, state("done", ""));
}

#[tokio::test]
async fn who_cannot_be_reached_loses_the_id_until_they_act() {
    let house = Stack::start().await;
    house.is("7001", "user-1").await;
    house.tick().await;
    assert_eq!(house.attribute("user-1", "messenger_id"), Some(json!("7001")));
    house.house.graph.set_reach("7001", Reach::Unavailable);
    house.sends("7001", json!({})).await;
    house.tick().await;
    house.tick().await;
    assert_eq!(house.states().await, state("dead", "unreachable"));
    assert_eq!(house.attribute("user-1", "messenger_id"), None);
    let (status, answer) = house.sends("7001", json!({})).await;
    assert_eq!((status, &answer["error"]), (409, &json!("unreachable")));

    house.house.graph.set_reach("7001", Reach::Open);
    house.house.later(SignedDuration::from_mins(1));
    house.writes("7001").await;
    house.tick().await;
    assert_eq!(house.attribute("user-1", "messenger_id"), Some(json!("7001")));
    assert_eq!(house.sends("7001", json!({})).await.0, 202);
    house.tick().await;
    assert_eq!(house.house.graph.sent_messages().len(), 1);
}

#[tokio::test]
async fn a_window_that_meta_calls_closed_is_closed() {
    let house = Stack::start().await;
    house.is("7001", "user-1").await;
    house.tick().await;
    house.house.graph.set_reach("7001", Reach::WindowClosed);
    house.sends("7001", json!({})).await;
    house.tick().await;
    house.tick().await;
    assert_eq!(house.states().await, state("dead", "window_closed"));
    let told = house.attribute("user-1", "messenger_window_closes_at").unwrap();
    let told: jiff::Timestamp = told.as_str().unwrap().parse().unwrap();
    assert!(told <= house.house.clock.now(), "{told}");
    assert_eq!(house.sends("7001", json!({})).await.1["error"], "window_closed");
    // An agent may still answer.
    let agent = json!({"messaging_type": "MESSAGE_TAG", "tag": "HUMAN_AGENT"});
    assert_eq!(house.sends("7001", agent).await.0, 202);
    house.tick().await;
    assert_eq!(
        house.house.graph.sent_messages()[0].tag.as_deref(),
        Some("HUMAN_AGENT")
    );
}

#[tokio::test]
async fn who_opts_out_after_the_202_is_not_written_to() {
    let house = Stack::start().await;
    house.writes("7001").await;
    house.sends("7001", json!({})).await;
    house.house.later(SignedDuration::from_secs(1));
    house
        .acts(PAGE, "7001", "message", json!({"mid": "m_stop", "text": "STOP"}))
        .await;
    house.tick().await;
    assert_eq!(house.states().await, state("dead", "opted_out"));
    assert!(house.house.graph.sent_messages().is_empty());
}

#[tokio::test]
async fn without_a_token_it_waits_for_one() {
    let house = Stack::start().await;
    let meta = json!({"app_id": "1", "app_secret": APP_SECRET, "verify_token": "v"});
    house.house.write_secret("MetaSecret", &meta).await.unwrap();
    house.writes("7001").await;
    house.sends("7001", json!({})).await;
    house.tick().await;
    assert_eq!(house.states().await, state("pending", "no_page_token"));
    let mut filled = meta.clone();
    filled["page_access_tokens"] = json!({PAGE: PAGE_TOKEN});
    house.house.write_secret("MetaSecret", &filled).await.unwrap();
    house.house.later(SignedDuration::from_hours(1));
    house.tick().await;
    assert_eq!(house.states().await, state("done", "no_page_token"));
    assert_eq!(house.house.graph.sent_messages().len(), 1);
}

/// Its status says that Meta has it.
#[tokio::test]
async fn an_answer_that_says_it_is_fine_and_cannot_be_read_is_no_reason_to_send_again() {
    for body in ["<html>fine</html>".to_owned(), String::new(), "x".repeat(5 << 20)] {
        let house = Stack::start().await;
        house.writes("7001").await;
        house
            .house
            .graph
            .script(Edge::Messages, Fault::ProcessedThen(Answer::html(200, &body)));
        house.sends("7001", json!({})).await;
        for _ in 0..3 {
            house.tick().await;
            house.house.later(SignedDuration::from_hours(1));
        }
        assert_eq!(house.house.graph.sent_messages().len(), 1);
        assert_eq!(house.states().await, state("done", ""));
    }
}

/// However long that takes: it is not the message's fault.
#[tokio::test]
async fn a_secret_that_cannot_be_read_is_waited_for() {
    let house = Stack::with(&[("RETRY_FOR_HOURS", "1")]).await;
    let mut meta = json!({"app_id": "1", "verify_token": "v"});
    house.writes("7001").await;
    house.house.write_secret("MetaSecret", &meta).await.unwrap();
    house.sends("7001", json!({})).await;
    for _ in 0..3 {
        house.tick().await;
        assert_eq!(house.states().await, state("pending", "secrets_unavailable"));
        house.house.later(SignedDuration::from_hours(1));
    }
    meta["app_secret"] = APP_SECRET.into();
    meta["page_access_tokens"] = json!({PAGE: PAGE_TOKEN});
    house.house.write_secret("MetaSecret", &meta).await.unwrap();
    house.tick().await;
    assert_eq!(house.house.graph.sent_messages().len(), 1);
}

#[tokio::test]
async fn each_answer_of_metas_has_its_consequence() {
    let error = |code: i64, subcode: i64| {
        let error = GraphError::new(code, "an error");
        faults::error(&if subcode == 0 {
            error
        } else {
            error.subcode(subcode)
        })
    };
    for (answer, status, reason) in [
        (error(1, 1_357_046), "done", ""),
        (error(10, 2_018_278), "dead", "window_closed"),
        (error(551, 0), "dead", "unreachable"),
        (error(10, 2_018_300), "dead", "other_app_has_thread"),
        (error(10, 1_893_015), "dead", "topic_stopped"),
        (error(190, 463), "pending", "page_token_invalid"),
        (error(10, 0), "pending", "graph_10"),
        (error(368, 0), "pending", "page_restricted"),
        (error(4, 0), "pending", "graph_4"),
        (error(2, 0), "pending", "graph_2"),
        (error(341, 0), "pending", "graph_341"),
        (error(2, 99), "pending", "graph_2_99"),
        (error(100, 2_018_008), "pending", "graph_100_2018008"),
        (error(100, 1_893_061), "dead", "graph_100_1893061"),
        (Fault::CutAfterProcessing, "pending", "graph_unreachable"),
    ] {
        let house = Stack::start().await;
        house.writes("7001").await;
        house.sends("7001", json!({})).await;
        // A dead token is looked up anew, and tried once more.
        let tries = if reason == "page_token_invalid" { 2 } else { 1 };
        for _ in 0..tries {
            house.house.graph.script(Edge::Messages, answer.clone());
        }
        house.tick().await;
        assert_eq!(house.states().await, state(status, reason), "{answer:?}");
    }
}

#[tokio::test]
async fn a_failure_is_reported_if_that_is_asked_for() {
    let house = Stack::with(&[("MESSENGER_EVENTS", "send_failed")]).await;
    house.is("7001", "user-1").await;
    house.tick().await;
    house.house.graph.set_reach("7001", Reach::OtherApp);
    house.sends("7001", json!({"campaign_id": "c-1"})).await;
    house.tick().await;
    house.tick().await;
    let profiles = house.house.braze.profiles().into_iter();
    let mut profile = profiles.filter(|profile| profile.external_id.as_deref() == Some("user-1"));
    let events = profile.next().unwrap().events;
    let failed: Vec<_> = events
        .iter()
        .filter(|event| event.name == "messenger_send_failed")
        .collect();
    assert_eq!(failed.len(), 1, "{events:?}");
    let shown = format!("{:?}", failed[0]);
    assert!(
        shown.contains("other_app_has_thread") && shown.contains("c-1"),
        "{shown}"
    );
}

#[tokio::test]
async fn what_was_taught_is_kept_though_the_store_falters() {
    let house = Stack::start().await;
    house.is("7001", "user-1").await;
    house.tick().await;
    house.house.graph.set_reach("7001", Reach::Unavailable);
    house.sends("7001", json!({})).await;
    house
        .house
        .aws
        .fail_next("TransactWriteItems", 20, AwsFault::Throttle);
    house.tick().await;
    house.house.aws.clear_faults();
    house.house.later(SignedDuration::from_mins(10));
    house.tick().await;
    house.tick().await;
    assert_eq!(house.attribute("user-1", "messenger_id"), None);
    assert_eq!(house.states().await.len(), 1);
}

/// Each waits for the page's turn, but not when the time is up: the invocation would be cut off.
#[tokio::test]
async fn what_does_not_leave_in_time_does_not_wait_for_its_turn() {
    let house = Stack::start().await;
    for n in 0..150 {
        house.writes(&format!("7{n:03}")).await;
        house.sends(&format!("7{n:03}"), json!({})).await;
    }
    let messages = house.messages().await;
    assert_eq!(messages.len(), 150);
    house.house.aws.reset_calls();
    let until = house.house.clock.now() + SignedDuration::from_secs(1);
    let run = house.dispatch.handle_until(batch(&messages), until);
    run.await.unwrap();
    // A turn is taken by a write.
    let calls = house.house.aws.dynamodb_calls();
    assert_eq!(calls.of("UpdateItem"), 0, "{calls:?}");
    assert!(house.house.graph.sent_messages().is_empty());
}

#[tokio::test]
async fn a_page_sends_to_many_and_to_each_once() {
    let house = Stack::start().await;
    for n in 0..60 {
        house.writes(&format!("7{n:03}")).await;
    }
    for n in 0..60 {
        let (status, _) = house
            .sends(&format!("7{n:03}"), json!({"dispatch_id": "d"}))
            .await;
        assert_eq!(status, 202);
    }
    let began = tokio::time::Instant::now();
    house.tick().await;
    let took = began.elapsed();
    let sent = house.house.graph.sent_messages();
    let people: std::collections::BTreeSet<_> = sent.iter().map(|sent| sent.recipient.clone()).collect();
    assert_eq!((sent.len(), people.len()), (60, 60));
    // Thirty a second: the 31st leaves a second after the first, the last almost two. When they arrive says less: the
    // first may be held up on its way.
    assert!(took >= std::time::Duration::from_millis(1_960), "{took:?}");
}
