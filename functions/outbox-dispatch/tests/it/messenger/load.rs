use std::time::Duration;

use futures_util::future::join_all;
use jiff::SignedDuration;
use serde_json::json;
use testkit::fault::Fault;

use super::house::House;

#[tokio::test]
async fn a_thousand_new_people_in_one_post_take_at_most_a_hundred_calls() {
    let house = House::start().await;
    house.receive(&[house.message("1")]).await;
    house.aws.reset_calls();
    let items: Vec<_> = (0..1000).map(|n| house.message(&format!("8{n:04}"))).collect();
    assert_eq!(house.receive(&items).await, 200);
    let calls = house.aws.dynamodb_calls();
    assert!(calls.total() <= 100, "{calls:?}");
    assert_eq!(house.pending().await, 1001);
}

#[tokio::test]
async fn a_thousand_mixed_acts_of_as_many_new_people_take_no_more() {
    let house = House::start().await;
    house.receive(&[house.message("1")]).await;
    house.aws.reset_calls();
    let acts = [
        json!({"message": {"mid": "m", "text": "hi"}}),
        json!({"postback": {"mid": "p", "payload": "x"}}),
        json!({"reaction": {"mid": "m", "action": "react"}}),
        json!({"optin": {"type": "notification_messages", "title": "Offers", "notification_messages_token": "K"}}),
        json!({"referral": {"source": "ADS", "ad_id": "6"}}),
        json!({"read": {"watermark": 1}}),
        json!({"delivery": {"watermark": 1}}),
        json!({"optout": {"type": "notification_messages"}}),
        json!({"account_linking": {"status": "unlinked"}}),
        json!({"message": {"mid": "e", "is_deleted": true}}),
    ];
    let items = (0..1000).map(|n| {
        let mut item = house.message(&format!("8{n:04}"));
        item.as_object_mut().unwrap().remove("message");
        item.as_object_mut()
            .unwrap()
            .extend(acts[n % acts.len()].as_object().unwrap().clone());
        item
    });
    assert_eq!(house.receive(&items.collect::<Vec<_>>()).await, 200);
    let calls = house.aws.dynamodb_calls();
    assert!(calls.total() <= 100, "{calls:?}");
    println!("{calls:?}");
}

/// Works on what is due, and dies when Braze has got so many requests.
async fn dies_after(house: &House, requests: usize) {
    house.braze.begin_outage(Fault::Late(Duration::from_millis(30)));
    house.later(SignedDuration::from_secs(31));
    let until = house.clock.now() + SignedDuration::from_mins(2);
    let died = async {
        while house.braze.track_requests().len() < requests {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::select! {
        run = house.dispatch.handle_until(json!({}), until) => panic!("{run:?}"),
        () = died => {}
    }
}

#[tokio::test]
async fn a_process_that_dies_over_many_syncs_has_settled_what_it_had_done() {
    let house = House::start().await;
    let items: Vec<_> = (0..1000).map(|n| house.message(&format!("9{n:04}"))).collect();
    assert_eq!(house.receive(&items).await, 200);
    // Of the second lot: at 600 a lot and 75 a request there are eight in the first.
    dies_after(&house, 9).await;
    // The last of the first may be on their way into the table.
    assert!((400..1000).contains(&house.pending().await));
}

#[tokio::test]
async fn a_process_that_dies_over_one_persons_many_events_has_settled_what_it_had_done() {
    let house = House::with(&[("MESSENGER_EVENTS", "message")]).await;
    let items: Vec<_> = (0..200).map(|_| house.message("9001")).collect();
    assert_eq!(house.receive(&items).await, 200);
    let all = house.pending().await;
    dies_after(&house, 2).await;
    assert_eq!(house.pending().await, all - 70);
    // The dead one's claims run out.
    house.later(SignedDuration::from_mins(3));
    let report = house.tick().await;
    assert_eq!((&report["done"], house.pending().await), (&json!(all - 70), 0));
    // Of the request under way nobody knows.
    assert!((200..=270).contains(&house.braze.events().len()));
}

// `cargo bench` does the same with ten thousand.
#[tokio::test]
async fn fifteen_hundred_syncs_leave_in_twenty_requests() {
    let house = House::start().await;
    let posts: Vec<Vec<_>> = (0..3)
        .map(|post| {
            (0..500)
                .map(|n| house.message(&format!("9{post}{n:04}")))
                .collect()
        })
        .collect();
    for answer in join_all(posts.iter().map(|items| house.receive(items))).await {
        assert_eq!(answer, 200);
    }
    house.tick().await;
    assert_eq!(house.pending().await, 0);
    assert_eq!(house.braze.profiles().len(), 1500);
    assert_eq!(house.braze.track_requests().len(), 20);
}
