//! Links, moves and unlinks while answers are lost, and several contacts of one user.

use std::time::Duration;

use jiff::SignedDuration;
use serde_json::{Value, json};
use shared::messenger::table::Contacts;
use shared::outbox::Outbox;
use shared::outbox::{Kind, OutboxItem};
use shared::store::Claim;
use testkit::aws::Fault as AwsFault;
use testkit::braze::Endpoint;
use testkit::braze::faults::{self, RateLimit};
use testkit::fault::Fault;
use testkit::template::Template;

use super::house::{House, PAGE, deadline};

impl House {
    fn unlinked(&self, psid: &str) -> Value {
        self.item(psid, "account_linking", json!({"status": "unlinked"}))
    }

    fn outbox(&self) -> Outbox {
        Outbox::new(self.aws.dynamodb(), self.outbox_table.clone(), self.clock.clone())
    }

    /// Receives it, and settles all that follows from it.
    async fn takes(&self, item: Value) {
        self.later(SignedDuration::from_mins(1));
        assert_eq!(self.receive(&[item]).await, 200);
        self.drain().await;
    }

    /// The profiles, by external id or alias, that a PSID is reached by.
    fn reached_by(&self, psid: &str) -> Vec<String> {
        let profiles = self.braze.profiles().into_iter();
        profiles
            .filter(|profile| profile.attribute("messenger_id") == Some(&json!(psid)))
            .map(|profile| profile.external_id.unwrap_or_else(|| "alias".to_owned()))
            .collect()
    }
}

#[tokio::test]
async fn of_two_contacts_of_a_user_the_one_that_stays_is_reached() {
    for alias_first in [false, true] {
        let house = House::start().await;
        for psid in ["7001", "7002"] {
            if alias_first {
                house.takes(house.message(psid)).await;
            }
            house.takes(house.referral(psid, "user-1")).await;
        }
        assert_eq!(house.reached_by("7001"), Vec::<String>::new());
        assert_eq!(house.reached_by("7002"), ["user-1"], "alias first: {alias_first}");
        house.takes(house.unlinked("7001")).await;
        assert_eq!(house.messenger_id("user-1"), Some(json!("7002")));

        house.takes(house.referral("7001", "user-1")).await;
        house.takes(house.referral("7001", "user-2")).await;
        assert_eq!(house.reached_by("7001"), ["user-2"]);
        assert_eq!(house.reached_by("7002"), ["user-1"]);
        house.takes(house.unlinked("7002")).await;
        assert_eq!(house.messenger_id("user-1"), None);
        assert_eq!(house.reached_by("7001"), ["user-2"]);
    }
}

#[tokio::test]
async fn id_window_and_consent_of_a_profile_are_those_of_one_contact() {
    let house = House::start().await;
    let profile = |name: &str| {
        let profiles = house.braze.profiles().into_iter();
        let mut ana = profiles.filter(|profile| profile.external_id.as_deref() == Some("user-1"));
        ana.next().unwrap().attribute(name).cloned()
    };
    let window = || {
        let closes_at = house.clock.now() + SignedDuration::from_hours(24);
        Some(json!(format!("{closes_at:.0}")))
    };
    let says = |psid: &str, text: &str| {
        house.item(
            psid,
            "message",
            json!({"mid": format!("m_{text}_{psid}"), "text": text}),
        )
    };
    for psid in ["7001", "7002"] {
        house.takes(house.referral(psid, "user-1")).await;
    }
    for (psid, text, opted_out) in [
        ("7001", "hello", None),
        ("7002", "STOP", Some(json!(true))),
        ("7001", "START", Some(json!(false))),
        ("7001", "hello again", Some(json!(false))),
        ("7002", "hello to you", Some(json!(true))),
    ] {
        house.later(SignedDuration::from_mins(70));
        assert_eq!(house.receive(&[says(psid, text)]).await, 200);
        let closes_at = window();
        house.drain().await;
        assert_eq!(profile("messenger_id"), Some(json!(psid)), "{text}");
        assert_eq!(profile("messenger_window_closes_at"), closes_at, "{text}");
        assert_eq!(profile("messenger_opted_out"), opted_out, "{text}");
    }
}

#[tokio::test]
async fn contacts_that_trade_places_in_one_batch_end_in_the_right_ones() {
    let house = House::start().await;
    for (psid, user) in [("7001", "user-1"), ("7002", "user-2"), ("7003", "user-2")] {
        house.takes(house.referral(psid, user)).await;
    }
    house.later(SignedDuration::from_mins(1));
    let trade = [
        house.referral("7001", "user-2"),
        house.referral("7002", "user-1"),
        house.referral("7003", "user-1"),
    ];
    house.receive(&trade).await;
    let until = deadline(&house.clock);
    let runs = (0..3).map(|_| house.dispatch.handle_until(json!({}), until));
    futures_util::future::join_all(runs).await;
    house.drain().await;
    assert_eq!(house.messenger_id("user-2"), Some(json!("7001")));
    let held = house.messenger_id("user-1");
    assert!(
        held == Some(json!("7002")) || held == Some(json!("7003")),
        "{held:?}"
    );
    assert_eq!(house.rows("dead").await, 0);
}

#[tokio::test]
async fn a_link_whose_answer_was_lost_is_taken_back() {
    for alias_first in [false, true] {
        for (moved, ends) in [(None, vec![]), (Some("user-2"), vec!["user-2".to_owned()])] {
            let house = House::start().await;
            if alias_first {
                house.takes(house.message("7001")).await;
            }
            house.later(SignedDuration::from_mins(1));
            house.braze.script(Endpoint::Track, Fault::CutAfterProcessing);
            house.receive(&[house.referral("7001", "user-1")]).await;
            house.tick().await;
            assert_eq!(house.reached_by("7001"), ["user-1"]);
            let then = match moved {
                Some(user) => house.referral("7001", user),
                None => house.unlinked("7001"),
            };
            house.takes(then).await;
            assert_eq!(house.reached_by("7001"), ends, "alias first: {alias_first}");
        }
    }
}

#[tokio::test]
async fn what_was_identified_as_the_wrong_user_is_taken_back() {
    for track in [true, false] {
        let house = House::start().await;
        house.takes(house.message("7001")).await;
        house.later(SignedDuration::from_mins(1));
        if track {
            house.braze.script(Endpoint::Track, faults::unavailable(503));
        } else {
            house.braze.script(Endpoint::Identify, Fault::CutAfterProcessing);
        }
        house.receive(&[house.referral("7001", "user-1")]).await;
        house.tick().await;
        house.takes(house.referral("7001", "user-2")).await;
        assert_eq!(house.reached_by("7001"), ["user-2"]);
        assert_eq!(house.messenger_id("user-1"), None);
    }
}

#[tokio::test]
async fn a_first_sync_whose_answer_was_lost_leaves_no_second_profile() {
    let house = House::start().await;
    house.braze.script(Endpoint::Track, Fault::CutAfterProcessing);
    house.receive(&[house.message("7001")]).await;
    house.tick().await;
    house.takes(house.referral("7001", "user-1")).await;
    assert_eq!(house.reached_by("7001"), ["user-1"]);
    assert_eq!(house.braze.profiles().len(), 1);
}

#[tokio::test]
async fn a_link_that_braze_did_not_take_leaves_no_trace() {
    let house = House::start().await;
    house.takes(house.message("7001")).await;
    house.later(SignedDuration::from_mins(1));
    house
        .braze
        .script(Endpoint::Identify, faults::rate_limited(RateLimit::Silent));
    house.receive(&[house.referral("7001", "user-1")]).await;
    house.tick().await;
    house.takes(house.unlinked("7001")).await;
    assert_eq!(
        house.reached_by("7001"),
        ["alias"],
        "as if it had never been linked"
    );
    house.takes(house.referral("7001", "user-2")).await;
    assert_eq!(house.reached_by("7001"), ["user-2"]);
    assert_eq!(house.braze.profiles().len(), 1);
}

#[tokio::test]
async fn who_returns_while_the_answer_to_their_leaving_is_lost_is_reached_again() {
    let house = House::start().await;
    house.takes(house.referral("7001", "user-1")).await;
    house.later(SignedDuration::from_mins(1));
    house.braze.script(Endpoint::Track, Fault::CutAfterProcessing);
    house.receive(&[house.unlinked("7001")]).await;
    house.tick().await;
    assert_eq!(house.reached_by("7001"), Vec::<String>::new());
    house.takes(house.referral("7001", "user-1")).await;
    assert_eq!(house.reached_by("7001"), ["user-1"]);
}

#[tokio::test]
async fn a_dispatcher_that_died_while_it_moved_somebody_leaves_nothing_behind() {
    for endpoint in [Endpoint::Identify, Endpoint::Track] {
        let house = House::start().await;
        house.takes(house.message("7001")).await;
        house.later(SignedDuration::from_mins(1));
        house.receive(&[house.referral("7001", "user-1")]).await;
        house.braze.script(endpoint, Fault::Late(Duration::from_secs(30)));
        house.later(SignedDuration::from_secs(31));
        let run = house.dispatch.handle_until(json!({}), deadline(&house.clock));
        assert!(tokio::time::timeout(Duration::from_secs(2), run).await.is_err());
        house.takes(house.unlinked("7001")).await;
        assert_eq!(house.reached_by("7001"), Vec::<String>::new(), "{endpoint:?}");
        house.takes(house.referral("7001", "user-2")).await;
        assert_eq!(house.reached_by("7001"), ["user-2"], "{endpoint:?}");
    }
}

#[tokio::test]
async fn that_a_dispatcher_died_is_not_forgotten_while_the_user_is_taken() {
    let house = House::start().await;
    house.receive(&[house.message("7001")]).await;
    house
        .braze
        .script(Endpoint::Track, Fault::Late(Duration::from_secs(30)));
    house.later(SignedDuration::from_secs(31));
    let run = house.dispatch.handle_until(json!({}), deadline(&house.clock));
    assert!(tokio::time::timeout(Duration::from_secs(2), run).await.is_err());

    house.later(SignedDuration::from_mins(3));
    house.receive(&[house.referral("7001", "user-1")]).await;
    let template = Template::of_the_repository().unwrap();
    let contacts = Contacts::new(
        template.table("ContactsTable").unwrap().name.clone(),
        house.outbox(),
    );
    let lease = Duration::from_mins(10);
    let claim = contacts.claim_user("user-1", None, lease).await.unwrap();
    let Claim::Leased(_, taken) = claim else {
        panic!("free")
    };
    assert_eq!(house.tick().await["left"], 2);
    contacts.release(&taken, None).await.unwrap();
    house.drain().await;
    assert_eq!(house.reached_by("7001"), ["user-1"]);
    assert_eq!(house.braze.profiles().len(), 1);
}

#[tokio::test]
async fn dynamodb_may_fail_at_every_kind_of_call() {
    let faults = [
        AwsFault::ServiceUnavailable,
        AwsFault::Throttle,
        AwsFault::AnswerLost,
        AwsFault::Conflict,
    ];
    for operation in ["UpdateItem", "Query", "BatchGetItem", "BatchWriteItem"] {
        for (fault, times) in faults.into_iter().flat_map(|fault| [(fault, 1), (fault, 3)]) {
            let house = House::with(&[("MESSENGER_EVENTS", "message,referral")]).await;
            house.takes(house.referral("7001", "user-1")).await;
            house.later(SignedDuration::from_mins(1));
            house
                .receive(&[house.message("7002"), house.referral("7002", "user-1")])
                .await;
            house.later(SignedDuration::from_secs(31));
            house.aws.fail_next(operation, times, fault);
            // The tick itself may fail: its own reading is among the calls.
            drop(
                house
                    .dispatch
                    .handle_until(json!({}), deadline(&house.clock))
                    .await,
            );
            house.aws.clear_faults();
            house.drain().await;
            let what = format!("{operation} {fault:?} × {times}");
            assert_eq!(house.reached_by("7002"), ["user-1"], "{what}");
            // What cannot be marked as done for so long is sent again: else it might be lost.
            let unmarked = operation == "BatchWriteItem" && fault != AwsFault::AnswerLost;
            let events = house.braze.events().len();
            assert!(events == 3 || (unmarked && events == 5), "{what}: {events}");
            assert_eq!(house.rows("dead").await, 0, "{what}");
        }
    }
}

#[tokio::test]
async fn events_that_braze_has_taken_are_done_whatever_the_table_answers() {
    for times in [1, 3] {
        let house = House::with(&[("MESSENGER_EVENTS", "message")]).await;
        house.receive(&[house.message("7001")]).await;
        house.later(SignedDuration::from_secs(31));
        house
            .braze
            .script(Endpoint::Track, Fault::Late(Duration::from_millis(300)));
        let tick = house.dispatch.handle_until(json!({}), deadline(&house.clock));
        let lose_the_release = async {
            let patience = Duration::from_secs(10);
            assert!(
                house
                    .braze
                    .until(patience, |braze| braze.request_count() == 1)
                    .await
            );
            house.aws.fail_next("UpdateItem", times, AwsFault::AnswerLost);
        };
        let (report, ()) = tokio::join!(tick, lose_the_release);
        report.unwrap();
        assert_eq!(house.aws.clear_faults(), 0);
        house.drain().await;
        assert_eq!(house.braze.events().len(), 1, "{times}");
        assert_eq!(house.reached_by("7001"), ["alias"]);
    }
}

#[tokio::test]
async fn events_that_come_before_their_contact_wait_for_it() {
    let house = House::with(&[("MESSENGER_EVENTS", "message")]).await;
    let early = OutboxItem {
        subject: format!("messenger#{PAGE}#7001"),
        event_key: "event#message:m_early".into(),
        kind: Kind::ContactEvent,
        payload: json!({"name": "messenger_message", "time": "2026-11-21T10:00:00.000Z", "properties": {}}),
        not_before: None,
    };
    house.outbox().add(&early).await.unwrap();
    assert_eq!(house.tick().await["retried"], 1);
    house.takes(house.message("7001")).await;
    assert_eq!(house.braze.events().len(), 2);
}
