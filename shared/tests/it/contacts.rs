use std::time::Duration;

use serde_json::json;
use shared::messenger::contact::{Contact, Link, LinkedVia, Stamped};
use shared::messenger::decide::Stored;
use shared::messenger::key::{Channel, ContactKey, UserRefKey};
use shared::messenger::sync::Synced;
use shared::messenger::table::{Claim, Record, Unit};
use shared::messenger::user_ref::UserRef;
use shared::outbox::{Kind, OutboxItem};
use testkit::aws::Fault;

use super::Tables;

fn key(n: usize) -> ContactKey {
    ContactKey {
        channel: Channel::Messenger,
        account_id: "101".into(),
        scoped_id: format!("{n}"),
    }
}

fn contact(n: usize, version: u64) -> Contact {
    let mut contact = Contact::new(key(n), "2026-11-21T10:00:00Z".parse().unwrap());
    contact.version = version;
    contact
}

fn sync(n: usize, event_key: &str) -> OutboxItem {
    OutboxItem {
        subject: key(n).to_string(),
        event_key: event_key.into(),
        kind: Kind::ContactSync,
        payload: json!(null),
        not_before: None,
    }
}

fn unit(n: usize, version: u64, event_key: &str) -> Unit {
    Unit {
        record: Some(Record::Contact(contact(n, version))),
        outbox: vec![sync(n, event_key)],
    }
}

#[tokio::test]
async fn a_contact_and_its_effect_are_written_in_one_call_and_read_back() {
    let tables = Tables::create().await;
    assert_eq!(
        tables.contacts.write(&[unit(1, 1, "sync#a")]).await.unwrap(),
        [true]
    );
    assert_eq!(tables.aws.dynamodb_calls().total(), 1);
    let known = tables.contacts.read(&[key(1), key(2)], &[]).await.unwrap();
    let known: Vec<_> = known
        .contacts
        .into_values()
        .map(|stored| stored.contact)
        .collect();
    assert_eq!(known, [contact(1, 1)]);
    assert!(
        tables
            .outbox
            .get(&key(1).to_string(), "sync#a")
            .await
            .unwrap()
            .is_some()
    );
}

#[tokio::test]
async fn of_two_writers_who_read_the_same_one_has_to_read_again() {
    let tables = Tables::create().await;
    tables.contacts.write(&[unit(1, 1, "sync#a")]).await.unwrap();
    let (one, two) = tokio::join!(
        async { tables.contacts.write(&[unit(1, 2, "sync#b")]).await.unwrap() },
        async { tables.contacts.write(&[unit(1, 2, "sync#c")]).await.unwrap() },
    );
    assert_ne!(one, two);
    let loser = if one == [true] { "sync#c" } else { "sync#b" };
    let effect = tables.outbox.get(&key(1).to_string(), loser).await.unwrap();
    assert!(
        effect.is_none(),
        "the loser's effect must not be there without its state"
    );
}

#[tokio::test]
async fn an_effect_that_is_there_already_does_not_stop_the_state() {
    let tables = Tables::create().await;
    tables.outbox.add(&sync(1, "sync#a")).await.unwrap();
    let mut unit = unit(1, 1, "sync#a");
    unit.outbox.push(sync(1, "sync#b"));
    assert_eq!(tables.contacts.write(&[unit]).await.unwrap(), [true]);
    assert_eq!(
        tables.contacts.read(&[key(1)], &[]).await.unwrap().contacts.len(),
        1
    );
    assert!(
        tables
            .outbox
            .get(&key(1).to_string(), "sync#b")
            .await
            .unwrap()
            .is_some()
    );
}

#[tokio::test]
async fn a_thousand_new_contacts_take_twenty_transactions() {
    let tables = Tables::create().await;
    let units: Vec<Unit> = (0..1000).map(|n| unit(n, 1, "sync#a")).collect();
    let written = tables.contacts.write(&units).await.unwrap();
    assert!(written.iter().all(|written| *written));
    let calls = tables.aws.dynamodb_calls();
    assert_eq!((calls.total(), calls.of("TransactWriteItems")), (20, 20));
}

#[tokio::test]
async fn one_conflict_in_a_group_costs_only_its_own_unit() {
    let tables = Tables::create().await;
    tables.contacts.write(&[unit(7, 1, "sync#a")]).await.unwrap();
    let units: Vec<Unit> = (0..50).map(|n| unit(n, 1, "sync#b")).collect();
    let written = tables.contacts.write(&units).await.unwrap();
    let refused: Vec<usize> = (0..50).filter(|n| !written[*n]).collect();
    assert_eq!(refused, [7]);
}

#[tokio::test]
async fn a_cut_answer_is_survived() {
    let tables = Tables::create().await;
    tables.aws.fail_next("TransactWriteItems", 1, Fault::AnswerLost);
    // The SDK sends the same idempotency token again, so the write counts once.
    assert_eq!(
        tables.contacts.write(&[unit(1, 1, "sync#a")]).await.unwrap(),
        [true]
    );
    assert_eq!(
        tables.contacts.read(&[key(1)], &[]).await.unwrap().contacts.len(),
        1
    );
}

#[tokio::test]
async fn a_unit_with_many_effects_is_split_and_complete() {
    let tables = Tables::create().await;
    let mut large = unit(1, 1, "sync#a");
    large
        .outbox
        .extend((0..250).map(|n| sync(1, &format!("event#{n}"))));
    let units = large.split();
    assert_eq!(units.len(), 3);
    assert!(
        tables
            .contacts
            .write(&units)
            .await
            .unwrap()
            .iter()
            .all(|written| *written)
    );
    assert!(
        tables
            .outbox
            .get(&key(1).to_string(), "event#249")
            .await
            .unwrap()
            .is_some()
    );
}

#[tokio::test]
async fn the_lease_keeps_others_away_and_what_was_told_survives_new_facts() {
    let tables = Tables::create().await;
    tables.contacts.write(&[unit(1, 1, "sync#a")]).await.unwrap();
    let name = key(1).to_string();
    let lease = Duration::from_mins(1);
    let Claim::Leased(leased) = tables.contacts.claim(&name, lease).await.unwrap() else {
        panic!("free")
    };
    assert!(matches!(
        tables.contacts.claim(&name, lease).await.unwrap(),
        Claim::Busy
    ));
    assert!(matches!(
        tables
            .contacts
            .claim("messenger#101#nobody", lease)
            .await
            .unwrap(),
        Claim::Missing
    ));

    // The webhook function writes meanwhile.
    tables.contacts.write(&[unit(1, 2, "sync#b")]).await.unwrap();
    let told = shared::messenger::sync::plan(
        &leased.contact,
        &leased.synced,
        &shared::messenger::sync::Others::default(),
        &shared::config::Env::from_pairs(&[])
            .finish(shared::messenger::settings::MessengerSettings::read)
            .unwrap(),
    )
    .after;
    assert_ne!(told, Synced::default());
    assert!(tables.contacts.release(&leased, Some(&told)).await.unwrap());

    let Claim::Leased(again) = tables.contacts.claim(&name, lease).await.unwrap() else {
        panic!("free")
    };
    assert_eq!((again.synced.clone(), again.contact.version), (told, 2));
    tables.later(61);
    let Claim::Leased(third) = tables.contacts.claim(&name, lease).await.unwrap() else {
        panic!("run out")
    };
    assert!(
        !tables.contacts.release(&again, None).await.unwrap(),
        "its lease had run out"
    );
    assert!(tables.contacts.release(&third, None).await.unwrap());
}

#[tokio::test]
async fn a_user_finds_their_contacts_and_unlinked_ones_leave_the_index() {
    let tables = Tables::create().await;
    let at = "2026-11-21T10:00:00Z".parse().unwrap();
    let mut linked = contact(1, 1);
    linked.link = Some(Stamped {
        at,
        value: Link {
            user_id: Some("user-42".into()),
            via: LinkedVia::Optin,
        },
    });
    let write = |contact: Contact| Unit {
        record: Some(Record::Contact(contact)),
        outbox: vec![],
    };
    tables.contacts.write(&[write(linked.clone())]).await.unwrap();
    let stored = Stored {
        contact: linked,
        synced: Synced::default(),
    };
    assert_eq!(tables.contacts.of_user("user-42").await.unwrap(), [stored]);
    tables.contacts.write(&[write(contact(1, 2))]).await.unwrap();
    assert!(tables.contacts.of_user("user-42").await.unwrap().is_empty());
}

#[tokio::test]
async fn user_refs_live_beside_contacts() {
    let tables = Tables::create().await;
    let name = UserRefKey::new(Channel::Messenger, "101", "form-7");
    let record = UserRef {
        version: 1,
        ..UserRef::default()
    };
    let unit = Unit {
        record: Some(Record::UserRef(name.clone(), record.clone())),
        outbox: vec![],
    };
    tables.contacts.write(&[unit]).await.unwrap();
    let known = tables
        .contacts
        .read(&[key(1)], std::slice::from_ref(&name))
        .await
        .unwrap();
    assert_eq!(known.user_refs.get(&name), Some(&record));
    assert!(known.contacts.is_empty());
}

#[tokio::test]
async fn a_transaction_that_is_under_way_is_waited_for() {
    let tables = Tables::create().await;
    tables.contacts.write(&[unit(1, 1, "sync#a")]).await.unwrap();
    let (name, lease) = (key(1).to_string(), Duration::from_mins(1));
    tables.aws.fail_next("UpdateItem", 1, Fault::Conflict);
    assert!(matches!(
        tables.contacts.claim(&name, lease).await.unwrap(),
        Claim::Busy
    ));
    let Claim::Leased(leased) = tables.contacts.claim(&name, lease).await.unwrap() else {
        panic!("free")
    };
    let told = Synced {
        held: true,
        ..Synced::default()
    };
    tables.aws.fail_next("UpdateItem", 2, Fault::Conflict);
    assert!(tables.contacts.release(&leased, Some(&told)).await.unwrap());

    tables.aws.fail_next("UpdateItem", 1, Fault::Conflict);
    let alone = Unit {
        record: Some(Record::Contact(contact(1, 2))),
        outbox: vec![],
    };
    let alone = [alone];
    assert_eq!(tables.contacts.write(&alone).await.unwrap(), [false]);
    assert_eq!(tables.contacts.write(&alone).await.unwrap(), [true]);
}

#[tokio::test]
async fn a_claim_and_a_release_whose_answers_are_lost_count_once() {
    let tables = Tables::create().await;
    tables.contacts.write(&[unit(1, 1, "sync#a")]).await.unwrap();
    let (name, lease) = (key(1).to_string(), Duration::from_mins(1));
    let told = Synced {
        held: true,
        ..Synced::default()
    };
    for synced in [None, Some(&told)] {
        tables.aws.fail_next("UpdateItem", 1, Fault::AnswerLost);
        let Claim::Leased(leased) = tables.contacts.claim(&name, lease).await.unwrap() else {
            panic!("ours")
        };
        tables.aws.fail_next("UpdateItem", 1, Fault::AnswerLost);
        assert!(tables.contacts.release(&leased, synced).await.unwrap());
    }
    let Claim::Leased(leased) = tables.contacts.claim(&name, lease).await.unwrap() else {
        panic!("free")
    };
    assert_eq!(leased.synced, told);
}
