//! The contract of a lease, held against everything that is leased.

use std::time::Duration;

use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};
use rstest::rstest;
use serde_json::json;
use shared::fbe::install::Install;
use shared::fbe::push::{Push, PushProgress};
use shared::fbe::table::Installs;
use shared::messenger::contact::Contact;
use shared::messenger::sync::Synced;
use shared::messenger::table::{Record, Unit};
use shared::outbox::{Kind, OutboxItem};
use shared::store::{Claim, Lease, Released};
use shared::whatsapp::message::ConversationId;
use shared::whatsapp::plan::Plan;
use shared::whatsapp::table::{By, Conversations, Stored};
use shared::whatsapp::{Conversation, Inbound, parse};
use testkit::aws::Fault;

use super::Tables;

const LENGTH: Duration = Duration::from_mins(1);

/// What is leased.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leased {
    Contact,
    User,
    Business,
    Conversation,
    OutboxItem,
}

struct World {
    tables: Tables,
    installs: Installs,
    conversations: Conversations,
    leased: Leased,
}

impl World {
    /// With one item of what is leased.
    async fn with(leased: Leased) -> Self {
        let world = Self::without(leased).await;
        match leased {
            Leased::Contact => {
                let key = "messenger#101#1".parse().unwrap();
                let unit = Unit {
                    record: Some(Record::Contact(Contact {
                        version: 1,
                        ..Contact::new(key, world.now())
                    })),
                    claims: vec![],
                    outbox: vec![],
                    ..Unit::default()
                };
                assert_eq!(world.tables.contacts.write(vec![((), unit)]).await.unwrap(), []);
            }
            // A claim makes the record.
            Leased::User => {}
            Leased::Business => {
                let install = Install {
                    version: 1,
                    ..Install::unknown("shop")
                };
                assert!(world.installs.commit(&install, &[], false).await.unwrap());
            }
            Leased::Conversation => {
                let body = json!({"user_id": "42", "phone_number": "+15551234567", "message": "hello"});
                let Inbound::Message(message) = parse(body.to_string().as_bytes(), None, world.now()) else {
                    panic!("a message")
                };
                let plan = Plan {
                    conversation: Conversation {
                        version: 1,
                        ..Conversation::opened_by(&message)
                    },
                    guards: vec![],
                    handed_over: vec![],
                    turns: vec![],
                    outbox: vec![],
                };
                world.conversations.commit(&plan, By::Door).await.unwrap();
            }
            Leased::OutboxItem => {
                let item = OutboxItem {
                    subject: "a".to_owned(),
                    event_key: "1".to_owned(),
                    kind: Kind::ContactSync,
                    payload: json!(null),
                    not_before: None,
                };
                assert!(world.tables.outbox.add(&item).await.unwrap());
            }
        }
        world
    }

    async fn without(leased: Leased) -> Self {
        let tables = Tables::create().await;
        let outbox = &tables.outbox;
        let table = |logical_id: &str| tables.house.table(logical_id).to_owned();
        Self {
            installs: Installs::new(table("InstallsTable"), outbox.clone()),
            conversations: Conversations::new(table("ConversationsTable"), outbox.clone()),
            tables,
            leased,
        }
    }

    fn now(&self) -> Timestamp {
        self.tables.house.clock.now()
    }

    fn wait(&self, milliseconds: i64) {
        let clock = &self.tables.house.clock;
        clock.set(clock.now() + SignedDuration::from_millis(milliseconds));
    }

    fn fail(&self, times: usize, fault: Fault) {
        self.tables.house.aws.fail_next("UpdateItem", times, fault);
    }

    async fn claim(&self) -> Claim<()> {
        fn only<T>(claim: Claim<T>) -> Claim<()> {
            match claim {
                Claim::Leased(_, lease) => Claim::Leased((), lease),
                Claim::Busy => Claim::Busy,
                Claim::Missing => Claim::Missing,
            }
        }
        let (contacts, outbox) = (&self.tables.contacts, &self.tables.outbox);
        match self.leased {
            Leased::Contact => only(contacts.claim("messenger#101#1", LENGTH).await.unwrap()),
            Leased::User => only(contacts.claim_user("42", None, LENGTH).await.unwrap()),
            Leased::Business => only(self.installs.claim("shop", LENGTH).await.unwrap()),
            Leased::Conversation => {
                let id = ConversationId::parse("user:42").unwrap();
                only(self.conversations.claim(&id, LENGTH).await.unwrap())
            }
            Leased::OutboxItem => only(outbox.claim("a", "1", LENGTH).await.unwrap()),
        }
    }

    async fn claimed(&self) -> Lease {
        match self.claim().await {
            Claim::Leased((), lease) => lease,
            other => panic!("{other:?}"),
        }
    }

    async fn release(&self, lease: &Lease) -> Released {
        let (contacts, outbox) = (&self.tables.contacts, &self.tables.outbox);
        let released = match self.leased {
            Leased::Contact | Leased::User => contacts.release(lease, None).await,
            Leased::Business => self.installs.release(lease, false).await,
            Leased::Conversation => {
                let stored = self.stored(1).await;
                self.conversations.release(lease, &stored, None, false).await
            }
            Leased::OutboxItem => outbox.release(lease).await,
        };
        released.unwrap()
    }

    /// The conversation, as a worker would have read it when it was of this version.
    async fn stored(&self, version: u64) -> Stored {
        let id = ConversationId::parse("user:42").unwrap();
        let read = self.conversations.read(&id).await.unwrap().unwrap();
        let facts = Conversation { version, ..read };
        serde_json::from_value(serde_json::json!({ "facts": facts })).unwrap()
    }

    /// A write under the lease. `None` where there is none.
    async fn write(&self, lease: &Lease) -> Option<bool> {
        Some(match self.leased {
            Leased::Contact => self
                .tables
                .contacts
                .note(lease, &Synced::default())
                .await
                .unwrap(),
            Leased::Business => {
                let push = Push {
                    event_key: "1".to_owned(),
                    progress: PushProgress::new("catalog", "https://feed.example", self.now()),
                    finished_at: None,
                    unchanged_at: None,
                };
                let kept = self.installs.keep_push(lease, &push, LENGTH).await.unwrap();
                matches!(kept, Claim::Leased(..))
            }
            Leased::Conversation => {
                let renewed = self.conversations.renew(lease, LENGTH).await.unwrap();
                matches!(renewed, Claim::Leased(..))
            }
            Leased::User | Leased::OutboxItem => return None,
        })
    }
}

#[rstest]
#[tokio::test]
async fn a_lease_that_ends_now_is_free(
    #[values(
        Leased::Contact,
        Leased::User,
        Leased::Business,
        Leased::Conversation,
        Leased::OutboxItem
    )]
    leased: Leased,
) {
    let world = World::with(leased).await;
    world.claimed().await;
    world.wait(59_999);
    assert!(matches!(world.claim().await, Claim::Busy));
    world.wait(1);
    world.claimed().await;
}

#[rstest]
#[tokio::test]
async fn of_many_who_claim_at_once_one_wins(
    #[values(
        Leased::Contact,
        Leased::User,
        Leased::Business,
        Leased::Conversation,
        Leased::OutboxItem
    )]
    leased: Leased,
) {
    let world = World::with(leased).await;
    let claims = join_all((0..8).map(|_| world.claim())).await;
    let won = claims.iter().filter(|claim| matches!(claim, Claim::Leased(..)));
    assert_eq!(won.count(), 1);
}

#[rstest]
#[tokio::test]
async fn a_lease_that_expired_unreleased_is_told_from_one_that_was_released(
    #[values(
        Leased::Contact,
        Leased::User,
        Leased::Business,
        Leased::Conversation,
        Leased::OutboxItem
    )]
    leased: Leased,
) {
    let world = World::with(leased).await;
    assert!(!world.claimed().await.interrupted());
    world.wait(60_000);
    let lease = world.claimed().await;
    assert!(lease.interrupted());
    assert_eq!(world.release(&lease).await, Released::Yes);
    assert!(!world.claimed().await.interrupted());
}

#[rstest]
#[tokio::test]
async fn a_claim_and_a_release_whose_answers_are_lost_count_once(
    #[values(
        Leased::Contact,
        Leased::User,
        Leased::Business,
        Leased::Conversation,
        Leased::OutboxItem
    )]
    leased: Leased,
) {
    let world = World::with(leased).await;
    world.fail(1, Fault::AnswerLost);
    let lease = world.claimed().await;
    assert!(matches!(world.claim().await, Claim::Busy));
    world.fail(1, Fault::AnswerLost);
    assert_eq!(world.release(&lease).await, Released::Yes);
    assert!(!world.claimed().await.interrupted());
}

#[rstest]
#[tokio::test]
async fn a_release_whose_answer_is_lost_ends_no_other_lease(
    #[values(
        Leased::Contact,
        Leased::User,
        Leased::Business,
        Leased::Conversation,
        Leased::OutboxItem
    )]
    leased: Leased,
) {
    let world = World::with(leased).await;
    let lease = world.claimed().await;
    assert_eq!(world.release(&lease).await, Released::Yes);
    assert_eq!(
        world.release(&lease).await,
        Released::Yes,
        "as a resent one is answered"
    );
    world.claimed().await;
    assert_eq!(world.release(&lease).await, Released::Lost);
    assert!(matches!(world.claim().await, Claim::Busy));
}

#[rstest]
#[tokio::test]
async fn a_write_under_the_lease_whose_answer_is_lost_counts_once(
    #[values(
        Leased::Contact,
        Leased::User,
        Leased::Business,
        Leased::Conversation,
        Leased::OutboxItem
    )]
    leased: Leased,
) {
    let world = World::with(leased).await;
    let lease = world.claimed().await;
    world.fail(1, Fault::AnswerLost);
    let written = world.write(&lease).await;
    assert!(written.unwrap_or(true));
    world.tables.house.aws.clear_faults();
    assert_eq!(world.release(&lease).await, Released::Yes);
    assert!(
        !world.write(&lease).await.unwrap_or(false),
        "nothing is written after the release"
    );
}

#[rstest]
#[tokio::test]
async fn who_has_lost_the_lease_writes_nothing_and_ends_nothing(
    #[values(
        Leased::Contact,
        Leased::User,
        Leased::Business,
        Leased::Conversation,
        Leased::OutboxItem
    )]
    leased: Leased,
) {
    let world = World::with(leased).await;
    let lost = world.claimed().await;
    world.wait(60_000);
    world.claimed().await;
    assert!(!world.write(&lost).await.unwrap_or(false));
    assert_eq!(world.release(&lost).await, Released::Lost);
    assert!(matches!(world.claim().await, Claim::Busy));
}

#[rstest]
#[tokio::test]
async fn a_transaction_is_waited_for_and_one_that_does_not_end_is_busy(
    #[values(
        Leased::Contact,
        Leased::User,
        Leased::Business,
        Leased::Conversation,
        Leased::OutboxItem
    )]
    leased: Leased,
) {
    let world = World::with(leased).await;
    world.fail(2, Fault::Conflict);
    let lease = world.claimed().await;
    world.fail(2, Fault::Conflict);
    assert_eq!(world.release(&lease).await, Released::Yes);
    world.fail(1_000, Fault::Conflict);
    assert!(matches!(world.claim().await, Claim::Busy));
    world.tables.house.aws.clear_faults();
    world.claimed().await;
}

#[rstest]
#[tokio::test]
async fn what_is_not_there_is_missing(
    #[values(Leased::Contact, Leased::Business, Leased::Conversation, Leased::OutboxItem)] leased: Leased,
) {
    let world = World::without(leased).await;
    assert!(matches!(world.claim().await, Claim::Missing));
}

#[tokio::test]
async fn a_settled_outbox_item_is_missing() {
    let world = World::with(Leased::OutboxItem).await;
    world.claimed().await;
    world.tables.outbox.done_key("a", "1").await.unwrap();
    assert!(matches!(world.claim().await, Claim::Missing));
}

#[tokio::test]
async fn a_conversation_that_has_changed_is_not_released() {
    let world = World::with(Leased::Conversation).await;
    let lease = world.claimed().await;
    let conversations = &world.conversations;
    let stored = world.stored(0).await;
    let released = conversations
        .release(&lease, &stored, Some("reply#1"), false)
        .await;
    let released = released.unwrap();
    assert_eq!(released, Released::Refused);
    assert!(matches!(world.claim().await, Claim::Busy));
    assert_eq!(world.release(&lease).await, Released::Yes);
}
