//! Replies and their pieces come in one order, none of them lost and none twice, whatever fails, whoever is woken or dies,
//! and whether the window is open.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fastrand::Rng;
use jiff::SignedDuration;
use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, prop_oneof};
use proptest::sample::select;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use serde_json::json;
use testkit::aws::Fault as AwsFault;
use testkit::braze::Endpoint;
use testkit::braze::faults::{RateLimit, rate_limited, unauthorized, unavailable};
use testkit::external_system::Behaviour;
use testkit::fault::{Answer, Fault};
use tokio::runtime::Runtime;

use super::faults::killed_before;
use super::house::{House, TOKEN, body, inbound_request};
use super::story::{Story, Told};

/// What is late goes by template, in pieces; and nothing is given up in the days that a story takes.
const SETTINGS: [(&str, &str); 2] = [
    ("TEMPLATE_CAMPAIGN_ID", "template-campaign"),
    ("RETRY_FOR_HOURS", "1000"),
];

/// What a worker asks of DynamoDB.
const OPERATIONS: [&str; 5] = [
    "UpdateItem",
    "Query",
    "TransactWriteItems",
    "BatchWriteItem",
    "BatchGetItem",
];

#[derive(Debug, Clone)]
enum Step {
    /// The person writes, and the system will answer replies of so many words.
    Says(Vec<usize>),
    /// The person writes while a worker is at it, before its so many-th call of this operation.
    SaysMeanwhile(&'static str, usize),
    /// The system says more, unasked.
    Adds(Vec<usize>),
    /// The next send meets this.
    Braze(Trouble),
    /// The next handover meets this.
    System(Trouble),
    /// So many calls of an operation of DynamoDB fail.
    Table(&'static str, usize, AwsFault),
    Wake(Wake),
    /// A worker is woken and dies before its so many-th call of this operation.
    Dies(&'static str, usize),
    /// So many seconds pass.
    Passes(i64),
}

#[derive(Debug, Clone, Copy)]
enum Trouble {
    Unavailable,
    /// For so many seconds.
    Throttled(u32),
    Unauthorized,
    NotTaken,
    AnswerLost,
}

#[derive(Debug, Clone, Copy)]
enum Wake {
    All,
    /// Two workers at the same moment.
    Twice,
    /// For one item alone.
    Only(usize),
    /// For an item that there is not.
    Unknown,
    /// So late that no call can be made any more.
    Late,
    Schedule,
}

fn trouble() -> impl Strategy<Value = Trouble> {
    select(vec![
        Trouble::Unavailable,
        Trouble::Throttled(20),
        Trouble::Throttled(600),
        Trouble::Unauthorized,
        Trouble::NotTaken,
        Trouble::AnswerLost,
    ])
}

fn step() -> impl Strategy<Value = Step> {
    let length = prop_oneof![4 => 1..12_usize, 2 => 150..220_usize, 1 => 600..700_usize];
    let lengths = vec(length, 0..4);
    let operation = || select(OPERATIONS.to_vec());
    let fault = select(vec![
        AwsFault::ServiceUnavailable,
        AwsFault::Throttle,
        AwsFault::Conflict,
        AwsFault::AnswerLost,
    ]);
    let wake = prop_oneof![
        4 => Just(Wake::All),
        2 => Just(Wake::Twice),
        2 => (0..4_usize).prop_map(Wake::Only),
        1 => Just(Wake::Unknown),
        1 => Just(Wake::Late),
        3 => Just(Wake::Schedule),
    ];
    prop_oneof![
        5 => lengths.clone().prop_map(Step::Says),
        1 => (operation(), 0..4_usize).prop_map(|(operation, nth)| Step::SaysMeanwhile(operation, nth)),
        2 => lengths.prop_map(Step::Adds),
        4 => trouble().prop_map(Step::Braze),
        2 => trouble().prop_map(Step::System),
        1 => (operation(), 1..4_usize, fault).prop_map(|(operation, times, fault)| Step::Table(operation, times, fault)),
        8 => wake.prop_map(Step::Wake),
        2 => (operation(), 0..6_usize).prop_map(|(operation, nth)| Step::Dies(operation, nth)),
        4 => select(vec![1, 20, 90, 3_600, 25 * 3_600]).prop_map(Step::Passes),
    ]
}

const LONG: SignedDuration = SignedDuration::from_mins(4);

async fn play(house: &House, user: &str, steps: &[Step]) -> Result<Told, String> {
    let mut story = Story::of(house, user);
    story.says().await;
    for step in steps {
        match step {
            Step::Says(lengths) => {
                story.will_answer(lengths);
                story.says().await;
            }
            Step::SaysMeanwhile(operation, nth) => says_meanwhile(&mut story, user, operation, *nth).await,
            Step::Adds(lengths) => story.adds(lengths).await,
            Step::Braze(trouble) => {
                story.unclear += usize::from(matches!(trouble, Trouble::AnswerLost));
                let fault = match trouble {
                    Trouble::Unavailable => unavailable(503),
                    Trouble::Throttled(seconds) => rate_limited(RateLimit::RetryAfter(*seconds)),
                    Trouble::Unauthorized => unauthorized(),
                    Trouble::NotTaken => Fault::CutBeforeProcessing,
                    Trouble::AnswerLost => Fault::CutAfterProcessing,
                };
                house.braze.script(Endpoint::TriggerSend, fault);
            }
            Step::System(trouble) => {
                let refused = |status| Answer::json(status, &json!({}));
                house.external_system.script(Behaviour::Fault(match trouble {
                    Trouble::Unavailable => Fault::Answer(refused(503)),
                    Trouble::Throttled(seconds) => {
                        Fault::Answer(refused(429).header("retry-after", *seconds))
                    }
                    Trouble::Unauthorized => Fault::Answer(refused(401)),
                    Trouble::NotTaken => Fault::CutBeforeProcessing,
                    Trouble::AnswerLost => Fault::CutAfterProcessing,
                }));
            }
            Step::Table(operation, times, fault) => house.aws.fail_next(operation, *times, *fault),
            Step::Wake(wake) => wakes(&story, *wake).await,
            Step::Dies(operation, nth) => {
                let waiting = story.waiting().await;
                let working = story.wakes(&waiting, LONG);
                let died = killed_before(house, operation, *nth, working).await.is_none();
                house.aws.clear_faults();
                // Braze may have taken what was about to be noted as sent.
                story.unclear += usize::from(died && *operation == "BatchWriteItem");
            }
            Step::Passes(seconds) => house.later(SignedDuration::from_secs(*seconds)),
        }
    }
    story.ends().await
}

async fn wakes(story: &Story<'_>, wake: Wake) {
    let waiting = story.waiting().await;
    match wake {
        Wake::All => story.wakes(&waiting, LONG).await,
        Wake::Twice => {
            tokio::join!(story.wakes(&waiting, LONG), story.wakes(&waiting, LONG));
        }
        Wake::Only(nth) => {
            let only: Vec<String> = waiting.into_iter().skip(nth).take(1).collect();
            story.wakes(&only, LONG).await;
        }
        Wake::Unknown => story.wakes(&["message#nowhere".to_owned()], LONG).await,
        Wake::Late => story.wakes(&waiting, SignedDuration::from_secs(3)).await,
        Wake::Schedule => story.ticks().await,
    }
}

async fn says_meanwhile(story: &mut Story<'_>, user: &str, operation: &str, nth: usize) {
    story.house.aws.clear_faults();
    let text = story.next_message();
    let request = inbound_request(&body(user, &text, &story.house.next_dispatch()), Some(TOKEN));
    let (relay, taken) = (story.house.relay.clone(), Arc::new(AtomicBool::new(false)));
    for _ in 0..nth {
        story.house.aws.before_next(operation, |_| Box::pin(async {}));
    }
    let is_taken = taken.clone();
    story.house.aws.before_next(operation, move |_| {
        Box::pin(async move {
            let answer = relay.handle(request).await;
            is_taken.store(answer.status().as_u16() == 202, Ordering::SeqCst);
        })
    });
    wakes(story, Wake::All).await;
    story.house.aws.clear_faults();
    if taken.load(Ordering::SeqCst) {
        story.said.push(text);
    }
}

#[test]
fn whatever_fails_replies_and_their_pieces_come_once_and_in_order() {
    let runtime = Runtime::new().unwrap();
    let house = runtime.block_on(House::with(&SETTINGS));
    let (people, told) = (Cell::new(0), Cell::new(Told::default()));
    let config = Config {
        // Each takes some seconds.
        cases: 16,
        failure_persistence: None,
        max_shrink_iters: 200,
        ..Config::default()
    };
    let random = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let result = TestRunner::new_with_rng(config, random).run(&vec(step(), 3..16), |steps| {
        people.set(people.get() + 1);
        let user = format!("person-{}", people.get());
        let played = runtime.block_on(play(&house, &user, &steps));
        let played = played.map_err(TestCaseError::fail)?;
        let all = told.get();
        told.set(Told {
            replies: all.replies + played.replies,
            pieces: all.pieces + played.pieces,
            twice: all.twice + played.twice,
            passed_by: all.passed_by + played.passed_by,
        });
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    let told = told.get();
    assert!(told.replies > 20 && told.pieces > told.replies, "{told:?}");
    let _in_runtime = runtime.enter();
    drop(house);
}

#[tokio::test]
async fn killed_at_random_again_and_again_no_message_stays_unanswered_and_no_reply_comes_twice() {
    let house = House::with(&SETTINGS).await;
    let mut kills = 0;
    for seed in 0..20 {
        let mut random = Rng::with_seed(seed);
        let mut story = Story::of(&house, &format!("person-{seed}"));
        for _ in 0..random.usize(2..5) {
            let lengths: Vec<usize> = (0..random.usize(1..4)).map(|_| random.usize(1..400)).collect();
            story.will_answer(&lengths);
            for _ in 0..random.usize(1..4) {
                if random.bool() {
                    let operation = ["GetItem", "TransactWriteItems"][random.usize(0..2)];
                    kills += usize::from(story.says_in_spite_of_a_death(operation).await);
                } else {
                    story.says().await;
                }
            }
            for _ in 0..random.usize(1..4) {
                let operation = OPERATIONS[random.usize(0..OPERATIONS.len())];
                let (nth, by_schedule) = (random.usize(0..6), random.bool());
                let waiting = story.waiting().await;
                let working = async {
                    if by_schedule {
                        story.ticks().await;
                    } else {
                        story.wakes(&waiting, LONG).await;
                    }
                };
                let died = killed_before(&house, operation, nth, working).await.is_none();
                house.aws.clear_faults();
                kills += usize::from(died);
                story.unclear += usize::from(died && operation == "BatchWriteItem");
                house.later(SignedDuration::from_secs(random.i64(1..200)));
            }
        }
        let told = story.ends().await;
        assert!(told.is_ok(), "seed {seed}: {told:?}");
    }
    assert!(kills >= 40, "{kills}");
}
