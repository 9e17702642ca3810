//! `bridge dead` against a running stack.

use jiff::SignedDuration;
use serde_json::Value;

use crate::house::{House, payload};

fn dead(house: &House, arguments: &[&str], code: i32) -> String {
    house.bridge("dead", arguments, code)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_braze_refused_is_listed_shown_and_redriven() {
    let house = House::start(&[]).await;
    assert_eq!(dead(&house, &["list"], 0), "");

    // Braze takes no object about this user, whose neighbour is not affected.
    house.braze().poison("user-43");
    house.deliver(&payload("messenger/referral_link_token")).await;
    house.deliver(&payload("messenger/message_text")).await;
    house.drain().await;
    let problems = house.problems().await;
    assert!(
        problems.len() == 2 && problems[0].contains("contact_sync is dead (braze_400)"),
        "{problems:#?}"
    );

    let listed = dead(&house, &["list", "--json"], 0);
    let item: Value = serde_json::from_str(listed.trim()).unwrap();
    assert_eq!(
        (&item["lane"], &item["kind"]),
        (&"sync".into(), &"contact_sync".into())
    );
    assert!(!listed.contains("5275811715949972"), "{listed}");
    let id = item["id"].as_str().unwrap();
    assert!(dead(&house, &["list", "--lane", "sync"], 0).contains(id));
    assert_eq!(dead(&house, &["list", "--lane", "relay"], 0), "");
    assert!(dead(&house, &["show", id], 0).contains("messenger#1134597043258171#5275811715949972"));
    dead(&house, &["show", "unknown"], 1);
    dead(&house, &["redrive", "unknown"], 2);
    dead(&house, &["redrive"], 2);

    house.braze().clear_script();
    assert_eq!(dead(&house, &["redrive", id], 0), "1 item is pending again\n");
    assert_eq!(
        dead(&house, &["redrive", "--all"], 0),
        "0 items are pending again\n"
    );
    // The command's clock ran on from the stack's, which stands.
    house.later(SignedDuration::from_mins(1));
    house.drain().await;
    assert_eq!(house.problems().await, Vec::<String>::new());
    let profile = house.braze().profile("user-43").unwrap();
    assert_eq!(profile.attribute("messenger_id").unwrap(), "5275811715949972");
    house.stack.stop().await;
}
