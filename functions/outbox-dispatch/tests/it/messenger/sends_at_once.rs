//! Messages of several processes, of processes that die, and whose answers are lost.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use futures_util::future::join;
use jiff::SignedDuration;
use serde_json::{Value, json};
use testkit::fault::Fault;
use testkit::graph::{Edge, Reach, TokenKind};
use testkit::house::{APP_ID, APP_SECRET, PAGE};
use tokio::time::Instant;

use super::send_house::{Stack, batch, dispatcher};
use crate::mortal::Mortal;

fn until(stack: &Stack) -> jiff::Timestamp {
    stack.house.clock.now() + SignedDuration::from_mins(2)
}

/// How often each message was taken by Meta, by its id.
fn taken(stack: &Stack) -> BTreeMap<String, usize> {
    let mut taken = BTreeMap::new();
    for sent in stack.house.graph.sent_messages() {
        let id = sent.message["metadata"].as_str().unwrap().to_owned();
        *taken.entry(id).or_default() += 1;
    }
    taken
}

#[tokio::test]
async fn two_processes_share_a_pages_thirty_a_second() {
    let stack = Stack::start().await;
    for n in 0..60 {
        stack.writes(&format!("7{n:03}")).await;
        assert_eq!(stack.sends(&format!("7{n:03}"), json!({})).await.0, 202);
    }
    let other = dispatcher(&stack.house);
    let messages = stack.messages().await;
    let (first, second) = messages.split_at(30);
    let began = Instant::now();
    let (one, two) = join(
        stack.dispatch.handle_until(batch(first), until(&stack)),
        other.handle_until(batch(second), until(&stack)),
    )
    .await;
    one.unwrap();
    two.unwrap();
    let took = began.elapsed();
    assert_eq!(taken(&stack).values().copied().collect::<Vec<_>>(), [1; 60]);
    // Each alone has done after a second.
    assert!(took >= Duration::from_millis(1_960), "{took:?}");
}

// The schedule begins a run every minute, and one of many messages takes two.
#[tokio::test]
async fn two_runs_over_the_same_messages_send_each_once() {
    const MESSAGES: usize = 40;
    let stack = Stack::start().await;
    for n in 0..MESSAGES {
        stack.writes(&format!("7{n:03}")).await;
        assert_eq!(stack.sends(&format!("7{n:03}"), json!({})).await.0, 202);
    }
    let other = dispatcher(&stack.house);
    stack.house.later(SignedDuration::from_secs(31));
    let (one, two) = join(
        stack.dispatch.handle_until(json!({}), until(&stack)),
        other.handle_until(json!({}), until(&stack)),
    )
    .await;
    one.unwrap();
    two.unwrap();
    assert_eq!(taken(&stack).values().copied().collect::<Vec<_>>(), [1; MESSAGES]);
}

#[tokio::test]
async fn a_message_that_another_run_has_uses_up_no_turn_of_its_page() {
    let stack = Stack::start().await;
    stack.writes("7001").await;
    assert_eq!(stack.sends("7001", json!({})).await.0, 202);
    let message = stack.messages().await.remove(0);
    let outbox = stack.house.table("OutboxTable");
    let lease = until(&stack).as_millisecond().to_string();
    let claim = stack.house.aws.dynamodb().update_item().table_name(outbox);
    let claim = claim
        .key("subject", AttributeValue::S(message.subject))
        .key("event_key", AttributeValue::S(message.event_key))
        .update_expression("SET lease_until = :until, lease_owner = :other")
        .expression_attribute_values(":until", AttributeValue::N(lease))
        .expression_attribute_values(":other", AttributeValue::S("another".to_owned()));
    claim.send().await.unwrap();
    stack.tick().await;
    let contacts = stack.house.items("ContactsTable").await.unwrap();
    let has_turn = contacts.iter().any(|item| item.contains_key("free_at"));
    assert!(!has_turn && taken(&stack).is_empty());
}

#[tokio::test]
async fn a_person_gets_one_message_a_second_whoever_sends_it() {
    let stack = Stack::start().await;
    stack.writes("7001").await;
    for _ in 0..4 {
        assert_eq!(stack.sends("7001", json!({})).await.0, 202);
    }
    let other = dispatcher(&stack.house);
    let messages = stack.messages().await;
    let (first, second) = messages.split_at(2);
    let began = Instant::now();
    let (one, two) = join(
        stack.dispatch.handle_until(batch(first), until(&stack)),
        other.handle_until(batch(second), until(&stack)),
    )
    .await;
    one.unwrap();
    two.unwrap();
    let took = began.elapsed();
    assert_eq!(taken(&stack).values().copied().collect::<Vec<_>>(), [1; 4]);
    assert!(took >= Duration::from_secs(3), "{took:?}");
}

// `cargo bench` does the same with ten thousand people.
#[tokio::test]
async fn no_page_waits_for_another() {
    const PAGES: usize = 10;
    const PEOPLE: usize = 15;
    let stack = Stack::start().await;
    let pages: Vec<String> = (0..PAGES).map(|page| format!("90{page}")).collect();
    let mut tokens = serde_json::Map::new();
    for page in &pages {
        let token = format!("EAAB-{page}");
        stack.house.graph.add_token(&token, TokenKind::Page, Some(page));
        tokens.insert(page.clone(), token.into());
    }
    let meta = json!({"app_id": APP_ID, "app_secret": APP_SECRET, "verify_token": "v", "page_access_tokens": tokens});
    stack.house.write_secret("MetaSecret", &meta).await.unwrap();
    for (page, person) in pages
        .iter()
        .flat_map(|page| (0..PEOPLE).map(move |person| (page, person)))
    {
        let psid = format!("{page}7{person:02}");
        stack.writes_to(page, &psid).await;
        let body = json!({"psid": psid, "page_id": page, "text": "hello", "dispatch_id": "d"});
        assert_eq!(stack.posts(&body).await.0, 202);
    }
    stack
        .house
        .graph
        .begin_outage(Fault::Late(Duration::from_millis(50)));
    stack.tick().await;
    stack.house.graph.clear_script();
    let sent = stack.house.graph.sent_messages();
    let people: BTreeSet<_> = sent.iter().map(|sent| &sent.recipient).collect();
    assert_eq!((sent.len(), people.len()), (PAGES * PEOPLE, PAGES * PEOPLE));
    // Each has begun before any is done.
    let place = |page: &String| sent.iter().position(|sent| sent.sender == *page);
    let last = |page: &String| sent.iter().rposition(|sent| sent.sender == *page);
    let (begun, done) = (pages.iter().map(place).max(), pages.iter().map(last).min());
    assert!(begun < done, "{begun:?} {done:?}");
}

/// Two people and one who cannot be reached, each with a message.
async fn three_messages() -> Stack {
    let stack = Stack::with(&[("MESSENGER_EVENTS", "send_failed")]).await;
    stack.is("7003", "user-3").await;
    stack.tick().await;
    stack.house.graph.set_reach("7003", Reach::Unavailable);
    for psid in ["7001", "7002", "7003"] {
        stack.writes(psid).await;
        assert_eq!(stack.sends(psid, json!({"dispatch_id": "d"})).await.0, 202);
    }
    stack
}

#[tokio::test]
async fn killed_anywhere_no_message_is_lost_and_none_leaves_twice_but_in_doubt() {
    let mut polls = 1;
    let (mut in_doubt, mut rounds) = (0, 0);
    loop {
        let stack = three_messages().await;
        stack.house.later(SignedDuration::from_secs(31));
        let run = Mortal::new(stack.dispatch.handle_until(json!({}), until(&stack)), polls);
        let survived = run.await.is_some();
        // Taken by Meta, and nobody has written that down.
        let unsettled: BTreeSet<String> = stack
            .messages()
            .await
            .into_iter()
            .filter(|message| message.status == "pending")
            .map(|message| message.event_key.replace("send#", ""))
            .collect();
        // Only now: what was on its way when the process died has arrived meanwhile.
        let before = taken(&stack);
        // Until the dead process's leases have run out.
        stack.house.later(SignedDuration::from_mins(4));
        stack.tick().await;
        stack.tick().await;
        stack.tick().await;
        let after = taken(&stack);
        assert_eq!(after.len(), 2, "died at poll {polls}");
        for (id, times) in after {
            let is_in_doubt = before.contains_key(&id) && unsettled.contains(&id);
            in_doubt += usize::from(is_in_doubt);
            assert_eq!(times, if is_in_doubt { 2 } else { 1 }, "died at poll {polls}");
        }
        let states = stack.states().await.into_iter().map(|(status, _)| status);
        assert_eq!(states.collect::<Vec<_>>(), ["dead", "done", "done"], "{polls}");
        assert_eq!(stack.attribute("user-3", "messenger_id"), None, "{polls}");
        let profiles = stack.house.braze.profiles().into_iter();
        let mut profile = profiles.filter(|profile| profile.external_id.as_deref() == Some("user-3"));
        let events = profile.next().unwrap().events;
        assert_eq!(events.len(), 1, "died at poll {polls}: {events:?}");
        if survived {
            assert!(polls > 10 && rounds < 4, "{polls} polls, none in doubt");
            if in_doubt > 0 {
                return;
            }
            // Which poll is which is the machine's: none has met a call under way.
            (polls, rounds) = (0, rounds + 1);
        }
        polls += 1;
    }
}

#[tokio::test]
async fn what_has_left_is_written_down_while_others_wait_for_their_turn() {
    const MESSAGES: usize = 40;
    /// Eight are under way at once; as many may have arrived and not be written down yet.
    const MOST_IN_DOUBT: usize = 16;
    let stack = Stack::start().await;
    for n in 0..MESSAGES {
        stack.writes(&format!("7{n:03}")).await;
        assert_eq!(stack.sends(&format!("7{n:03}"), json!({})).await.0, 202);
    }
    stack.house.later(SignedDuration::from_secs(31));
    let half_has_left = async {
        while taken(&stack).len() < MESSAGES / 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        run = stack.dispatch.handle_until(json!({}), until(&stack)) => panic!("{run:?}"),
        () = half_has_left => {}
    }
    let states = stack.states().await;
    let done = states.iter().filter(|(status, _)| status == "done").count();
    assert!(done + MOST_IN_DOUBT >= MESSAGES / 2, "{done} of {MESSAGES}");
    // Until the dead process's claims have run out.
    stack.house.later(SignedDuration::from_mins(2));
    stack.tick().await;
    let taken = taken(&stack);
    let twice = taken.values().filter(|times| **times > 1).count();
    assert!(
        taken.len() == MESSAGES && twice <= MOST_IN_DOUBT,
        "{} left, {twice} twice",
        taken.len()
    );
}

#[tokio::test]
async fn a_request_that_dies_anywhere_is_made_up_for_by_its_repetition() {
    let mut polls = 1;
    loop {
        let stack = Stack::start().await;
        stack.writes("7001").await;
        let body = json!({"psid": "7001", "page_id": PAGE, "text": "hello", "dispatch_id": "d"});
        let survived = Mortal::new(stack.posts(&body), polls).await.is_some();
        assert_eq!(stack.posts(&body).await.0, 202);
        stack.tick().await;
        assert_eq!(
            taken(&stack).values().copied().collect::<Vec<_>>(),
            [1],
            "{polls}"
        );
        if survived {
            return;
        }
        polls += 1;
    }
}

/// Meta sends a page what it has said itself.
async fn echoes(stack: &Stack, psid: &str, metadata: Value) {
    let at = stack.house.clock.now().as_millisecond();
    let item = json!({
        "sender": {"id": PAGE}, "recipient": {"id": psid}, "timestamp": at,
        "message": {"is_echo": true, "app_id": 1, "mid": format!("m_echo_{at}"), "text": "hello", "metadata": metadata},
    });
    stack.receives(&stack.house.page_event(PAGE, &item)).await;
}

#[tokio::test]
async fn a_message_whose_answer_was_lost_is_settled_by_its_echo() {
    for fault in [
        Fault::CutAfterProcessing,
        Fault::ProcessedThen(testkit::fault::Answer::html(502, "")),
    ] {
        let stack = Stack::start().await;
        stack.writes("7001").await;
        let (_, answer) = stack.sends("7001", json!({})).await;
        stack.house.graph.script(Edge::Messages, fault);
        stack.tick().await;
        assert_eq!(stack.states().await[0].0, "pending");
        echoes(&stack, "7001", answer["send_id"].clone()).await;
        assert_eq!(stack.states().await[0].0, "done");
        stack.house.later(SignedDuration::from_hours(1));
        stack.tick().await;
        assert_eq!(stack.house.graph.sent_messages().len(), 1);
    }
}

#[tokio::test]
async fn an_echo_settles_nothing_but_its_own_message() {
    let stack = Stack::start().await;
    stack.writes("7001").await;
    let (_, answer) = stack.sends("7001", json!({})).await;
    let own = answer["send_id"].as_str().unwrap().to_owned();
    stack.house.aws.reset_calls();
    for other in [
        json!("DEVELOPER_DEFINED_METADATA_STRING"),
        json!(own.to_uppercase()),
        json!(own[1..]),
        json!({"send_id": own}),
        json!(null),
    ] {
        echoes(&stack, "7001", other).await;
    }
    assert_eq!(stack.house.aws.dynamodb_calls().total(), 0);
    // Another message's, and another person's.
    echoes(&stack, "7001", json!("0".repeat(32))).await;
    echoes(&stack, "7002", json!(own)).await;
    assert_eq!(stack.states().await[0].0, "pending");
    assert_eq!(stack.messages().await.len(), 1);
    // Before the dispatcher has so much as called: what has been sent is not sent.
    echoes(&stack, "7001", json!(own)).await;
    stack.tick().await;
    assert!(stack.house.graph.sent_messages().is_empty());
}
