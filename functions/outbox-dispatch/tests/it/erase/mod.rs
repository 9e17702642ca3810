//! Forgetting a person: everything that there is of them goes, whatever is under way, and stays gone.

mod house;

use jiff::SignedDuration;
use serde_json::json;
use shared::erase::{Status, Target};
use testkit::braze::{Endpoint, faults};
use testkit::external_system::Behaviour;
use testkit::graph::Reach;
use testkit::house::PAGE;
use testkit::logged::Logged;

use self::house::{CODE, House, PHONE, PSID, TRACES, USER};
use crate::mortal::Mortal;

fn names_them(text: &str) -> bool {
    TRACES.iter().any(|trace| text.contains(trace))
}

/// A person with records in every table and items in every state. Gives what the webhook was sent.
async fn known(house: &House) -> Vec<String> {
    house
        .parts
        .braze
        .add_user(USER, &json!({"first_name": "Ana Beispiel", "phone": PHONE}));
    let acts = house.acts();
    for act in &acts {
        assert_eq!(house.receive(act).await, 200);
    }
    assert_eq!(house.writes("d-1").await.0, 202);
    // Done, and what was said.
    house.tick().await;
    assert_eq!(house.campaign("sent").await.0, 202);
    house.tick().await;
    // Dead.
    house.parts.graph.set_reach(PSID, Reach::OtherApp);
    assert_eq!(house.campaign("dead").await.0, 202);
    house.tick().await;
    house.parts.graph.set_reach(PSID, Reach::Open);
    // Failing.
    house.parts.external_system.script(Behaviour::failing(503));
    assert_eq!(house.writes("d-2").await.0, 202);
    house.tick().await;
    // Pending.
    assert_eq!(house.campaign("pending").await.0, 202);
    house.later(SignedDuration::from_mins(70));
    assert_eq!(
        house.receive(&house.message("m-3", "my private words")).await,
        200
    );
    assert_eq!(house.writes("d-3").await.0, 202);
    let traces = house.traces().await;
    let is_in = |place: &str| traces.iter().any(|trace| trace.starts_with(place));
    assert!(is_in("Contacts") && is_in("Conversations") && is_in("Outbox") && is_in("Braze"));
    for name in TRACES {
        assert!(
            traces.iter().any(|trace| trace.contains(&format!(": {name} in"))),
            "{name} is nowhere"
        );
    }
    acts
}

#[tokio::test]
async fn everything_of_a_user_is_erased_and_a_receipt_says_so() {
    let house = House::start("delete").await;
    known(&house).await;
    house.order(Target::User(USER.into())).await;
    assert_eq!(house.receipt().await.status, Status::Received);
    house.tick().await;
    assert_eq!(house.receipt().await.status, Status::Matched);
    let receipt = house.finish().await;
    assert_eq!(receipt.status, Status::Erased);
    let removed = receipt.removed;
    assert_eq!((removed.contacts, removed.conversations), (1, 1));
    assert!(
        removed.turns >= 3 && removed.outbox >= 6 && removed.records >= 3,
        "{removed:?}"
    );
    assert_eq!(house.traces().await, [""; 0]);
}

#[tokio::test]
async fn a_person_is_gone_wherever_the_erasure_dies_and_whatever_is_under_way() {
    let logged = Logged::begin().unwrap();
    let mut polls = 1;
    loop {
        let house = House::start("delete").await;
        let acts = known(&house).await;
        house.order(Target::User(USER.into())).await;
        house.later(SignedDuration::from_secs(31));
        let until = house.parts.clock.now() + SignedDuration::from_mins(15);
        let late = house.message("m-late", "my private words");
        // The clock stands, so all of this is of the moment of the erasure, or before.
        let erasing = Mortal::new(house.sync.handle_until(json!({}), until), polls);
        let answering = house.answers.handle_until(json!({}), until);
        let delivering = async {
            for body in acts.iter().chain([&late]) {
                assert_eq!(house.receive(body).await, 200);
            }
        };
        let sending = async {
            let (status, answer) = house.campaign("at-once").await;
            assert!(matches!(status, 202 | 404), "{answer}");
        };
        let writing = async { assert_eq!(house.writes("d-1").await.0, 202) };
        let (survived, answered, (), (), ()) =
            futures_util::join!(erasing, answering, delivering, sending, writing);
        answered.unwrap();
        // Until the dead process's leases have run out; then everything comes once more.
        house.later(SignedDuration::from_mins(4));
        house.tick().await;
        for body in acts.iter().chain([&late]) {
            assert_eq!(house.receive(body).await, 200);
        }
        house.writes("d-1").await;
        let receipt = house.finish().await;
        assert_eq!(receipt.status, Status::Erased, "died at poll {polls}");
        let left = house.traces().await;
        assert!(left.is_empty(), "died at poll {polls}: {}", left.join("\n"));
        for body in acts.iter().chain([&late]) {
            assert_eq!(house.receive(body).await, 200);
        }
        house.tick().await;
        let left = house.traces().await;
        assert!(
            left.is_empty(),
            "came back after poll {polls}: {}",
            left.join("\n")
        );
        let logged = logged.take();
        assert!(logged.contains("an erasure is done"), "{logged}");
        let named: Vec<&str> = logged.lines().filter(|line| names_them(line)).collect();
        assert!(named.is_empty(), "logged: {}", named.join("\n"));
        if survived.is_some() {
            assert!(polls > 50, "the run is longer than {polls} polls");
            return;
        }
        polls += 1 + polls / 3;
    }
}

#[tokio::test]
async fn who_writes_again_is_new_and_stays() {
    let house = House::start("attributes").await;
    known(&house).await;
    house.order(Target::User(USER.into())).await;
    house.tick().await;
    // Between the two looks.
    house.later(SignedDuration::from_mins(1));
    assert_eq!(house.receive(&house.message("m-new", "hello again")).await, 200);
    let (_, answer) = house.writes("d-new").await;
    assert_eq!(answer["status"], "accepted");
    assert_eq!(house.finish().await.status, Status::Erased);
    house.tick().await;
    let contacts = house.parts.items("ContactsTable").await.unwrap();
    assert!(
        contacts.iter().any(|item| format!("{item:?}").contains(PSID)),
        "the new contact"
    );
    let profile = house
        .parts
        .braze
        .alias_profile(&format!("messenger:{PAGE}"), PSID);
    assert_eq!(profile.unwrap().attribute("messenger_id"), Some(&json!(PSID)));
    let conversations = house.parts.items("ConversationsTable").await.unwrap();
    assert!(
        conversations
            .iter()
            .any(|item| format!("{item:?}").contains(USER))
    );
}

#[tokio::test]
async fn a_known_users_profile_loses_our_attributes_and_stays() {
    let house = House::start("attributes").await;
    known(&house).await;
    house.order(Target::User(USER.into())).await;
    house.finish().await;
    let profile = house.parts.braze.profile(USER).unwrap();
    let ours: Vec<&String> = profile
        .attributes
        .keys()
        .filter(|name| name.starts_with("messenger"))
        .collect();
    assert_eq!(ours, [""; 0]);
    assert_eq!(profile.attribute("first_name"), Some(&json!("Ana Beispiel")));
}

#[tokio::test]
async fn a_profile_that_only_has_our_alias_is_deleted_and_keep_leaves_braze_alone() {
    for (in_braze, left) in [("attributes", 0), ("keep", 1)] {
        let house = House::start(in_braze).await;
        assert_eq!(house.receive(&house.message("m-1", "hello")).await, 200);
        house.tick().await;
        assert_eq!(house.parts.braze.profiles().len(), 1);
        house
            .order(Target::Contact(format!("messenger#{PAGE}#{PSID}").into()))
            .await;
        assert_eq!(house.finish().await.status, Status::Erased);
        assert_eq!(house.parts.braze.profiles().len(), left, "{in_braze}");
    }
}

#[tokio::test]
async fn a_word_to_the_page_erases_by_proof() {
    let house = House::start("attributes").await;
    let asked = house.message("m-9", " delete my data ");
    let mut twice: serde_json::Value = serde_json::from_str(&asked).unwrap();
    let item = twice["entry"][0]["messaging"][0].clone();
    twice["entry"][0]["messaging"].as_array_mut().unwrap().push(item);
    assert_eq!(house.receive(&twice.to_string()).await, 200, "it is one wish");
    for _ in 0..2 {
        assert_eq!(house.receive(&asked).await, 200);
        house.tick().await;
    }
    house.later(SignedDuration::from_mins(11));
    house.tick().await;
    assert_eq!(house.traces().await, [""; 0]);
    let items = house.parts.items("OutboxTable").await.unwrap();
    let receipts = items
        .iter()
        .filter(|item| item["event_key"].as_s().unwrap() == "receipt");
    assert_eq!(receipts.count(), 1);
    assert_eq!(house.receive(&asked).await, 200);
    house.tick().await;
    assert_eq!(house.traces().await, [""; 0]);
}

#[tokio::test]
async fn who_is_unknown_is_told_so() {
    let house = House::start("delete").await;
    for target in [
        Target::User("nobody".into()),
        Target::Conversation("phone:+1999".into()),
        Target::Business("no-shop".to_owned()),
        Target::Scoped {
            id: "404404404404".into(),
            accounts: Vec::new(),
        },
    ] {
        house.order(target).await;
        house.tick().await;
        let receipt = house.receipt().await;
        assert_eq!(
            (receipt.status, receipt.removed.is_empty()),
            (Status::NoMatch, true)
        );
        house.later(SignedDuration::from_secs(1));
    }
}

#[tokio::test]
async fn a_business_is_erased_and_comes_back_by_a_new_install_alone() {
    const SHOP: &str = "shop-42-unique-id";
    let house = House::start("delete").await;
    let old = house.parts.clock.now() - SignedDuration::from_mins(1);
    let names = async || {
        let mut all = house.parts.items("InstallsTable").await.unwrap();
        all.extend(house.parts.items("OutboxTable").await.unwrap());
        all.iter()
            .filter(|item| format!("{item:?}").contains(SHOP))
            .count()
    };
    assert_eq!(house.install(old).await, 200);
    house.order(Target::Business(SHOP.to_owned())).await;
    house.tick().await;
    assert_eq!(house.install(old).await, 200);
    let receipt = house.finish().await;
    assert_eq!((receipt.status, receipt.removed.installs), (Status::Erased, 1));
    assert_eq!(house.install(old).await, 200);
    house.tick().await;
    assert_eq!(names().await, 0);
    assert_eq!(house.install(house.parts.clock.now()).await, 200);
    let installs = house.parts.items("InstallsTable").await.unwrap();
    assert!(
        installs
            .iter()
            .any(|item| item["external_business_id"].as_s().unwrap() == SHOP)
    );
    // Of the token that was there before the erasure: nobody has told the fake of it.
    let refused = house.parts.graph.take_refusals();
    assert!(
        refused.iter().all(|call| call.contains("/access_token")),
        "{refused:?}"
    );
}

#[tokio::test]
async fn an_app_scoped_id_is_matched_by_what_graph_says() {
    let house = House::start("attributes").await;
    assert_eq!(house.receive(&house.message("m-1", "hello")).await, 200);
    house.parts.graph.add_person_on_page("app-scoped-1", PAGE, PSID);
    house
        .order(Target::Scoped {
            id: "app-scoped-1".into(),
            accounts: Vec::new(),
        })
        .await;
    assert_eq!(house.finish().await.status, Status::Erased);
    assert_eq!(house.traces().await, [""; 0]);
}

#[tokio::test]
async fn an_erasure_waits_for_braze_and_is_never_given_up() {
    let house = House::start("delete").await;
    known(&house).await;
    house.parts.braze.begin_outage(faults::unavailable(503));
    house.order(Target::User(USER.into())).await;
    for _ in 0..60 {
        house.tick().await;
        house.later(SignedDuration::from_hours(1));
    }
    assert_eq!(house.receipt().await.status, Status::Matched);
    let order = house.parts.items("OutboxTable").await.unwrap();
    let order = order
        .iter()
        .find(|item| item["subject"].as_s().unwrap().ends_with(CODE) && item.contains_key("lane"));
    assert_eq!(order.unwrap()["status"].as_s().unwrap(), "pending");
    assert!(order.unwrap().contains_key("failing_since"), "an alarm rings");
    house.parts.braze.end_outage();
    house.later(SignedDuration::from_hours(1));
    assert_eq!(house.finish().await.status, Status::Erased);
    assert_eq!(house.traces().await, [""; 0]);
    assert!(!house.parts.braze.requests_to(Endpoint::Delete).is_empty());
}

#[tokio::test]
async fn nobody_is_unknown_because_graph_refuses_the_app() {
    let house = House::start("attributes").await;
    let logged = Logged::begin().unwrap();
    assert_eq!(house.receive(&house.message("m-1", "hello")).await, 200);
    house.parts.graph.add_person_on_page("app-scoped-1", PAGE, PSID);
    let (_, right) = testkit::house::secrets().into_iter().next().unwrap();
    let mut wrong = right.clone();
    wrong["app_secret"] = json!("of-yesterday");
    house.parts.write_secret("MetaSecret", &wrong).await.unwrap();
    house
        .order(Target::Scoped {
            id: "app-scoped-1".into(),
            accounts: Vec::new(),
        })
        .await;
    house.tick().await;
    assert_eq!(house.receipt().await.status, Status::Received);
    house.parts.write_secret("MetaSecret", &right).await.unwrap();
    house.later(SignedDuration::from_mins(10));
    assert_eq!(house.finish().await.status, Status::Erased);
    let logged = logged.take();
    assert!(logged.contains("an erasure waits for Graph"), "{logged}");
    assert!(!logged.contains("app-scoped-1"), "{logged}");
}

#[tokio::test]
async fn the_token_of_a_user_ref_goes_with_its_user() {
    let house = House::start("attributes").await;
    let optin = house
        .acts()
        .into_iter()
        .find(|act| act.contains("user_ref"))
        .unwrap();
    assert_eq!(house.receive(&optin).await, 200);
    house.order(Target::User(USER.into())).await;
    assert_eq!(house.finish().await.status, Status::Erased);
    let left = house.parts.items("ContactsTable").await.unwrap();
    let is_token = |key: &str| key.starts_with("link_token#");
    assert!(
        !left
            .iter()
            .any(|item| is_token(item["contact_key"].as_s().unwrap())),
        "{left:?}"
    );
}
